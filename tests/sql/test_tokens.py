"""Cutting statements into tokens: what each piece is, that nothing is lost, and that no text is slow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._sql import tokens as t
from millpond._sql.tokens import Dialect

SQL_PIECES = st.sampled_from(
    ["'", '"', "`", "\\", "--", "-- ", "#", "/*", "*/", "/*!", "/*!50000", "/*M!", "/*+", "@", "@@", ":", ":=", "%s",
     "%(", ")s", "%", "?", "(", ")", ",", ";", ".", "1", "0x1F", "1e5", "x'", "n'", "_utf8mb4", "SELECT", "a", "é", "$",
     "\n", " ", "\x00", "\t", "''", '""', "``", "[", "]", "*", "/", "-", "+", "=", "<=>", "->>", "\ud800"]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(SQL_PIECES).map("".join))


def kinds_and_pieces(text: str, dialect: Dialect = Dialect.MYSQL) -> list[tuple[str, str]]:
    """Return every token but spaces as its kind and its text."""
    return [(kind, text[start:end]) for kind, start, end in t.tokens(text, dialect) if kind != t.SPACE]


SINGLE_TOKENS = [
    (t.STRING, "''"),
    (t.STRING, "'it''s'"),
    (t.STRING, r"'it\'s'"),
    (t.STRING, r"'ends with a backslash \\'"),
    (t.STRING, "'-- no comment /* here # %s :x ; @a'"),
    (t.STRING, "'two\nlines'"),
    (t.STRING, "N'national'"),
    (t.DOUBLE_QUOTED, '"say ""yes"""'),
    (t.DOUBLE_QUOTED, r'"a\"b"'),
    (t.QUOTED, "`order`"),
    (t.QUOTED, "`a``b`"),
    (t.QUOTED, r"`a\`"),
    (t.NUMBER, "1"),
    (t.NUMBER, "1.5"),
    (t.NUMBER, ".5"),
    (t.NUMBER, "1."),
    (t.NUMBER, "1e5"),
    (t.NUMBER, "1.5E-7"),
    (t.NUMBER, "0x1F"),
    (t.NUMBER, "x'1F'"),
    (t.NUMBER, "0b01"),
    (t.NUMBER, "b'01'"),
    (t.WORD, "SELECT"),
    (t.WORD, "_utf8mb4"),
    (t.WORD, "a$b"),
    (t.WORD, "größe"),
    (t.WORD, "姓名"),
    (t.WORD, "1e5x"),
    (t.WORD, "2nd"),
    (t.COMMENT, "-- to the end of the line"),
    (t.COMMENT, "--"),
    (t.COMMENT, "--\x01control"),
    (t.COMMENT, "# to the end of the line"),
    (t.COMMENT, "/* in 'the' middle */"),
    (t.COMMENT, "/**/"),
    (t.COMMENT, "/***/"),
    (t.COMMENT, "/*/ not closed before here */"),
    (t.HINT, "/*+ MAX_EXECUTION_TIME(100) */"),
    (t.USER_VARIABLE, "@a"),
    (t.USER_VARIABLE, "@a.b$c"),
    (t.USER_VARIABLE, "@'a b'"),
    (t.USER_VARIABLE, '@"a b"'),
    (t.USER_VARIABLE, "@`a b`"),
    (t.USER_VARIABLE, "@"),
    (t.SYSTEM_VARIABLE, "@@sql_mode"),
    (t.SYSTEM_VARIABLE, "@@session.sql_mode"),
    (t.ASSIGN, ":="),
    (t.OPERATOR, "->>"),
    (t.OPERATOR, "->"),
    (t.OPERATOR, "<=>"),
    (t.OPERATOR, "||"),
    (t.OPERATOR, "%"),
    (t.FORMAT, "%s"),
    (t.PYFORMAT, "%(name)s"),
    (t.PYFORMAT, "%(a b)s"),
    (t.PERCENT_PAIR, "%%"),
    (t.NAMED, ":name"),
    (t.QMARK, "?"),
    (t.SEMICOLON, ";"),
    (t.OPEN, "("),
    (t.CLOSE, ")"),
    (t.COMMA, ","),
    (t.DOT, "."),
    (t.SPACE, " \t\r\n\v\f"),
    (t.EXECUTABLE, "/*!"),
    (t.EXECUTABLE, "/*!50000"),
    (t.EXECUTABLE, "/*!080034"),
    (t.EXECUTABLE, "/*M!100100"),
    (t.UNTERMINATED, "'open"),
    (t.UNTERMINATED, "'open''"),
    (t.UNTERMINATED, "'open\\"),
    (t.UNTERMINATED, "'open\\'"),
    (t.UNTERMINATED, '"open'),
    (t.UNTERMINATED, "`open"),
    (t.UNTERMINATED, "/* open *"),
    (t.UNTERMINATED, "/*/"),
    (t.UNTERMINATED, "/*+ open"),
    (t.UNTERMINATED, "@'open"),
    (t.OTHER, "\x00"),
    (t.OTHER, "{"),
    (t.OTHER, "\\"),
]


@pytest.mark.parametrize(("kind", "text"), SINGLE_TOKENS)
def test_what_is_one_token_is_one(kind: str, text: str) -> None:
    """Each of these texts is a single token of its kind."""
    assert [(kind, 0, len(text))] == list(t.tokens(text))


SEQUENCES = [
    ("a--b", [(t.WORD, "a"), (t.OPERATOR, "-"), (t.OPERATOR, "-"), (t.WORD, "b")]),
    ("5--3", [(t.NUMBER, "5"), (t.OPERATOR, "-"), (t.OPERATOR, "-"), (t.NUMBER, "3")]),
    ("2*/*c*/3", [(t.NUMBER, "2"), (t.OPERATOR, "*"), (t.COMMENT, "/*c*/"), (t.NUMBER, "3")]),
    ("-- c\nSELECT", [(t.COMMENT, "-- c"), (t.WORD, "SELECT")]),
    ("/* a /* b */ c", [(t.COMMENT, "/* a /* b */"), (t.WORD, "c")]),
    ("t.5x", [(t.WORD, "t"), (t.DOT, "."), (t.WORD, "5x")]),
    ("t.`c`", [(t.WORD, "t"), (t.DOT, "."), (t.QUOTED, "`c`")]),
    ("_latin1'x'", [(t.WORD, "_latin1"), (t.STRING, "'x'")]),
    ("'a''b''", [(t.UNTERMINATED, "'a''b''")]),
    ("''''''", [(t.STRING, "''''''")]),
    ("'a' 'b'", [(t.STRING, "'a'"), (t.STRING, "'b'")]),
    ("x'zz'", [(t.WORD, "x"), (t.STRING, "'zz'")]),
    ("max'a'", [(t.WORD, "max"), (t.STRING, "'a'")]),
    ("@a:=@@b", [(t.USER_VARIABLE, "@a"), (t.ASSIGN, ":="), (t.SYSTEM_VARIABLE, "@@b")]),
    ("'u'@'h'", [(t.STRING, "'u'"), (t.USER_VARIABLE, "@'h'")]),
    ("a::int", [(t.WORD, "a"), (t.OTHER, ":"), (t.OTHER, ":"), (t.WORD, "int")]),
    ("label:LOOP", [(t.WORD, "label"), (t.OTHER, ":"), (t.WORD, "LOOP")]),
    ("%size", [(t.OPERATOR, "%"), (t.WORD, "size")]),
    ("a->>'$.b'", [(t.WORD, "a"), (t.OPERATOR, "->>"), (t.STRING, "'$.b'")]),
    (
        "/*!50000 a /* b */ */ c */ d",
        [
            (t.EXECUTABLE, "/*!50000"),
            (t.WORD, "a"),
            (t.COMMENT, "/* b */"),
            (t.EXECUTABLE_END, "*/"),
            (t.WORD, "c"),
            (t.OPERATOR, "*"),
            (t.OPERATOR, "/"),
            (t.WORD, "d"),
        ],
    ),
    ("/*! '*/' */", [(t.EXECUTABLE, "/*!"), (t.STRING, "'*/'"), (t.EXECUTABLE_END, "*/")]),
    ("/*! 2*/*3 */", [(t.EXECUTABLE, "/*!"), (t.NUMBER, "2"), (t.EXECUTABLE_END, "*/"), (t.OPERATOR, "*"),
                      (t.NUMBER, "3"), (t.OPERATOR, "*"), (t.OPERATOR, "/")]),
    ("/* /*! */ a", [(t.COMMENT, "/* /*! */"), (t.WORD, "a")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SEQUENCES)
def test_neighbours_are_parted_as_the_server_parts_them(text: str, expected: list[tuple[str, str]]) -> None:
    """Where two tokens touch, each ends where the server ends it."""
    assert expected == kinds_and_pieces(text)


def test_backslashes_are_plain_characters_when_the_server_says_so() -> None:
    """Under NO_BACKSLASH_ESCAPES a backslash before a quote does not keep the string open."""
    expected = [(t.STRING, "'a\\'"), (t.COMMA, ","), (t.STRING, "'b'")]
    assert expected == kinds_and_pieces(r"'a\','b'", Dialect.MYSQL_NO_BACKSLASH_ESCAPES)


SQLITE_TOKENS = [
    ("[a b]", [(t.QUOTED, "[a b]")]),
    ('"a b"', [(t.QUOTED, '"a b"')]),
    ("`a b`", [(t.QUOTED, "`a b`")]),
    ("'a\\'", [(t.STRING, "'a\\'")]),
    ("--c\na", [(t.COMMENT, "--c"), (t.WORD, "a")]),
    ("/* open", [(t.COMMENT, "/* open")]),
    ("/*! c */", [(t.COMMENT, "/*! c */")]),
    ("?1 :a @b $c", [(t.QMARK, "?1"), (t.NAMED, ":a"), (t.NAMED, "@b"), (t.NAMED, "$c")]),
    ("# a", [(t.OTHER, "#"), (t.WORD, "a")]),
    ("x'1f'", [(t.NUMBER, "x'1f'")]),
    ("[open", [(t.UNTERMINATED, "[open")]),
]


@pytest.mark.parametrize(("text", "expected"), SQLITE_TOKENS)
def test_sqlite_has_its_own_rules(text: str, expected: list[tuple[str, str]]) -> None:
    """Quotes, comments and parameters of SQLite are cut by SQLite's rules."""
    assert expected == kinds_and_pieces(text, Dialect.SQLITE)


@given(TEXTS, st.sampled_from(Dialect))
def test_tokens_cover_the_text_exactly_and_in_order(text: str, dialect: Dialect) -> None:
    """Each token begins where the one before it ended, none is empty, and the last ends with the text."""
    position = 0
    for kind, start, end in t.tokens(text, dialect):
        assert position == start < end
        assert kind.isidentifier()
        position = end
    assert len(text) == position


@given(st.binary(), st.sampled_from(Dialect))
def test_bytes_are_cut_like_their_latin_1_text(data: bytes, dialect: Dialect) -> None:
    """Bytes give the tokens, at the same positions, of the text with one character a byte."""
    assert list(t.tokens(data.decode("latin-1"), dialect)) == list(t.tokens(data, dialect))
    assert list(t.tokens(data, dialect)) == list(t.tokens(bytearray(data), dialect))


@given(TEXTS, st.sampled_from(Dialect))
def test_no_text_makes_a_helper_fail(text: str, dialect: Dialect) -> None:
    """Whatever the text, every helper answers, and with places inside the text."""
    for start, end in t.split_statements(text, dialect):
        assert 0 <= start < end <= len(text)
    for parameter in t.parameters(text, dialect):
        assert 0 <= parameter.start < parameter.end <= len(text)
    assert all(text[position] == "%" for position in t.percent_signs(text, dialect))
    assert t.first_keyword(text, dialect) == t.first_keyword(text, dialect).upper()


@given(st.text(alphabet="ab'\\\"`%:?-#/*;\n"))
def test_a_quoted_value_stays_one_token_whatever_it_holds(value: str) -> None:
    """A value with its quotes and backslashes escaped is a single string, so it can never become code."""
    quoted = "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    assert [(t.STRING, 0, len(quoted))] == list(t.tokens(quoted))


def test_code_leaves_out_spaces_and_comments_only() -> None:
    """Code is what the server reads, hints included."""
    text = "SELECT /*+ BKA(t) */ 1 -- one\n # two\n /* three */ ;"
    expected = ["SELECT", "/*+ BKA(t) */", "1", ";"]
    assert expected == [text[start:end] for _, start, end in t.code_tokens(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select 1", "SELECT"),
        (" /* c */ -- d\n ((select 1))", "SELECT"),
        ("", ""),
        ("-- only a comment", ""),
        ("'text' select", ""),
        ("/*!50000 select */", ""),
    ],
)
def test_the_first_keyword_is_found_past_comments_and_parentheses(text: str, expected: str) -> None:
    """The first word tells a statement's kind, in capitals."""
    assert expected == t.first_keyword(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (";;", []),
        ("select 1", ["select 1"]),
        ("select ';' ; -- ;\n select `;` ;", ["select ';'", "select `;`"]),
        ("a;b;c", ["a", "b", "c"]),
    ],
)
def test_statements_are_parted_at_semicolons_of_code(text: str, expected: list[str]) -> None:
    """A semicolon in a string, a name or a comment parts nothing."""
    assert expected == [text[start:end] for start, end in t.split_statements(text)]


PARAMETERS = [
    ("a = %s", [(t.FORMAT, "", "none")]),
    ("a = %(b)s and c = :d", [(t.PYFORMAT, "b", "none"), (t.NAMED, "d", "none")]),
    ("a in %s and b in (%s) and c not in (:x)", [(t.FORMAT, "", "bare"), (t.FORMAT, "", "parenthesised"),
                                                 (t.NAMED, "x", "parenthesised")]),
    ("a IN ( /* all */ %(ids)s )", [(t.PYFORMAT, "ids", "parenthesised")]),
    ("a in (%s, %s)", [(t.FORMAT, "", "none"), (t.FORMAT, "", "none")]),
    ("f(%s)", [(t.FORMAT, "", "none")]),
    ("'%s' \"%s\" `%s` -- %s :x ?\n /* %(a)s */ # ?", []),
    ("like '50%' and t = '12:30' and c = d::text", []),
    ("10 % size and a %% b", []),
    ("?, ?", [(t.QMARK, "", "none"), (t.QMARK, "", "none")]),
    ("/*!50000 %s */ /*+ %s */", [(t.FORMAT, "", "none")]),
    ("@a := :b", [(t.NAMED, "b", "none")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), PARAMETERS)
def test_parameters_are_found_in_code_only(text: str, expected: list[tuple[str, str, str]]) -> None:
    """Places for values are told with their name and with how they stand after IN."""
    assert expected == [(place.kind, place.name, place.in_list) for place in t.parameters(text)]


def test_sqlite_parameters_have_their_own_forms() -> None:
    """SQLite's numbered and prefixed parameters are told without their prefix."""
    places = t.parameters("select ?1, ?, :a, @b, $c", Dialect.SQLITE)
    assert ["1", "", "a", "b", "c"] == [place.name for place in places]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select 1", []),
        ("a like '5%' and b = %s", [9]),
        ("a % b and c = %(d)s", [2]),
        ("a %% b", []),
        ("'%%' `%` -- %", [1, 2, 6, 12]),
    ],
)
def test_percent_signs_that_are_no_parameters_are_told(text: str, expected: list[int]) -> None:
    """What a formatting driver would trip over is found wherever it stands."""
    assert expected == t.percent_signs(text)


BLOW_UPS = [
    *"'\"`#@:1[a( $é\x00.*/",
    "\\'",
    "''",
    "'\\",
    "/*",
    "/*!",
    "/*+",
    "*/",
    "/* *",
    "-- ",
    "--",
    "@'",
    '@"',
    "@`",
    "%(",
    "%(a",
]
BLOW_UPS += [":a", "1.", "1.1", "1e", "0x", "x'", "n'", "1e5a", "a."]


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("piece", BLOW_UPS)
def test_work_grows_with_the_length_only(
    piece: str, dialect: Dialect, growth_of_effort: Callable[[Callable[[str], object], str], float]
) -> None:
    """A text eight times as long takes about eight times as long, not sixty-four, whatever it repeats."""
    assert growth_of_effort(lambda text: sum(1 for _ in t.tokens(text, dialect)), piece) < 24


def test_one_token_a_match() -> None:
    """The tokens of a large insert are counted exactly: five for each value and its place in the row."""
    rows = 1000
    text = "INSERT INTO t VALUES " + ",".join(["(1, 'a')"] * rows)
    assert 8 + 7 * rows - 1 == sum(1 for _ in t.tokens(text))
