"""What the helper layer is made of: shared, but for what waits, by its two shells, for threads and for asyncio.

- :mod:`knowledge`: what is learnt from the first connection, and what every call needs of it.
- :mod:`statements`: texts, prepared once.  :mod:`writes`: the texts of insert and upsert.
- :mod:`dialects`: what a driver and its database are like.
- :mod:`rows`: what rows become.  :mod:`batches`: many rows by one statement.
- :mod:`errors` and :mod:`translation`: what went wrong.
- :mod:`transactions`: the books of a transaction, who takes part in it, and whether it may be run again.
- :mod:`hand`: where statements are sent, for threads.  :mod:`watchdog`: deadlines, for threads; a task has its loop's.

A shell for asyncio uses all but :mod:`hand`, :mod:`watchdog` and :func:`batches.run` as they are: what it does in its
own way is to take a connection, to await a cursor, and to give the connection back.
"""
