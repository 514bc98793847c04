"""What the helper layer is made of, but for waiting: shared by its two shells, for threads and for asyncio.

Modules: :mod:`errors` and :mod:`translation` (what went wrong), :mod:`dialects` (what a driver and its database are like),
:mod:`statements` (texts, prepared once), :mod:`rows` (what rows become), :mod:`writes` (texts of insert and upsert),
:mod:`transactions` (the books of a transaction, joining, retries), :mod:`watchdog` (deadlines, for threads only).
"""
