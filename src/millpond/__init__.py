"""millpond keeps database connections: who holds which, and that each is alive, clean and affordable.

Importing it pulls in no driver and no asyncio.
"""

from __future__ import annotations

from .errors import (
    ConcurrentUse,
    ConnectionReturned,
    DriverMissing,
    DriverUnsuitable,
    Error,
    EventLoopBlocked,
    InvalidSetting,
    LeaseDropped,
    PoolClosed,
    PoolTimeout,
    TooManyWaiting,
    UncommittedWork,
)
from .lease import Lease
from .stats import Holder, PoolStats
from .threads import Pool

__version__ = "0.1.0"

__all__ = [
    "ConcurrentUse",
    "ConnectionReturned",
    "DriverMissing",
    "DriverUnsuitable",
    "Error",
    "EventLoopBlocked",
    "Holder",
    "InvalidSetting",
    "Lease",
    "LeaseDropped",
    "Pool",
    "PoolClosed",
    "PoolStats",
    "PoolTimeout",
    "TooManyWaiting",
    "UncommittedWork",
    "__version__",
]
