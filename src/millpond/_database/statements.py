"""The texts of statements, prepared once each: where values go, what kind of statement it is.

Rules: the kind is read from the first word alone, and a word that nobody here knows is taken for the worst: something
that writes, commits what came before it, and cannot be undone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, cast

from millpond._sql import tokens as t
from millpond._sql.params import Misbound, Params, Template

from .dialects import Dialect
from .errors import InvalidParameters, TransactionMisuse, shown

REMEMBERED_MAX: Final = 1024  # texts; a program that writes values into them must not fill the memory
REMEMBERED_LENGTH_MAX: Final = 16 * 1024  # characters of a text that is worth remembering

READS: Final = frozenset(("SELECT", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "PRAGMA", "USE", "HELP"))
# These neither end a transaction nor begin one; whatever else is sent within one may do so.
TRANSACTIONAL: Final = READS | {
    *("INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "VALUES", "TABLE"),
    *("DO", "SET", "SAVEPOINT", "RELEASE", "ROLLBACK"),
}
# These end a transaction on MySQL and MariaDB, but for temporary tables, which only a status word tells apart.
COMMITTING: Final = frozenset(
    ("CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME", "GRANT", "REVOKE", "LOCK", "ANALYZE", "OPTIMIZE", "REPAIR")
)
ONE_RESULT: Final = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"))
INSERTING: Final = frozenset(("INSERT", "REPLACE", "WITH"))
CONTROL: Final = frozenset(("BEGIN", "START", "COMMIT", "END", "XA"))


Bind: TypeAlias = Callable[[Params | None], tuple[str, Sequence[Any] | None]]
Fetch: TypeAlias = Callable[[Any, str, Any], tuple[Any, Any]]
PlainRead: TypeAlias = tuple[Bind, Fetch]


class Statement:
    """A statement as it was written, and what can be told by its first word.

    Attributes:
        verb: its first word, in capitals; "" where it begins with something else, or is several.
        reads: it changes nothing.
        transactional: it leaves the transaction that it is in open.
        commits: it ends the transaction that it is in by committing it.
        one_result: there is no further result behind the first, and no cursor to be closed.
        gives_id: what its cursor tells as the last id is its own; SQLite's tell that of the last insert for any.
        bind: returns the text for the driver, and what it is to bind; raises Misbound.
    """

    __slots__ = (
        *("_after_verb", "_dialect", "_template"),
        *("bind", "commits", "gives_id", "one_result", "reads", "sql", "transactional", "verb"),
    )

    def __init__(self, sql: str, dialect: Dialect, rules: t.Dialect) -> None:
        self.sql = sql
        self._dialect = dialect
        self._template = Template(sql, rules, dialect.marks)
        # Not a method: one call less.
        self.bind: Bind = self._template.bind
        self.verb, self._after_verb = first_word(sql, rules)
        # Bodies of procedures are statements within one. Some drivers send several at once, which PyMySQL does not.
        parts = [sql] if ";" not in sql or self.verb in COMMITTING else split(sql, rules)
        refused = next(filter(None, (control_word(part, rules) for part in parts)), "")
        if len(parts) > 1:
            self.verb, self._after_verb = "", 0
        self.reads = self.verb in READS
        self.transactional = self.verb in TRANSACTIONAL or not dialect.ddl_commits
        self.commits = dialect.ddl_commits and self.verb in COMMITTING and not is_temporary(sql, rules)
        self.one_result = self.verb in ONE_RESULT and dialect.brand in ("mysql", "mariadb")
        self.gives_id = self.verb in INSERTING or dialect.brand != "sqlite"
        if refused:
            raise TransactionMisuse(
                f"{refused} as a statement: connections go back to the pool in between. Use: with db.transaction()\n"
                f"{shown(sql)}"
            )

    def timed(self, text: str, seconds: float) -> str | None:
        """Return *text*, as :meth:`bind` gave it, with a limit that the server enforces; None if there is none."""
        if not self._after_verb:
            return None
        end = self._after_verb
        if text[:end] != self.sql[:end]:  # percent signs were doubled in a comment before it
            end += self.sql.count("%", 0, end)
        return self._dialect.timed(text, self.verb, end, seconds)

    @property
    def driver_text(self) -> str:
        """The text with the driver's own marks."""
        return self._template.text

    def rows(self, chunk: list[Any]) -> list[Any]:
        """Return the values of many rows for ``executemany``, each in the order of the places.

        Raises:
            InvalidParameters: they do not go with the places, or one of them is a list.
        """
        try:
            return self._template.bind_rows(chunk)
        except Misbound as error:
            raise InvalidParameters(f"{error}\n{shown(self.sql)}") from None


class Statements:
    """The statements seen so far, for one database.

    Args:
        dialect: of its connections.
        driver: the adapter of its pool.
        plain_reads: gets the statements that read, have one result, and are cut alike by all rules: the fast path, one
            look-up.
    """

    def __init__(self, dialect: Dialect, driver: Any, plain_reads: dict[str, PlainRead] | None = None) -> None:
        self.plain_reads = {} if plain_reads is None else plain_reads
        self._dialect = dialect
        self._driver = driver
        self._known: dict[str, Statement] = {}
        self._known_by_rules: dict[tuple[str, t.Dialect], Statement] = {}

    def prepare(self, sql: str, conn: Any) -> Statement:
        """Return the statement for a text, by the rules that hold on *conn*.

        Raises:
            InvalidParameters: it is no text, or its strings end elsewhere by rules that this driver cannot tell.
            TransactionMisuse: it begins or ends a transaction.
        """
        given = cast("object", sql)
        if not isinstance(given, str):
            raise InvalidParameters(f"a statement is text (str), not {type(sql).__name__}")
        known = self._known.get(sql)
        if known is not None:
            return known
        if "\\" not in sql:  # strings end where they end, whatever the mode of the session
            statement = Statement(sql, self._dialect, self._dialect.rules(conn) or t.Dialect.MYSQL)
            if statement.reads and statement.one_result:
                self._remember(self.plain_reads, statement, (statement.bind, self._fetcher(statement, conn)))
            self._remember(self._known, statement, statement)
            return statement
        rules = self._dialect.rules(conn) or self._undisputed(sql)
        known = self._known_by_rules.get((sql, rules))
        if known is None:
            known = Statement(sql, self._dialect, rules)
            self._remember(self._known_by_rules, known, known, (sql, rules))
        return known

    def _fetcher(self, statement: Statement, conn: Any) -> Fetch:
        """Return how the rows of a plain read are fetched: as the adapter can, or through a cursor."""
        fetch: Fetch | None = self._driver.fetch
        if fetch is not None and self._driver.is_harmless(conn, statement.driver_text):
            return fetch
        new_cursor = self._dialect.cursor

        def through_cursor(conn: Any, text: str, values: Any) -> tuple[Any, Any]:
            cursor = new_cursor(conn)
            cursor.execute(text, values)
            return cursor.fetchall(), cursor.description

        return through_cursor

    def _undisputed(self, sql: str) -> t.Dialect:
        """Return the rules for a text whose places are the same whether or not backslashes escape."""
        escaping, plain = t.Dialect.MYSQL, t.Dialect.MYSQL_NO_BACKSLASH_ESCAPES
        if list(t.tokens(sql, escaping)) != list(t.tokens(sql, plain)):
            raise InvalidParameters(
                "where a string of this statement ends depends on sql_mode (NO_BACKSLASH_ESCAPES), which this driver "
                f"does not tell: give the string with the backslash as a value\n{shown(sql)}"
            )
        return escaping

    @staticmethod
    def _remember(known: dict[Any, Any], statement: Statement, value: Any, key: Any = None) -> None:
        if len(statement.sql) <= REMEMBERED_LENGTH_MAX:
            if len(known) >= REMEMBERED_MAX:
                known.clear()  # rare, and the texts in use are back after one turn
            known[key or statement.sql] = value


def first_word(sql: str, rules: t.Dialect) -> tuple[str, int]:
    """Return the first word, in capitals, and where it ends; 0 if a parenthesis is before it."""
    first = next(t.code_tokens(sql, rules), None)
    return t.first_keyword(sql, rules), first[2] if first is not None and first[0] == t.WORD else 0


def split(sql: str, rules: t.Dialect) -> list[str]:
    """Return the statements of a text."""
    return [sql[start:end] for start, end in t.split_statements(sql, rules)]


def control_word(sql: str, rules: t.Dialect) -> str:
    """Return the first word of a statement that begins or ends a transaction; "" for any other."""
    word = t.first_keyword(sql, rules)
    return word if word in CONTROL or (word == "ROLLBACK" and not is_rollback_to(sql, rules)) else ""


def is_temporary(sql: str, rules: t.Dialect) -> bool:
    """Say whether a CREATE or DROP is of a temporary table: CREATE [OR REPLACE] TEMPORARY TABLE."""
    words = [sql[start:end].upper() for _, start, end in itertools.islice(t.code_tokens(sql, rules), 4)]
    return "TEMPORARY" in words[1:]


def is_rollback_to(sql: str, rules: t.Dialect) -> bool:
    """Say whether a ROLLBACK goes back to a savepoint."""
    return any(kind == t.WORD and sql[start:end].upper() == "TO" for kind, start, end in t.code_tokens(sql, rules))
