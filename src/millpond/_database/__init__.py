"""What the helper layer is made of: all of it but what a caller may ask for, and how that is waited for.

- :mod:`calls`: what a database does for a call.  :mod:`blocks`: an open transaction, and the blocks that it is made of.
  :mod:`hand`: a connection in hand, where statements are sent.  All three are conversations (:mod:`conversing`), held
  by :mod:`threads` for ``database.py`` and by :mod:`tasks` for ``aio_database.py``.
- :mod:`knowledge`: what is learnt from the first connection, and what every call needs of it.
- :mod:`statements`: texts, prepared once.  :mod:`writes`: the texts of insert and upsert.
- :mod:`dialects`: what a driver and its database are like.
- :mod:`rows`: what rows become.  :mod:`batches`: many rows by one statement.
- :mod:`errors` and :mod:`translation`: what went wrong.
- :mod:`transactions`: the books of a transaction, who takes part in it, and whether it may be run again.
- :mod:`watchdog`: deadlines, for threads; a task has its loop's.
"""
