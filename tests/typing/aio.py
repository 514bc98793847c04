"""What type checkers see of the asynchronous pool and database; never run, checked by mypy and pyright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millpond import AsyncDatabase, AsyncLease, AsyncPool, AsyncStream, Done
from millpond.drivers.aio import AsyncDriver

if TYPE_CHECKING:
    from typing_extensions import assert_type

    Row = tuple[Any, ...]


@dataclass
class User:
    """A class for rows."""

    id: int
    name: str


class Connection:
    """A connection of somebody's own driver."""


async def leases(pool: AsyncPool[Connection], driver: AsyncDriver[Connection]) -> None:
    """A lease knows the driver's connection, in a block and by hand."""
    assert_type(AsyncPool(driver), AsyncPool[Connection])
    async with pool.connection(timeout=5) as conn:
        _ = assert_type(conn, AsyncLease[Connection])
        assert_type(conn.driver_connection, Connection)
    by_hand = await pool.connection()
    _ = assert_type(by_hand, AsyncLease[Connection])
    assert_type(await by_hand.close(), None)
    async with AsyncPool("sqlite://") as opened:
        assert_type(opened, AsyncPool[Any])


async def rows(db: AsyncDatabase) -> None:
    """Rows are what ``into`` makes, or None unless they are required."""
    assert_type(await db.select_row("SELECT 1"), Row | None)
    assert_type(await db.select_row("SELECT 1", required=True), Row)
    assert_type(await db.select_row("SELECT 1", into=User), User | None)
    assert_type(await db.select_row("SELECT 1", into=User, required=True), User)
    assert_type(await db.select_rows("SELECT 1", into=User), list[User])
    assert_type(await db.select_column("SELECT 1", into=int), list[int])
    assert_type(await db.execute("DELETE FROM t"), Done)
    assert_type(db.stream("SELECT 1", into=User), AsyncStream[User])
    async for user in db.stream("SELECT 1", into=User):
        assert_type(user, User)


async def rows_that_may_be_required(db: AsyncDatabase, required: bool) -> None:
    """What is not known before it is run may be None."""
    assert_type(await db.select_row("SELECT 1", required=required), Row | None)
    assert_type(await db.select_row("SELECT 1", into=dict, required=required), dict[str, Any] | None)
    assert_type(await db.select_row("SELECT 1", into=list, required=True), list[Any])
    assert_type(await db.select_value("SELECT 1", into=int, required=required), int | None)


async def transactions(db: AsyncDatabase) -> None:
    """What the function returns is what comes back."""

    async def count() -> int:
        return 1

    assert_type(await db.run_transaction(count), int)
