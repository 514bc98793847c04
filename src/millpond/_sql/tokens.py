"""Cut a SQL statement into tokens, exactly as the server would cut it.

Why: two parts of millpond look into statements. Cleanliness has to know what is code and what is only text in a
string or a comment; the helper layer has to find the places of parameters without being misled by a percent sign in a
string, a colon in a comment or a question mark in a name.

Rules:
- The tokens of a text follow each other without gap or overlap, from its first character to its last; what is
  understood by nobody is a token of kind ``OTHER``, and what is not closed is one of kind ``UNTERMINATED`` that reaches
  to the end. No text makes it fail, and the time is linear in the text's length.
- One compiled alternation does the work; the alternatives are written so that none of them ever gives back what it
  took, which is why strings and comments run to their end *or* to the text's end and only then say which it was.
- An executable comment (``/*! ... */``, ``/*!80000 ... */``, ``/*M! ... */``) is not one token: its opening and its end
  are tokens and its content is code, since a server may run it.
- Bytes are read as Latin-1, one character a byte, so that positions hold; that is exact for every character set whose
  longer characters are made of bytes above 0x7F only (UTF-8 is one, GBK and Shift-JIS are not).

Cost, measured on CPython 3.11: 0.25 to 0.4 us a token, 8 to 20 MB/s on statements, much more on long strings.

It must not know what a statement means, and it must not change a text.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = [
    "ASSIGN",
    "CLOSE",
    "COMMA",
    "COMMENT",
    "DOT",
    "DOUBLE_QUOTED",
    "EXECUTABLE",
    "EXECUTABLE_END",
    "FORMAT",
    "HINT",
    "NAMED",
    "NUMBER",
    "OPEN",
    "OPERATOR",
    "OTHER",
    "PERCENT_PAIR",
    "PYFORMAT",
    "QMARK",
    "QUOTED",
    "SEMICOLON",
    "SPACE",
    "STRING",
    "SYSTEM_VARIABLE",
    "UNTERMINATED",
    "USER_VARIABLE",
    "WORD",
    "Dialect",
    "Parameter",
    "Text",
    "Token",
    "code_tokens",
    "first_keyword",
    "parameters",
    "percent_signs",
    "split_statements",
    "tokens",
]

Text: TypeAlias = str | bytes | bytearray
Token: TypeAlias = tuple[str, int, int]

SPACE: Final = "space"
COMMENT: Final = "comment"
HINT: Final = "hint"  # /*+ ... */: optimizer hints to MySQL, a comment to MariaDB
EXECUTABLE: Final = "executable"  # the opening of an executable comment, with its version number
EXECUTABLE_END: Final = "executable_end"
WORD: Final = "word"  # keyword, unquoted identifier or the introducer of a string; with $ and every non-ASCII character
QUOTED: Final = "quoted"  # `identifier`; in SQLite also "identifier" and [identifier]
STRING: Final = "string"  # '...' and N'...'
DOUBLE_QUOTED: Final = "double_quoted"  # "...": a string, or an identifier under ANSI_QUOTES
NUMBER: Final = "number"  # also 0x1F, 0b01, x'1F' and b'01'
USER_VARIABLE: Final = "user_variable"  # @name, @'name', @"name", @`name`; also the @'host' of an account
SYSTEM_VARIABLE: Final = "system_variable"  # @@name, @@session.name
OPEN: Final = "open"
CLOSE: Final = "close"
COMMA: Final = "comma"
DOT: Final = "dot"
SEMICOLON: Final = "semicolon"
OPERATOR: Final = "operator"
ASSIGN: Final = "assign"  # :=
FORMAT: Final = "format"  # %s
PYFORMAT: Final = "pyformat"  # %(name)s
NAMED: Final = "named"  # :name; in SQLite also @name and $name
QMARK: Final = "qmark"  # ?; in SQLite also ?1
PERCENT_PAIR: Final = "percent_pair"  # %%: how drivers write a percent sign beside parameters
UNTERMINATED: Final = "unterminated"  # from an opening quote or comment to the end of the text
OTHER: Final = "other"


class Dialect(enum.Enum):
    """Name the rules by which a text is cut.

    The two for MySQL and MariaDB differ in the backslash: it escapes in strings unless sql_mode has
    NO_BACKSLASH_ESCAPES, which the server says in the status word of every OK packet (bit 0x200).
    """

    MYSQL = "mysql"
    MYSQL_NO_BACKSLASH_ESCAPES = "mysql, no backslash escapes"
    SQLITE = "sqlite"


class Parameter(NamedTuple):
    """Tell where a statement takes a value.

    Attributes:
        kind: FORMAT, PYFORMAT, NAMED or QMARK.
        start: position of its first character.
        end: position after its last character.
        name: the name, "" where there is none; for SQLite's ``?7`` it is "7".
        in_list: "bare" right after IN, "parenthesised" where it stands alone in the parentheses after IN, else "none".
    """

    kind: str
    start: int
    end: int
    name: str
    in_list: Literal["none", "bare", "parenthesised"]


def tokens(text: Text, dialect: Dialect = Dialect.MYSQL) -> Iterator[Token]:
    """Yield every token of a text as (kind, start, end), in order and without gaps.

    Args:
        text: one statement or several, complete or not.
        dialect: whose rules hold.
    """
    characters = _as_characters(text)
    if _EXECUTABLE_OPENING.search(characters) is None:
        pattern, kinds = _scanner(dialect)
        start = 0
        for match in pattern.finditer(characters):
            end = match.end()
            yield kinds[match.lastindex], start, end
            start = end  # the alternatives take any character, so there is no gap
        return
    yield from _tokens_with_executable_comments(characters, dialect)


def code_tokens(text: Text, dialect: Dialect = Dialect.MYSQL) -> Iterator[Token]:
    """Yield the tokens that are neither space nor comment; a hint counts as code here.

    Args: as for :func:`tokens`.
    """
    for token in tokens(text, dialect):
        if token[0] not in (SPACE, COMMENT):
            yield token


def first_keyword(text: Text, dialect: Dialect = Dialect.MYSQL) -> str:
    """Return the first word of a statement in capitals, past opening parentheses; "" where it begins with no word.

    Args: as for :func:`tokens`.
    """
    characters = _as_characters(text)
    for kind, start, end in code_tokens(characters, dialect):
        if kind == WORD:
            return characters[start:end].upper()
        if kind != OPEN:
            break
    return ""


def split_statements(text: Text, dialect: Dialect = Dialect.MYSQL) -> list[tuple[int, int]]:
    """Return (start, end) of each statement of a text, from its first code token to its last, semicolons left out.

    Bodies of stored programs are cut too: a statement that holds statements is not understood here.

    Args: as for :func:`tokens`.
    """
    statements: list[tuple[int, int]] = []
    start, end = -1, -1
    for kind, token_start, token_end in code_tokens(text, dialect):
        if kind != SEMICOLON:
            start, end = (token_start if start < 0 else start), token_end
        elif start >= 0:
            statements.append((start, end))
            start = -1
    if start >= 0:
        statements.append((start, end))
    return statements


def parameters(text: Text, dialect: Dialect = Dialect.MYSQL) -> list[Parameter]:
    """Return the places where a statement takes values, of every style, in order.

    A text rarely means all styles at once: the caller picks the kinds that it serves. ``a %s`` and ``a % s`` differ, as
    they do for drivers. Inside an executable comment places count, because its content is code.

    Args: as for :func:`tokens`.
    """
    characters = _as_characters(text)
    code = [token for token in code_tokens(characters, dialect) if token[0] != HINT]
    found: list[Parameter] = []
    for index, (kind, start, end) in enumerate(code):
        if kind in _PARAMETER_KINDS:
            name = characters[start:end].lstrip("%(:@$?")
            name = name.removesuffix(")s") if kind == PYFORMAT else "" if kind == FORMAT else name
            found.append(Parameter(kind, start, end, name, _list_place(characters, code, index)))
    return found


def percent_signs(text: Text, dialect: Dialect = Dialect.MYSQL) -> list[int]:
    """Return the positions of the percent signs that belong to no parameter: in code, strings, names and comments.

    They are what has to be doubled before a driver that formats with ``%`` gets the text. A pair ``%%`` in code,
    already doubled, is left out; in a string a pair cannot be told from two signs, and both positions are returned.

    Args: as for :func:`tokens`.
    """
    characters = _as_characters(text)
    positions: list[int] = []
    if "%" not in characters:
        return positions
    for kind, start, end in tokens(characters, dialect):
        if kind in (FORMAT, PYFORMAT, PERCENT_PAIR):
            continue
        position = characters.find("%", start, end)
        while position >= 0:
            positions.append(position)
            position = characters.find("%", position + 1, end)
    return positions


# ---- inside

_PARAMETER_KINDS: Final = frozenset({FORMAT, PYFORMAT, NAMED, QMARK})

# The alternatives below are regular expressions in which <kind> stands for an empty group: the group that took part
# last names the kind. Characters of a word: letters, digits, underscore, dollar and all that is not ASCII.
_W: Final = r"0-9A-Z_a-z$\x80-\U0010ffff"
_SPACES: Final = rf"[ \t-\r]+<{SPACE}>"
_NAMES: Final = rf"(?![BNXbnx]')[A-Z_a-z$\x80-\U0010ffff][{_W}]*<{WORD}>"
_REST_OF_WORDS: Final = rf"[{_W}]+<{WORD}>"  # names that begin with a digit
_NUMBERS: Final = (
    rf"[xX]'[0-9A-Fa-f]*'<{NUMBER}>",
    rf"(?:0[xX][0-9A-Fa-f]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)(?![{_W}])<{NUMBER}>",
)
_PUNCTUATION: Final = (rf",<{COMMA}>", rf"\.(?![0-9])<{DOT}>", rf"\(<{OPEN}>", rf"\)<{CLOSE}>", rf";<{SEMICOLON}>")
_PERCENT_PLACES: Final = (
    rf"%s(?![{_W}])<{FORMAT}>",
    rf"%\([^()%\x00-\x1f]*\)s(?![{_W}])<{PYFORMAT}>",
    rf"%%<{PERCENT_PAIR}>",
)
_BLOCK_COMMENT: Final = rf"/\*[^*]*(?:\*(?!/)[^*]*)*(?:\*/<{COMMENT}>|\Z<{UNTERMINATED}>)"
_OPERATORS: Final = rf"(?:->>?|<=>|<<|>>|<>|<=|>=|[!=]=|\|\||&&|[-+*/%=<>!~^&|])<{OPERATOR}>"
_ANYTHING: Final = (rf"\.<{DOT}>", rf"[\s\S]<{OTHER}>")


def _quoted(quote: str, kind: str, *, backslash: bool) -> str:
    """Return the alternative for what stands between two quotes: closed, or reaching to the end of the text."""
    plain, escape = (rf"[^{quote}\\]*", rf"\\[\s\S]|{quote}{quote}") if backslash else (f"[^{quote}]*", quote + quote)
    end = r"\\?\Z" if backslash else r"\Z"
    return rf"{quote}{plain}(?:(?:{escape}){plain})*(?:{quote}<{kind}>|{end}<{UNTERMINATED}>)"


def _mysql_alternatives(*, backslash: bool) -> tuple[str, ...]:
    string = _quoted("'", STRING, backslash=backslash)
    return (
        _NAMES,
        _SPACES,
        *_PUNCTUATION,
        _quoted("`", QUOTED, backslash=False),
        string,
        *_NUMBERS,
        _quoted('"', DOUBLE_QUOTED, backslash=backslash),
        rf"(?:0[bB][01]+(?![{_W}])|[bB]'[01]*')<{NUMBER}>",
        f"[nN]{string}",
        _REST_OF_WORDS,
        *_PERCENT_PLACES,
        rf"#[^\n\x00]*<{COMMENT}>",
        rf"--(?=[\x00-\x20\x7f]|\Z)[^\n\x00]*<{COMMENT}>",
        rf"/\*M?!(?:[0-9]{{5,6}})?<{EXECUTABLE}>",
        rf"/\*\+[^*]*(?:\*(?!/)[^*]*)*(?:\*/<{HINT}>|\Z<{UNTERMINATED}>)",
        _BLOCK_COMMENT,
        rf"@@[{_W}.]*<{SYSTEM_VARIABLE}>",
        "@" + _quoted("'", USER_VARIABLE, backslash=backslash),
        "@" + _quoted('"', USER_VARIABLE, backslash=backslash),
        "@" + _quoted("`", USER_VARIABLE, backslash=False),
        rf"@[{_W}.]*<{USER_VARIABLE}>",
        rf":=<{ASSIGN}>",
        rf"(?<![{_W}:]):[A-Z_a-z\x80-\U0010ffff][{_W}]*<{NAMED}>",
        rf"\?<{QMARK}>",
        _OPERATORS,
        *_ANYTHING,
    )


def _sqlite_alternatives() -> tuple[str, ...]:
    return (
        rf"(?<![{_W}:])[:@$][{_W}]+<{NAMED}>",
        _NAMES,
        _SPACES,
        *_PUNCTUATION,
        _quoted("'", STRING, backslash=False),
        *_NUMBERS,
        _REST_OF_WORDS,
        _quoted("`", QUOTED, backslash=False),
        _quoted('"', QUOTED, backslash=False),
        rf"\[[^\]]*(?:\]<{QUOTED}>|\Z<{UNTERMINATED}>)",
        *_PERCENT_PLACES,
        rf"--[^\n]*<{COMMENT}>",
        rf"/\*[^*]*(?:\*(?!/)[^*]*)*(?:\*/|\Z)<{COMMENT}>",  # SQLite closes a comment at the end of the text
        rf"\?[0-9]*<{QMARK}>",
        _OPERATORS,
        *_ANYTHING,
    )


class _Scanner(NamedTuple):
    pattern: re.Pattern[str]
    kinds: Mapping[int | None, str]


@functools.cache
def _scanner(dialect: Dialect, is_inside: bool = False) -> _Scanner:
    """Return what cuts a text; *is_inside* an executable comment ``*/`` is its end.

    It is made when it is needed: these six are more work than all else that an import of millpond does, and a program
    needs one or two.
    """
    alternatives = _ALTERNATIVES[dialect]()
    expression = "|".join((rf"\*/<{EXECUTABLE_END}>", *alternatives) if is_inside else alternatives)
    mark = re.compile(r"<([a-z_]{3,})>")  # no lookbehind and no operator above looks like this
    kinds: dict[int | None, str] = {}
    kinds.update(enumerate(mark.findall(expression), start=1))
    return _Scanner(re.compile(mark.sub("()", expression)), kinds)


_ALTERNATIVES: Final[Mapping[Dialect, Callable[[], tuple[str, ...]]]] = {
    Dialect.MYSQL: functools.partial(_mysql_alternatives, backslash=True),
    Dialect.MYSQL_NO_BACKSLASH_ESCAPES: functools.partial(_mysql_alternatives, backslash=False),
    Dialect.SQLITE: _sqlite_alternatives,
}
_EXECUTABLE_OPENING: Final = re.compile(r"/\*M?!")


def _tokens_with_executable_comments(characters: str, dialect: Dialect) -> Iterator[Token]:
    position, is_inside = 0, False
    while position < len(characters):
        pattern, kinds = _scanner(dialect, is_inside)
        match = pattern.match(characters, position)
        assert match is not None, "bug: the last alternative takes any character"
        kind, end = kinds[match.lastindex], match.end()
        yield kind, position, end
        is_inside = kind == EXECUTABLE or (is_inside and kind != EXECUTABLE_END)
        position = end


def _as_characters(text: Text) -> str:
    return text if isinstance(text, str) else text.decode("latin-1")


def _list_place(characters: str, code: list[Token], index: int) -> Literal["none", "bare", "parenthesised"]:
    if index and _is_in(characters, code[index - 1]):
        return "bare"
    alone = 2 <= index < len(code) - 1 and code[index - 1][0] == OPEN and code[index + 1][0] == CLOSE
    return "parenthesised" if alone and _is_in(characters, code[index - 2]) else "none"


def _is_in(characters: str, token: Token) -> bool:
    kind, start, end = token
    return kind == WORD and characters[start:end].upper() == "IN"
