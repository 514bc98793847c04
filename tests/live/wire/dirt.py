"""What a borrower can do to its session, what the next one looks at, and servers on which all of it can be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pymysql
import pymysql.cursors

from tests.live.asking import answer, ask

from .ways import TABLE, Way

OTHER_SCHEMA = "information_schema"
VARIABLES = {
    "mariadb": "@@tx_isolation, @@tx_read_only, @@sql_mode, @@time_zone, @@autocommit, @@character_set_client, "
    "@@character_set_results, @@collation_connection, @@group_concat_max_len, @@last_insert_id",
    "mysql": "@@transaction_isolation, @@transaction_read_only, @@sql_mode, @@time_zone, @@autocommit, "
    "@@character_set_client, @@character_set_results, @@collation_connection, @@group_concat_max_len",
}

# What a borrower does -> what the next one looks at; both see what a new connection sees.
SPOILT: dict[str, tuple[list[str], list[str]]] = {
    "an open transaction": (
        ["BEGIN", f"INSERT INTO {TABLE} VALUES (2, 2)"],
        [f"SELECT * FROM {TABLE}"],
    ),
    "SET @a": (["SET @a = 1"], ["SELECT @a"]),
    "SELECT @a :=": (["SELECT @a := 1"], ["SELECT @a"]),
    "SELECT INTO @b": (["SELECT 1 INTO @b"], ["SELECT @b"]),
    "an UPDATE that assigns": ([f"UPDATE {TABLE} SET b = (@w := b)"], ["SELECT @w"]),
    "session variables": (
        ["SET sql_mode = 'ANSI', time_zone = '+03:00', group_concat_max_len = 77", "SET SESSION TRANSACTION READ ONLY"],
        ["SELECT {variables}", f"INSERT INTO {TABLE} VALUES (3, 3)", "SELECT '+' || '+'"],
    ),
    "isolation of the session": (
        ["SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"],
        ["SELECT {variables}"],
    ),
    "autocommit": (
        ["SET autocommit = 0", f"SELECT * FROM {TABLE}"],
        ["SELECT {variables}", f"INSERT INTO {TABLE} VALUES (4, 4)"],
    ),
    "character set": (["SET NAMES latin1"], ["SELECT {variables}", "SELECT LENGTH('ä')"]),
    "collation": (["SET collation_connection = utf8mb4_bin"], ["SELECT {variables}", "SELECT 'A' = 'a'"]),
    "current schema": ([f"USE {OTHER_SCHEMA}"], ["SELECT DATABASE()"]),
    "a temporary table": (["CREATE TEMPORARY TABLE wire_temporary (a INT)"], ["SELECT * FROM wire_temporary"]),
    "a temporary table over a table": (
        [f"CREATE TEMPORARY TABLE {TABLE} (z INT)", f"INSERT INTO {TABLE} VALUES (99)"],
        [f"SELECT * FROM {TABLE}"],
    ),
    "SELECT GET_LOCK": (["SELECT GET_LOCK('wire', 0)"], ["SELECT IS_USED_LOCK('wire')"]),
    "DO GET_LOCK": (["DO GET_LOCK('wire', 0)"], ["SELECT IS_USED_LOCK('wire')"]),
    "LOCK TABLES": ([f"LOCK TABLES {TABLE} READ"], [f"INSERT INTO {TABLE} VALUES (5, 5)", "SELECT @@autocommit"]),
    "a prepared statement": (["PREPARE wire FROM 'SELECT 1'"], ["EXECUTE wire"]),
    "warnings": (["SELECT CAST('x' AS UNSIGNED)"], ["SHOW WARNINGS"]),
    "warnings of a write": (["INSERT IGNORE INTO wire VALUES (1, 1)"], ["SHOW WARNINGS"]),
    "a role": (["SET ROLE {role}"], ["SELECT CURRENT_ROLE()"]),
    "a one-shot transaction": (
        ["SET TRANSACTION READ ONLY"],
        ["BEGIN", f"INSERT INTO {TABLE} VALUES (6, 6)", "COMMIT"],
    ),
    "HANDLER": ([f"HANDLER {TABLE} OPEN"], [f"HANDLER {TABLE} READ FIRST"]),
    "a function that sets and locks": (
        ["SELECT wire_function()"],
        ["SELECT @from_function", "SELECT IS_USED_LOCK('wire_function')"],
    ),
    "a procedure that sets, locks and begins": (
        ["CALL wire_procedure()"],
        ["SELECT @from_procedure", "SELECT IS_USED_LOCK('wire_procedure')", f"SELECT * FROM {TABLE} WHERE a = 70"],
    ),
    "a trigger that sets": ([f"INSERT INTO {TABLE} VALUES (8, 8)"], ["SELECT @from_trigger"]),
    "tracking switched off": (
        ["SET session_track_state_change = 0", f"INSERT INTO {TABLE} VALUES (9, 9)"],
        ["SELECT @@session_track_state_change + 0, @from_trigger"],
    ),
    "a duplicate key": (
        ["SET autocommit = 0", f"INSERT INTO {TABLE} VALUES (1, 9)"],
        ["SELECT {variables}", "SELECT @@autocommit"],
    ),
    "a procedure that fails half-way": (
        ["CALL wire_failing()"],
        ["SELECT @from_failing", "SELECT IS_USED_LOCK('wire_failing')", f"SELECT * FROM {TABLE} WHERE a = 71"],
    ),
    "a statement that fails": (["SELEKT 1"], ["SHOW WARNINGS"]),
    "LAST_INSERT_ID(7)": (["SELECT LAST_INSERT_ID(7)"], ["SELECT LAST_INSERT_ID()"]),
}
MAY_FAIL = {"a duplicate key", "a procedure that fails half-way", "a statement that fails"}

ROUTINES = (
    """CREATE FUNCTION wire_function() RETURNS INT DETERMINISTIC
       BEGIN SET @from_function = 1; RETURN GET_LOCK('wire_function', 0); END""",
    f"""CREATE PROCEDURE wire_procedure()
       BEGIN SET @from_procedure = 1; DO GET_LOCK('wire_procedure', 0); START TRANSACTION;
             INSERT INTO {TABLE} VALUES (70, 70); SELECT 1; SELECT 2; END""",
    f"""CREATE PROCEDURE wire_failing()
       BEGIN SET @from_failing = 1; DO GET_LOCK('wire_failing', 0); START TRANSACTION;
             INSERT INTO {TABLE} VALUES (71, 71); SIGNAL SQLSTATE '45000'; END""",
    f"CREATE TRIGGER wire_trigger BEFORE INSERT ON {TABLE} FOR EACH ROW SET @from_trigger = NEW.a",
)
CHANGES: dict[str, Callable[[Any], object]] = {
    "autocommit()": lambda conn: conn.autocommit(False),
    "select_db()": lambda conn: conn.select_db(OTHER_SCHEMA),
    "set_character_set()": lambda conn: conn.set_character_set("latin1"),
    "cursorclass": lambda conn: setattr(conn, "cursorclass", pymysql.cursors.DictCursor),
    "a decoder": lambda conn: conn.decoders.update({pymysql.constants.FIELD_TYPE.LONGLONG: str}),
    "another table of decoders": lambda conn: setattr(conn, "decoders", {}),
    "begin()": lambda conn: conn.begin(),
    "autocommit_mode": lambda conn: setattr(conn, "autocommit_mode", False),
}


def make_spoilable(way: Way) -> None:
    """Give a server a schema with the table, and a role, routines and a trigger that leave traces."""
    root = way.root()
    ask(root, f"DROP DATABASE IF EXISTS {way.database}")
    ask(root, f"CREATE DATABASE {way.database}")
    ask(root, f"USE {way.database}")
    role_host = "" if way.kind == "mariadb" else "@'%'"
    ask(root, f"CREATE ROLE IF NOT EXISTS wire_role{role_host}")
    ask(root, f"GRANT wire_role TO {way.server.user}@'%'")
    if way.kind == "mysql":
        ask(root, "SET GLOBAL log_bin_trust_function_creators = 1")
    ask(root, f"CREATE TABLE {TABLE} (a INT PRIMARY KEY, b INT) ENGINE=InnoDB")
    for statement in ROUTINES:
        ask(root, statement)


def run(conn: Any, statements: list[str], way: Way) -> list[Any]:
    """Run statements and return what each was answered."""
    return [answer(conn, statement.format(variables=VARIABLES[way.kind], role="wire_role")) for statement in statements]


def seen_of(conn: Any) -> list[Any]:
    """Return what a borrower sees of the connection object, and of the session behind it."""
    looks = [conn.charset, conn.autocommit_mode, conn.cursorclass, sorted(conn.decoders), conn.get_autocommit()]
    return [*looks, ask(conn, "SELECT DATABASE(), @@autocommit, @@character_set_client, 1"), conn.server_status & 1]
