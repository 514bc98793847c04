"""What callers write is what the server gets: values, lists, names, errors, and the number of commands."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pymysql
import pytest

import millpond
from millpond.database import Database
from millpond.testing import FaultProxy, ScratchServer


@dataclass
class Account:
    """A row of the table."""

    id: int
    owner: str
    balance: int


@pytest.fixture
def three(db: Database) -> Database:
    """Return the database with three accounts."""
    db.insert_many("accounts", [{"id": n, "owner": f"owner {n}", "balance": 10 * n} for n in (1, 2, 3)])
    return db


def test_a_row_becomes_what_the_caller_asks_for(three: Database) -> None:
    """A row is a tuple, a dict, a named row or a dataclass, by the names of the columns."""
    sql = "SELECT id, owner, balance FROM accounts WHERE id = %s"
    assert (2, "owner 2", 20) == three.select_row(sql, (2,))
    assert {"id": 2, "owner": "owner 2", "balance": 20} == three.select_row(sql, (2,), into=dict)
    assert Account(2, "owner 2", 20) == three.select_row(sql, (2,), into=Account)
    assert three.select_row(sql, (2,), into=millpond.database.NamedRow, required=True).balance == 20


def test_values_may_be_named_or_not_and_lists_stand_for_their_elements(three: Database) -> None:
    """Every style of places works, also twice, and an empty list finds nothing."""
    assert [1, 3] == three.select_column("SELECT id FROM accounts WHERE id IN :ids ORDER BY id", {"ids": {1, 3}})
    assert [1, 3] == three.select_column("SELECT id FROM accounts WHERE id IN (%s) ORDER BY id", ([1, 3],))
    assert [] == three.select_column("SELECT id FROM accounts WHERE id IN %s", ([],))
    assert 3 == three.select_value("SELECT COUNT(*) FROM accounts WHERE id NOT IN %(ids)s", {"ids": []})
    rows = "SELECT id FROM accounts WHERE (id, balance) IN %s ORDER BY id"
    assert [1, 2] == three.select_column(rows, ([(1, 10), (2, 20), (3, 0)],))
    assert [] == three.select_column(rows, ([],))


def test_percent_signs_and_colons_are_left_alone(db: Database) -> None:
    """What looks like a place in a string or comment is none, with values and without."""
    sql = "SELECT '100% :name %(name)s ?', 7 % %s /* :x */"
    assert ("100% :name %(name)s ?", 1) == db.select_row(sql, (3,))
    assert ("10%", "a:b") == db.select_row("SELECT '10%', 'a:b'")


def test_a_second_row_is_an_error_unless_any_will_do(three: Database) -> None:
    """Several rows are an error, none is None, or an error if one is required."""
    with pytest.raises(millpond.TooManyRows):
        three.select_row("SELECT * FROM accounts")
    assert 1 == three.select_value("SELECT id FROM accounts ORDER BY id", first=True)
    assert three.select_row("SELECT * FROM accounts WHERE id = 9") is None
    with pytest.raises(millpond.NoRow):
        three.select_row("SELECT * FROM accounts WHERE id = 9", required=True)


def test_columns_of_one_name_are_an_error_that_names_them(three: Database) -> None:
    """Two columns of one name cannot be keys of one dict."""
    with pytest.raises(millpond.RowMismatch, match="more than one column id"):
        three.select_row("SELECT id, owner, id FROM accounts", into=dict, first=True)


def test_what_exists_is_updated_and_what_does_not_is_inserted(three: Database) -> None:
    """An upsert changes the row with the key, one at a time or many."""
    three.upsert("accounts", {"id": 1, "owner": "new 1", "balance": 5}, key="id")
    three.upsert("accounts", [{"id": n, "owner": f"new {n}", "balance": 6} for n in (2, 4)], key="id")
    three.upsert("accounts", {"id": 3, "owner": "new 3", "balance": 7}, key="id", update=["balance"])
    three.upsert("accounts", {"id": 3, "owner": "newer 3", "balance": 8}, key="id", update=[])
    expected = [(1, "new 1", 5), (2, "new 2", 6), (3, "owner 3", 7), (4, "new 4", 6)]
    assert expected == three.select_rows("SELECT id, owner, balance FROM accounts ORDER BY id")


def test_names_are_quoted(db: Database) -> None:
    """A table and a column may be called anything."""
    sign = "%" if db.pool.driver.name == "mysqlconnector" else "%s"  # that one takes a %s in a name for a place
    db.execute(f"CREATE TABLE `sel``ect 100{sign}` (`or:der {sign}` INT PRIMARY KEY, `b` VARCHAR(10))")
    assert 1 == db.insert(f"sel`ect 100{sign}", {f"or:der {sign}": 1, "b": "x"}).row_count
    assert 2 == db.insert_many(f"sel`ect 100{sign}", [{f"or:der {sign}": n, "b": "%s"} for n in (2, 3)])
    assert [(1, "x"), (2, "%s"), (3, "%s")] == db.select_rows(f"SELECT * FROM `sel``ect 100{sign}` ORDER BY 1")


def test_no_name_of_a_table_is_in_the_way_of_an_upsert(db: Database) -> None:
    """MySQL wants a name for the row that was to be inserted, which must not be the table's."""
    for table in ("new row", "newer row", "values"):
        db.execute(f"CREATE TABLE `{table}` (id INT PRIMARY KEY, `{table}` VARCHAR(10))")
        for value in ("one", "two"):
            db.upsert(table, {"id": 1, table: value}, key="id")
        db.upsert(table, [{"id": n, table: "three"} for n in (1, 2)], key="id")
        assert [(1, "three"), (2, "three")] == db.select_rows(f"SELECT * FROM `{table}` ORDER BY 1")


def test_an_insert_tells_the_id_that_it_got(db: Database) -> None:
    """The id of an AUTO_INCREMENT column comes back."""
    db.execute("CREATE TABLE counted (id INT AUTO_INCREMENT PRIMARY KEY, x INT)")
    assert [1, 2] == [db.insert("counted", {"x": 5}).last_id for _ in range(2)]
    assert 3 == db.insert("counted", {}).last_id


ERRORS: list[tuple[type[millpond.StatementFailed], str, tuple[object, ...]]] = [
    (millpond.DuplicateKey, "INSERT INTO accounts (id, owner) VALUES (%s, %s)", (1, "again")),
    (millpond.NotNullViolation, "INSERT INTO accounts (id, owner) VALUES (%s, %s)", (8, None)),
    (millpond.InvalidValue, "INSERT INTO accounts (id, owner) VALUES (%s, %s)", (8, "x" * 51)),
    (millpond.InvalidValue, "INSERT INTO accounts (id, owner, balance) VALUES (8, 'x', %s)", (2**40,)),
    (millpond.ForeignKeyViolation, "INSERT INTO children (account) VALUES (%s)", (77,)),
    (millpond.CheckViolation, "INSERT INTO children (account, age) VALUES (1, %s)", (-1,)),
    (millpond.InvalidStatement, "SELEC 1", ()),
    (millpond.InvalidStatement, "SELECT nothing FROM accounts", ()),
    (millpond.InvalidStatement, "SELECT * FROM nowhere", ()),
    (millpond.AccessDenied, "CREATE USER somebody", ()),
]


def test_errors_have_one_name_for_all_drivers_and_are_the_drivers_own(three: Database) -> None:
    """An error is of our kind and of the driver's class, has the statement and not its values, and pickles."""
    three.execute(
        "CREATE TABLE children (account INT, age INT DEFAULT 1 CHECK (age >= 0), "
        "FOREIGN KEY (account) REFERENCES accounts (id)) ENGINE=InnoDB"
    )
    base = three.pool.driver.family("Error")
    assert base is not None
    for kind, sql, params in ERRORS:
        with pytest.raises(kind) as caught:
            three.execute(sql, params)
        error = caught.value
        assert isinstance(error, base)
        assert sql == error.statement
        assert sql in str(error)
        copy = pickle.loads(pickle.dumps(error))
        assert (kind, error.args, error.statement) == (type(copy), copy.args, copy.statement)


@pytest.fixture
def proxy(server: ScratchServer) -> Iterator[FaultProxy]:
    """Return a proxy that counts commands."""
    with FaultProxy(server.port, counting="mysql") as standing:
        yield standing


def commands_of(proxy: FaultProxy) -> list[str]:
    """Return what was sent, to be shown."""
    return [command.text or command.name for command in proxy.commands]


@pytest.mark.usefixtures("db")
def test_a_statement_is_one_command(proxy: FaultProxy, open_database: Callable[..., Database]) -> None:
    """Reads and writes outside a transaction cost one command each, committed when they return."""
    db = open_database(port=proxy.port)
    db.select_value("SELECT COUNT(*) FROM accounts")
    proxy.reset_counts()
    db.insert("accounts", {"id": 1, "owner": "one"})
    for _ in range(3):
        db.select_row("SELECT * FROM accounts WHERE id = %s", (1,))
    assert 1 == db.execute("UPDATE accounts SET balance = balance + 1").row_count
    assert (5, 5) == (len(proxy.commands), proxy.waits), commands_of(proxy)


@pytest.mark.usefixtures("db")
def test_a_transaction_costs_its_begin_and_its_commit(
    proxy: FaultProxy, open_database: Callable[..., Database]
) -> None:
    """BEGIN and COMMIT are all that a transaction adds, and its connection needs no cleaning."""
    db = open_database(port=proxy.port)
    db.select_value("SELECT COUNT(*) FROM accounts")
    proxy.reset_counts()
    for n in range(2):
        with db.transaction():
            db.insert("accounts", {"id": n, "owner": f"owner {n}"})
            db.execute("UPDATE accounts SET balance = 1 WHERE id = %s", (n,))
    assert 8 == len(proxy.commands), commands_of(proxy)


def test_a_pool_with_autocommit_off_works_and_says_what_it_costs(
    server: ScratchServer, schema: str, db: Database
) -> None:
    """Over such a pool a write costs a COMMIT as well; that is said once, in the caller's name."""
    arguments = server.connect_args(tls=False)
    arguments["database"] = schema
    with millpond.Pool(pymysql, connect_args=arguments) as pool:
        slow = Database(pool)
        with pytest.warns(millpond.AutocommitOff, match="second command") as warned:
            slow.insert("accounts", {"id": 1, "owner": "one"})
        assert __file__ == warned[0].filename
        assert 1 == slow.select_value("SELECT COUNT(*) FROM accounts")
        slow.execute("UPDATE accounts SET balance = 5")
        assert 5 == db.select_value("SELECT balance FROM accounts")
        assert 0 == pool.stats().uncommitted


def test_a_row_that_a_write_returns_is_committed(server: ScratchServer, db: Database) -> None:
    """INSERT ... RETURNING, where there is one, is a write like any other."""
    if server.kind == "mysql":
        with pytest.raises(millpond.InvalidStatement):
            db.select_value("INSERT INTO accounts (id, owner) VALUES (1, 'one') RETURNING id")
        return
    assert 1 == db.select_value("INSERT INTO accounts (id, owner) VALUES (1, 'one') RETURNING id")
    assert 1 == db.select_value("SELECT COUNT(*) FROM accounts")


def test_a_procedure_that_returns_rows_leaves_nothing_behind(db: Database) -> None:
    """The first result of a CALL is returned, and the others do not get into the way of what comes next."""
    db.execute("CREATE PROCEDURE twice() BEGIN SELECT 1; SELECT 2; END")
    for _ in range(2):
        assert [(1,)] == db.select_rows("CALL twice()")
        assert 5 == db.select_value("SELECT 5")
    with db.transaction():
        assert [(1,)] == db.select_rows("CALL twice()")
        assert 5 == db.select_value("SELECT 5")


@pytest.mark.usefixtures("db")
def test_a_time_limit_costs_nothing(proxy: FaultProxy, open_database: Callable[..., Database]) -> None:
    """A limit that the server keeps is part of the one command, and leaves nothing that has to be cleaned."""
    db = open_database(port=proxy.port)
    db.select_value("SELECT 1")
    proxy.reset_counts()
    for n in range(3):
        assert (n, "x") == db.select_row("SELECT %s, 'x'", (n,), timeout=50 + n)
        db.execute("DELETE FROM accounts WHERE id = %s", (n,), timeout=50 + n)
    assert 6 == len(proxy.commands), commands_of(proxy)
