"""millpond keeps database connections: who holds which, and that each is alive, clean and affordable.

Importing it pulls in no driver and no asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._database.errors import (
    AccessDenied,
    AutocommitOff,
    CheckViolation,
    Deadlock,
    DuplicateKey,
    ForeignKeyViolation,
    InvalidParameters,
    InvalidStatement,
    InvalidValue,
    LockTimeout,
    NoRow,
    NotNullViolation,
    OutcomeUnknown,
    ReadOnlyServer,
    ReadOnlyTransaction,
    RowMismatch,
    ServerGone,
    StatementFailed,
    StatementKilled,
    StatementTimeout,
    TooManyRows,
    TransactionLost,
    TransactionMisuse,
)
from .database import Database, Done, NamedRow, Stream, Transaction
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
    WrongEventLoop,
)
from .lease import Lease
from .stats import Holder, PoolStats
from .threads import Pool

if TYPE_CHECKING:
    from .aio import AsyncPool
    from .aio_database import AsyncDatabase, AsyncStream, AsyncTransaction
    from .aio_lease import AsyncLease

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AsyncDatabase",
    "AsyncLease",
    "AsyncPool",
    "AsyncStream",
    "AsyncTransaction",
    "AutocommitOff",
    "CheckViolation",
    "ConcurrentUse",
    "ConnectionReturned",
    "Database",
    "Deadlock",
    "Done",
    "DriverMissing",
    "DriverUnsuitable",
    "DuplicateKey",
    "Error",
    "EventLoopBlocked",
    "ForeignKeyViolation",
    "Holder",
    "InvalidParameters",
    "InvalidSetting",
    "InvalidStatement",
    "InvalidValue",
    "Lease",
    "LeaseDropped",
    "LockTimeout",
    "NamedRow",
    "NoRow",
    "NotNullViolation",
    "OutcomeUnknown",
    "Pool",
    "PoolClosed",
    "PoolStats",
    "PoolTimeout",
    "ReadOnlyServer",
    "ReadOnlyTransaction",
    "RowMismatch",
    "ServerGone",
    "StatementFailed",
    "StatementKilled",
    "StatementTimeout",
    "Stream",
    "TooManyRows",
    "TooManyWaiting",
    "Transaction",
    "TransactionLost",
    "TransactionMisuse",
    "UncommittedWork",
    "WrongEventLoop",
    "__version__",
]

# What needs asyncio is imported when it is asked for.
_LATER = {
    "AsyncDatabase": "aio_database",
    "AsyncLease": "aio_lease",
    "AsyncPool": "aio",
    "AsyncStream": "aio_database",
    "AsyncTransaction": "aio_database",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
