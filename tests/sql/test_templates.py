"""Statements that are proved once for all of their values: what is proved, what is not, and that no value breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._sql.cleanliness import Brand, is_clean_statement
from millpond._sql.templates import LENGTH_MAX, TEMPLATES_MAX, TYPES, Proofs, places_of

PROVED = {
    "SELECT 1": 0,
    "SELECT %s": 1,
    "  select %s, 'some text', 3.5": 1,
    "SELECT a FROM t WHERE a = %s AND b IN (%s, %s) ORDER BY c LIMIT %s": 4,
    "SELECT COUNT(*) FROM t WHERE a>%s AND b<=%s": 2,
    "SELECT CONCAT(%s,%s) AS c FROM t AS x JOIN u ON u.id = x.id WHERE x.at > NOW() - INTERVAL %s DAY": 3,
    "SELECT a FROM t WHERE b LIKE %s ESCAPE '|'": 1,
    "SELECT /* why */ a FROM t WHERE b=%s": 1,
    "SELECT a FROM t WHERE b = %s FOR UPDATE": 1,
    "SELECT IF(%s>0, 'it''s', %s)": 2,
}
NOT_PROVED = [
    "UPDATE t SET a = %s",
    "INSERT INTO t VALUES (%s)",
    "(SELECT %s)",
    "WITH x AS (SELECT %s) SELECT a FROM x",
    "SET @a = %s",
    "BEGIN",
    "",
    "%s",
    # of which something is left, whatever the values are
    "SELECT GET_LOCK(%s, 0)",
    "SELECT f(%s)",
    "SELECT f (%s)",
    "SELECT @a := %s",
    "SELECT %s INTO @a",
    "SELECT a INTO OUTFILE 'x' FROM t WHERE b = %s",
    "SELECT NEXTVAL(s), %s",
    "SELECT LAST_INSERT_ID(%s)",
    "SELECT 1; SELECT %s",
    "SELECT /*! %s */ 1",
    "SELECT /*+ SET_VAR(a=1) */ %s",
    # in which a literal may be more than a literal
    "SELECT f%s(1)",
    "SELECT f%s (1)",
    "SELECT %s(1)",
    "SELECT %s (1)",
    "SELECT %s\n\t (1)",
    "SELECT @%s",
    "SELECT 'a%s'",
    "SELECT '%s'",
    "SELECT ' %s '",
    "SELECT 'a' '%s'",
    "SELECT `%s`",
    "SELECT ` %s ` FROM t",
    'SELECT " %s "',
    "SELECT 1 /* %s */",
    "SELECT 1 # %s ",
    "SELECT 1 -- %s \n",
    "SELECT 1 -%s",
    "SELECT 1 - -%s",
    "SELECT 1 /%s",
    "SELECT %s%s",
    "SELECT x%s",
    "SELECT %sx",
    "SELECT N%s",
    "SELECT _utf8%s",
    "SELECT 'a'%s",
    "SELECT %s'a'",
    "SELECT t.%s",
    "SELECT %s.t",
    "SELECT :%s",
    # which are written in a way that is not looked into
    "SELECT %%, %s",
    "SELECT %%s",
    "SELECT %(name)s",
    "SELECT 5 % 3, %s",
    "SELECT 'a\\'b', %s",
    "SELECT `a` FROM t WHERE b = %s",
    'SELECT "a", %s',
    "SELECT ä FROM t WHERE b = %s",
    "SELECT 'not closed, %s ",
]  # fmt: skip
NASTY = ["", "'", "''", "\\", "\\'", '"', "`", "@a", "; DROP TABLE t", "-- ", "#", "/*", "*/", "/*! 1 */", "%s", ":=",
         "f(1)", "GET_LOCK('a', 0)", "\x00\n\r\x1a", "INTO @a", "sys.x", "NEXTVAL(s)", "ä\u2028🎈"]  # fmt: skip
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.lists(st.sampled_from(NASTY), max_size=4).map("".join),
)
ESCAPES = {0: "\\0", 10: "\\n", 13: "\\r", 26: "\\Z", 34: '\\"', 39: "\\'", 92: "\\\\"}


def literal(value: object, *, backslashes: bool) -> str:
    """Write a value as PyMySQL and its descendants do."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + (value.translate(ESCAPES) if backslashes else value.replace("'", "''")) + "'"
    if isinstance(value, float):
        text = repr(value)
        return text if "e" in text else f"{text}e0"
    return str(int(value)) if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("template", PROVED)
@pytest.mark.parametrize("brand", ["mysql", "mariadb", None])
def test_what_most_programs_send_is_proved(template: str, brand: Brand | None) -> None:
    """Their reads take any values, and the number of these is told."""
    assert PROVED[template] == places_of(template, brand)


@pytest.mark.parametrize("template", NOT_PROVED)
@pytest.mark.parametrize("brand", ["mysql", "mariadb"])
def test_what_could_leave_something_is_not_proved(template: str, brand: Brand) -> None:
    """Nor what is no read, nor what a value could change the meaning of."""
    assert places_of(template, brand) is None


@given(st.data(), st.sampled_from([template for template, places in PROVED.items() if places]), st.booleans())
def test_no_value_makes_a_proved_statement_dirty(data: st.DataObject, template: str, backslashes: bool) -> None:
    """What the text says of all values is what is proved of each by itself."""
    values = data.draw(st.tuples(*[VALUES] * PROVED[template]))
    assert TYPES.issuperset(map(type, values))
    text = template % tuple(literal(value, backslashes=backslashes) for value in values)
    assert is_clean_statement(text, brand="mariadb", backslash_escapes=backslashes)


PIECES = [
    "SELECT ", "%s", "%s ", " %s ", ",", "(", ")", " f", "f(", "COUNT(", "'", "''", "'x'", "/*", "*/", "--", "-- \n",
    "#", " FROM t", " WHERE a=", "=", "-", "/", "@", "\n", ";", ".", " AS ", "x", "1", "INTO ", "`", '"', "\\", ":",
    " IN (%s)",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.data(), st.booleans())
def test_whatever_is_proved_holds_of_each_value(rest: str, data: st.DataObject, backslashes: bool) -> None:
    """The same for texts that nobody would write."""
    template = f"SELECT %s{rest}"
    places = places_of(template, "mysql")
    if places is None:
        return  # nothing is promised
    values = data.draw(st.tuples(*[VALUES] * places))
    text = template % tuple(literal(value, backslashes=backslashes) for value in values)
    assert is_clean_statement(text, brand="mysql", backslash_escapes=backslashes)


def test_what_is_seen_once_is_not_proved() -> None:
    """Who writes values into the text would pay for each proof, and gain nothing."""
    proofs = Proofs("mysql")
    assert [None, 0, 0] == [proofs["SELECT 1"] for _ in range(3)]
    assert {"SELECT 1": 0} == proofs


def test_only_so_many_are_remembered() -> None:
    """And no long ones, so that a program that makes statements cannot fill the memory."""
    proofs = Proofs("mysql")
    for number in range(3 * TEMPLATES_MAX):
        for _ in range(2):
            _ = proofs[f"SELECT {number}"]
        assert len(proofs) <= TEMPLATES_MAX
    longest = "SELECT " + "1" * (LENGTH_MAX - 7)
    for template, places in ((longest, 0), (longest + "1", None)):
        _ = proofs[template]
        assert places == proofs[template]
