"""The pool without a pool: decisions and conversations, no input or output.

Rules: nothing in here imports a driver, a thread, an event loop, ``time`` or any other part of millpond.  Whatever the
core needs from outside (the clock, a way to park a caller, the meaning of an error) is handed in through
:class:`millpond._core.ports.Ports`.  That is what lets one core serve threads, asyncio and the simulator.
"""
