"""Prove that a statement leaves its session as it found it.

Why: a pool that resets every session at return pays for it, and a pool that trusts the server's flags leaks, because
neither MySQL nor MariaDB flags a lock taken by ``SELECT GET_LOCK()``, a variable set by ``SELECT ... INTO @a`` or a
savepoint made outside a transaction. So clean is proved here, from the text alone, and what is not proved is dirty: a
reset is cheap, a leak is not.

The promise: when :func:`is_clean_statement` says True, the session was as good as new before, the statement was
answered without an ERR packet, and no packet of the answer showed an open transaction or changed session state, then
the session is as good as new after it. What merely tells of the last statement (LAST_INSERT_ID(), FOUND_ROWS(),
ROW_COUNT(), SHOW WARNINGS, status counters) is no part of this; nor is what a trigger, a view or a stored function
behind it does. docs/adr/003-clean-is-proved.md has the residue in full and the measurements.

Rules:
- Statements of known kinds only, names on a positive list only before a parenthesis, no variable, no assignment, no
  INTO but that of INSERT and REPLACE, no executable comment, one statement only.
- What may hold dirt and is not understood is dirty, and no text makes the functions fail.
- Three looks, each only where the one before proved nothing: at the whole text as if everything in it, strings too,
  were code (1 us for what most programs send, and right under every sql_mode); at the text without its strings; at
  the tokens.

It must not ask a server, and it must not say "clean" because dirt is unlikely.
"""

from __future__ import annotations

import functools
import re
from typing import Final, Literal, NamedTuple, TypeAlias

from millpond._sql import tokens as t

__all__ = ["LENGTH_MAX", "Brand", "Text", "is_clean_statement", "is_transaction_control"]

Brand: TypeAlias = Literal["mysql", "mariadb"]
Text: TypeAlias = str | bytes | bytearray

# Each look stops where it begins to cost more than the reset that it saves; the measurements are in the ADR.
LENGTH_MAX: Final = 8 * 1024  # longer statements are dirty unseen
_STRINGS_LOOK_LENGTH_MAX: Final = 4 * 1024
_TOKENS_LOOK_LENGTH_MAX: Final = 2 * 1024
_REMEMBERED_MAX: Final = 512  # verdicts of the third look, each with its text: one MiB at most


def is_clean_statement(
    sql: Text, *, brand: Brand | None = None, backslash_escapes: bool = True, utf8: bool = True
) -> bool:
    """Tell whether a statement is proved to leave nothing behind in its session.

    Args:
        sql: the text exactly as it is sent, values included where the driver writes them into it.
        brand: which server it is. None trusts only the functions that are built into both: a builtin of the one may
            be a user's stored function on the other.
        backslash_escapes: False when the server's last status word had bit 0x200 (sql_mode NO_BACKSLASH_ESCAPES).
        utf8: whether the connection's character set is utf8mb4, utf8mb3 or utf8. With any other a text that is not
            plain ASCII is not understood, because its bytes may be other characters to the server than they are here.

    Returns:
        True when it is proved clean, else False. A text that the server refuses may get either: after an ERR packet the
        session is dirty whatever was sent.
    """
    if len(sql) > LENGTH_MAX:
        return False
    text = _in_capitals(sql, utf8=utf8)
    if text is None:
        return False
    if "_TIME" in text:
        text = _without_time_limit(text, brand)
    names = _HARMLESS[brand]
    if _looks_plain(text, text, names):
        return True
    if len(text) <= _STRINGS_LOOK_LENGTH_MAX:
        code = _without_strings(text, backslash_escapes=backslash_escapes)
        if code is not None and _looks_plain(code, text, names):
            return True
    return len(text) <= _TOKENS_LOOK_LENGTH_MAX and _look_at_tokens(text, brand, backslash_escapes)


def is_transaction_control(sql: Text) -> bool:
    """Tell whether a statement is exactly a BEGIN, START TRANSACTION, COMMIT or ROLLBACK that begins or ends one.

    Such a statement can change nothing but the transaction. MySQL marks it with the state-changed bit all the same
    (seen on 9.7: at BEGIN, and at the COMMIT or ROLLBACK that ends a transaction, even with
    session_track_state_change off; MariaDB 10.11 does not), so for it, and only for it, that bit is no sign of dirt.

    Args:
        sql: the text as it is sent. AND CHAIN, RELEASE and savepoints are not meant.
    """
    if len(sql) > _TRANSACTION_CONTROL_LENGTH_MAX:
        return False
    text = _in_capitals(sql, utf8=False)
    return text is not None and " ".join(text.rstrip(_SPACE + ";").split()) in _TRANSACTION_CONTROL


# ---- what is harmless
#
# A name stands here only if the server itself, not a user's function, is what it means right before a parenthesis.
# That was measured, not read: a stored function with side effects was made under each name, and called with nought to
# three arguments, with and without a space before the parenthesis (tests/live/test_cleanliness.py does it again). By
# that, many keywords are callable on one of the servers (SQL_NO_CACHE, QUICK, OF, COLUMNS and AGAINST on MariaDB),
# and COUNT and its like are a user's function when a space follows.

_SPACE: Final = " \t\n\v\f\r"

_KEYWORDS: Final = """
    ALL AND ANY AS BETWEEN BY CASE DELAYED DISTINCT DISTINCTROW DIV ELSE EXCEPT EXISTS EXPLAIN FROM GROUP HAVING
    HIGH_PRIORITY IGNORE IN INDEX INTERSECT INTERVAL JOIN KEY LIKE LIMIT LOW_PRIORITY MATCH MOD NOT OFFSET ON OR OVER
    PARTITION REGEXP RETURNING RLIKE ROW SELECT SET SOME SQL_BIG_RESULT SQL_CALC_FOUND_ROWS SQL_SMALL_RESULT
    STRAIGHT_JOIN THEN UNION UPDATE USING VALUE VALUES WHEN WHERE XOR
"""
_TYPES: Final = """
    BIGINT BINARY BIT CHAR CHARACTER DATE DATETIME DEC DECIMAL DOUBLE FLOAT INT INTEGER JSON MEDIUMINT NCHAR NUMERIC
    REAL SIGNED SMALLINT TIME TIMESTAMP TINYINT UNSIGNED VARBINARY VARCHAR YEAR
"""
# MD5, SHA and SHA1 left the server in MySQL 9.6 for a component; a user's function of that name there is part of the
# residue.
_FUNCTIONS: Final = """
    ABS ACOS ADDTIME AES_DECRYPT AES_ENCRYPT ASCII ASIN ATAN ATAN2 AVG BENCHMARK BIN BIT_COUNT BIT_LENGTH CEIL CEILING
    CHARACTER_LENGTH CHARSET CHAR_LENGTH COALESCE COERCIBILITY COLLATION COMPRESS CONCAT CONCAT_WS CONNECTION_ID CONV
    CONVERT CONVERT_TZ COS COT CRC32 CURRENT_DATE CURRENT_ROLE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER DATABASE
    DATEDIFF DATE_FORMAT DAY DAYNAME DAYOFMONTH DAYOFWEEK DAYOFYEAR DEFAULT DEGREES ELT EXP EXPORT_SET EXTRACTVALUE
    FIELD FIND_IN_SET FLOOR FORMAT FOUND_ROWS FROM_BASE64 FROM_DAYS FROM_UNIXTIME GET_FORMAT GREATEST HEX HOUR IF
    IFNULL INET6_ATON INET6_NTOA INET_ATON INET_NTOA INSERT INSTR ISNULL IS_FREE_LOCK IS_IPV4 IS_IPV4_COMPAT
    IS_IPV4_MAPPED IS_IPV6 IS_USED_LOCK JSON_ARRAY JSON_ARRAY_APPEND JSON_ARRAY_INSERT JSON_CONTAINS
    JSON_CONTAINS_PATH JSON_DEPTH JSON_EXTRACT JSON_INSERT JSON_KEYS JSON_LENGTH JSON_MERGE JSON_MERGE_PATCH
    JSON_MERGE_PRESERVE JSON_OBJECT JSON_OVERLAPS JSON_PRETTY JSON_QUOTE JSON_REMOVE JSON_REPLACE JSON_SEARCH JSON_SET
    JSON_TYPE JSON_UNQUOTE JSON_VALID JSON_VALUE LAST_DAY LAST_VALUE LCASE LEAST LEFT LENGTH LN LOAD_FILE LOCALTIME
    LOCALTIMESTAMP LOCATE LOG LOG10 LOG2 LOWER LPAD LTRIM MAKEDATE MAKETIME MAKE_SET MBRCONTAINS MBRDISJOINT MBREQUALS
    MBRINTERSECTS MBROVERLAPS MBRTOUCHES MBRWITHIN MD5 MICROSECOND MINUTE MONTH MONTHNAME NAME_CONST NULLIF OCT
    OCTET_LENGTH ORD PASSWORD PERIOD_ADD PERIOD_DIFF PI POW POWER QUARTER QUOTE RADIANS RAND RANDOM_BYTES REGEXP_INSTR
    REGEXP_REPLACE REGEXP_SUBSTR REPEAT REPLACE REVERSE RIGHT ROUND ROW_COUNT ROW_NUMBER RPAD RTRIM SCHEMA SECOND
    SEC_TO_TIME SHA SHA1 SHA2 SIGN SIN SLEEP SOUNDEX SPACE SQRT STRCMP STR_TO_DATE ST_AREA ST_ASBINARY ST_ASGEOJSON
    ST_ASTEXT ST_ASWKB ST_ASWKT ST_BUFFER ST_CENTROID ST_CONTAINS ST_CONVEXHULL ST_CROSSES ST_DIFFERENCE ST_DIMENSION
    ST_DISJOINT ST_DISTANCE ST_DISTANCE_SPHERE ST_ENDPOINT ST_ENVELOPE ST_EQUALS ST_EXTERIORRING ST_GEOMCOLLFROMTEXT
    ST_GEOMCOLLFROMWKB ST_GEOMETRYCOLLECTIONFROMTEXT ST_GEOMETRYFROMTEXT ST_GEOMETRYFROMWKB ST_GEOMETRYN
    ST_GEOMETRYTYPE ST_GEOMFROMGEOJSON ST_GEOMFROMTEXT ST_GEOMFROMWKB ST_INTERIORRINGN ST_INTERSECTION ST_INTERSECTS
    ST_ISCLOSED ST_ISEMPTY ST_ISSIMPLE ST_LENGTH ST_LINEFROMTEXT ST_LINEFROMWKB ST_LINESTRINGFROMTEXT ST_MLINEFROMTEXT
    ST_MPOINTFROMTEXT ST_MPOLYFROMTEXT ST_MULTIPOINTFROMTEXT ST_NUMGEOMETRIES ST_NUMINTERIORRINGS ST_NUMPOINTS
    ST_OVERLAPS ST_POINTFROMTEXT ST_POINTFROMWKB ST_POINTN ST_POLYFROMTEXT ST_POLYFROMWKB ST_POLYGONFROMTEXT ST_SRID
    ST_STARTPOINT ST_SYMDIFFERENCE ST_TOUCHES ST_UNION ST_WITHIN ST_X ST_Y SUBSTRING_INDEX SUBTIME TAN TIMEDIFF
    TIMESTAMPADD TIMESTAMPDIFF TIME_FORMAT TIME_TO_SEC TO_BASE64 TO_DAYS TO_SECONDS TRUNCATE UCASE UNCOMPRESS
    UNCOMPRESSED_LENGTH UNHEX UNIX_TIMESTAMP UPDATEXML UPPER USER UTC_DATE UTC_TIME UTC_TIMESTAMP UUID UUID_SHORT
    VERSION WEEK WEEKDAY WEEKOFYEAR WEIGHT_STRING YEARWEEK
"""
_FUNCTIONS_WITHOUT_SPACE: Final = """
    ADDDATE BIT_AND BIT_OR BIT_XOR CAST COUNT CUME_DIST CURDATE CURTIME DATE_ADD DATE_SUB DENSE_RANK EXTRACT
    FIRST_VALUE GROUP_CONCAT JSON_ARRAYAGG JSON_OBJECTAGG LAG LEAD MAX MID MIN NOW NTH_VALUE NTILE PERCENT_RANK
    POSITION RANK SESSION_USER STD STDDEV STDDEV_POP STDDEV_SAMP SUBDATE SUBSTR SUBSTRING SUM SYSDATE SYSTEM_USER TRIM
    VARIANCE VAR_POP VAR_SAMP
"""
_MYSQL_ONLY: Final = """
    AGAINST ANY_VALUE BIN_TO_UUID COLUMNS CUBE CUME_DIST DENSE_RANK ESCAPE FIRST_VALUE FORMAT_BYTES FORMAT_PICO_TIME
    FROM_VECTOR GEOMCOLLECTION GEOMETRYCOLLECTION GROUPING GTID_SUBSET GTID_SUBTRACT ICU_VERSION IS_UUID
    JSON_SCHEMA_VALID JSON_SCHEMA_VALIDATION_REPORT JSON_STORAGE_FREE JSON_STORAGE_SIZE JSON_TABLE LAG LATERAL LEAD
    LINESTRING MBRCOVEREDBY MBRCOVERS MULTILINESTRING MULTIPOINT MULTIPOLYGON NTH_VALUE NTILE OF PERCENT_RANK POINT
    POLYGON PS_CURRENT_THREAD_ID PS_THREAD_ID QUALIFY QUICK RANK REGEXP_LIKE ROLES_GRAPHML ROLLUP SQL_BUFFER_RESULT
    SQL_NO_CACHE STATEMENT_DIGEST STATEMENT_DIGEST_TEXT STRING_TO_VECTOR ST_BUFFER_STRATEGY ST_FRECHETDISTANCE
    ST_GEOHASH ST_HAUSDORFFDISTANCE ST_ISVALID ST_LATFROMGEOHASH ST_LATITUDE ST_LINEINTERPOLATEPOINT
    ST_LONGFROMGEOHASH ST_LONGITUDE ST_MAKEENVELOPE ST_NUMINTERIORRING ST_POINTATDISTANCE ST_POINTFROMGEOHASH
    ST_SIMPLIFY ST_SWAPXY ST_TRANSFORM ST_VALIDATE TO_VECTOR UUID_TO_BIN
    VALIDATE_PASSWORD_STRENGTH VECTOR_DIM VECTOR_TO_STRING
"""
_MYSQL_ONLY_WITHOUT_SPACE: Final = "ST_COLLECT"
_MARIADB_ONLY: Final = """
    ADD_MONTHS BINLOG_GTID_POS COLUMN_ADD COLUMN_CHECK COLUMN_CREATE COLUMN_DELETE COLUMN_EXISTS COLUMN_GET
    COLUMN_JSON COLUMN_LIST CRC32C DECODE ENCODE ENCRYPT JSON_COMPACT JSON_DETAILED JSON_EQUALS JSON_EXISTS JSON_LOOSE
    JSON_NORMALIZE JSON_QUERY NATURAL_SORT_KEY NVL NVL2 SFORMAT ST_BOUNDARY ST_ISRING ST_POINTONSURFACE ST_RELATE
    SYSDATE SYS_GUID TO_CHAR
"""
_MARIADB_ONLY_WITHOUT_SPACE: Final = "MEDIAN PERCENTILE_CONT PERCENTILE_DISC"

# SET_VAR and RESOURCE_GROUP change the session while the statement runs; they and every unknown hint are dirty.
_HINT_LIST: Final = """
    BKA BNL DERIVED_CONDITION_PUSHDOWN GROUP_INDEX HASH_JOIN INDEX INDEX_MERGE JOIN_FIXED_ORDER JOIN_INDEX JOIN_ORDER
    JOIN_PREFIX JOIN_SUFFIX MAX_EXECUTION_TIME MERGE MRR NO_BKA NO_BNL NO_DERIVED_CONDITION_PUSHDOWN NO_GROUP_INDEX
    NO_HASH_JOIN NO_ICP NO_INDEX NO_INDEX_MERGE NO_JOIN_INDEX NO_MERGE NO_MRR NO_ORDER_INDEX NO_RANGE_OPTIMIZATION
    NO_SEMIJOIN NO_SKIP_SCAN ORDER_INDEX QB_NAME SEMIJOIN SKIP_SCAN SUBQUERY
    """
_HINTS: Final = frozenset(_HINT_LIST.split())

_TRANSACTION_CONTROL: Final = frozenset(
    (
        "BEGIN",
        "BEGIN WORK",
        "COMMIT",
        "COMMIT WORK",
        "ROLLBACK",
        "ROLLBACK WORK",
        "START TRANSACTION",
        "START TRANSACTION READ ONLY",
        "START TRANSACTION READ WRITE",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ WRITE",
        "START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT",
        "START TRANSACTION READ WRITE, WITH CONSISTENT SNAPSHOT",
    )
)
_TRANSACTION_CONTROL_LENGTH_MAX: Final = 128
_QUERIES: Final = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})  # these may begin inside parentheses
_INSERTS: Final = frozenset({"INSERT", "REPLACE"})
_OTHERS: Final = frozenset({"UPDATE", "DELETE", "SHOW", "EXPLAIN", "DESCRIBE", "DESC"})
_PLAIN_HEADS: Final = frozenset({"SELECT", "WITH", "UPDATE", "DELETE"}) | _INSERTS
_INSERT_OPTIONS: Final = frozenset({"LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE"})


class _Harmless(NamedTuple):
    """Hold what may stand before a parenthesis on one brand of server.

    Attributes:
        anywhere: names, whether spaces follow or not.
        without_space: names that are the server's own only when the parenthesis follows at once.
        backwards: all of them reversed, with up to one space before it, as the first look finds them.
    """

    anywhere: frozenset[str]
    without_space: frozenset[str]
    backwards: frozenset[str]


def _harmless(anywhere: str, without_space: str) -> _Harmless:
    either_way, tight = frozenset(anywhere.split()), frozenset(without_space.split())
    backwards = {name[::-1] for name in either_way | tight} | {" " + name[::-1] for name in either_way} | {"", " "}
    return _Harmless(either_way, tight, frozenset(backwards))


_SHARED: Final = _KEYWORDS + _TYPES + _FUNCTIONS
_HARMLESS: Final[dict[Brand | None, _Harmless]] = {
    None: _harmless(_SHARED, _FUNCTIONS_WITHOUT_SPACE),
    "mysql": _harmless(_SHARED + _MYSQL_ONLY, f"{_FUNCTIONS_WITHOUT_SPACE} {_MYSQL_ONLY_WITHOUT_SPACE}"),
    "mariadb": _harmless(_SHARED + _MARIADB_ONLY, f"{_FUNCTIONS_WITHOUT_SPACE} {_MARIADB_ONLY_WITHOUT_SPACE}"),
}


# ---- the text


def _in_capitals(sql: Text, *, utf8: bool) -> str | None:
    """Return the text with ASCII letters in capitals, one character a byte; None where its bytes cannot be trusted.

    str.upper() would turn letters that are not ASCII into ASCII ones (the long s into S), which the server does not.
    """
    if not sql.isascii():
        if not utf8:
            return None
        data = sql.encode("utf-8", "surrogatepass") if isinstance(sql, str) else sql
        return data.upper().decode("latin-1")
    return sql.upper() if isinstance(sql, str) else sql.upper().decode("ascii")


# A limit on the time of one statement ends with it, on the server that knows it: SET STATEMENT puts the variable back,
# and a hint never touches it. What follows is judged as if it stood alone. docs/adr/036-time-limits.md has what was
# seen.
_TIME_LIMIT: Final[dict[Brand, re.Pattern[str]]] = {
    "mariadb": re.compile(
        rf"[{_SPACE}]*SET STATEMENT MAX_STATEMENT_TIME=[0-9]+(?:\.[0-9]+)? FOR "
        r"(?=(?:SELECT|INSERT|UPDATE|DELETE|REPLACE)\b)"
    ),
    "mysql": re.compile(rf"(?<=SELECT )/\*\+ MAX_EXECUTION_TIME\([0-9]+\) \*/[{_SPACE}]"),
}


def _without_time_limit(text: str, brand: Brand | None) -> str:
    if brand == "mariadb":
        limit = _TIME_LIMIT[brand].match(text)
        return text if limit is None else text[limit.end() :]
    if brand == "mysql" and text.startswith("SELECT /*+"):
        return _TIME_LIMIT[brand].sub("", text, count=1)
    return text


# ---- the first and second look

# Read backwards, each name before a parenthesis begins with the parenthesis, and a search for one literal character
# is what the regular expression engine does fastest. A quote, a backtick or a dot is taken along: such a name is on
# no list.
_NAMES_BACKWARDS: Final = re.compile(rf"\(([{_SPACE}]*[0-9A-Z_$`\"'.\x80-\xff]*(?:[{_SPACE}]+\.)?)")
_SCHEMA_SYS_OR_SEQUENCE: Final = re.compile(rf"SYS[`\"]?[{_SPACE}]*\.|NEXTVAL|NEXT[{_SPACE}]+VALUE")
_NAME: Final = r"(?:[0-9A-Z_$\x80-\xff]+|`[^`]*`)"
_INSERT_HEAD: Final = re.compile(
    rf"[{_SPACE}]*(?:INSERT|REPLACE)(?:[{_SPACE}]+(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE))*[{_SPACE}]+INTO[{_SPACE}]*"
    rf"({_NAME}(?:[{_SPACE}]*\.[{_SPACE}]*{_NAME})?[{_SPACE}]*\()?"
)
# Strings and plain comments are matched and dropped, all else is kept in pieces: also what stands between double
# quotes, which is a name under ANSI_QUOTES. A hint or an executable comment is kept with all that follows, and so is
# what is not closed: those are the last alternatives, and they keep this linear.
_DROPPED_AND_KEPT: Final = (
    r"#[^\n\x00]*|--(?=[\x00-\x20\x7f]|\Z)[^\n\x00]*|/\*(?!M?!|\+)[^*]*(?:\*(?!/)[^*]*)*\*/"
    r"|([^'\"`#/-]+|`[^`]*`|\"[^\"]*(?:\"\"[^\"]*)*\"|/\*[\s\S]*|--|[/-]|['\"`][\s\S]*)"
)
_WITH_BACKSLASHES: Final = re.compile(r"'[^'\\]*(?:(?:\\[\s\S]|'')[^'\\]*)*'|" + _DROPPED_AND_KEPT)
_WITHOUT_BACKSLASHES: Final = re.compile(r"'[^']*(?:''[^']*)*'|" + _DROPPED_AND_KEPT)


def _looks_plain(code: str, text: str, names: _Harmless) -> bool:
    """Tell whether nothing in ``code`` could be dirt even if every character of it were code.

    What the server takes for a string, a name or a comment is a part of what is searched here, so this holds under
    every sql_mode. ``text`` is the whole text, where an INSERT's head is looked for.
    """
    if "@" in code or ";" in code or "--" in code or "#" in code or "/*" in code or ":=" in code:
        return False
    if ("SYS" in code or "NEXT" in code) and _SCHEMA_SYS_OR_SEQUENCE.search(code) is not None:
        return False
    head = code.split(None, 1)[:1]
    if not head or head[0] not in _PLAIN_HEADS:
        return code in _TRANSACTION_CONTROL
    insert_head = None
    if "INTO" in code:
        insert_head = _INSERT_HEAD.match(text)
        if insert_head is None or code.count("INTO") > 1:
            return False
    if "(" not in code:
        return True
    before_parentheses: list[str] = _NAMES_BACKWARDS.findall(code[::-1])
    if insert_head is not None and insert_head[1] is not None:
        before_parentheses.pop()  # the table's name before the list of columns
    return names.backwards.issuperset(before_parentheses) or all(
        name in names.backwards or (name[0] in _SPACE and " " + name.lstrip(_SPACE) in names.backwards)
        for name in before_parentheses
    )


def _without_strings(text: str, *, backslash_escapes: bool) -> str | None:
    """Return the text with a space for each string and comment; None where there is none, or sql_mode decides it."""
    if "'" not in text and "/*" not in text and "--" not in text and "#" not in text:
        return None
    if '"' in text and "\\" in text:  # under ANSI_QUOTES a backslash between double quotes escapes nothing
        return None
    pieces = _WITH_BACKSLASHES if backslash_escapes else _WITHOUT_BACKSLASHES
    return " ".join(pieces.findall(text))


# ---- the third look

_UNDERSTOOD: Final = frozenset(
    (
        t.CLOSE,
        t.COMMA,
        t.DOT,
        t.DOUBLE_QUOTED,
        t.NUMBER,
        t.OPEN,
        t.OPERATOR,
        t.QMARK,
        t.QUOTED,
        t.STRING,
        t.WORD,
    )
)
_IDENTIFIERS: Final = frozenset({t.WORD, t.QUOTED, t.DOUBLE_QUOTED})
_NAME_OR_DOT: Final = re.compile(r"[A-Z_$.\x80-\xff]")
_HINT_NAMES: Final = re.compile(rf"([0-9A-Z_$\x80-\xff]+)[{_SPACE}]*\(")


@functools.lru_cache(_REMEMBERED_MAX)
def _look_at_tokens(text: str, brand: Brand | None, backslash_escapes: bool) -> bool:
    dialect = t.Dialect.MYSQL if backslash_escapes else t.Dialect.MYSQL_NO_BACKSLASH_ESCAPES
    code: list[t.Token] = []
    for token in t.code_tokens(text, dialect):
        if token[0] != t.HINT:
            code.append(token)
        elif not _is_harmless_hint(text[token[1] : token[2]]):
            return False
    while code and code[-1][0] == t.SEMICOLON:
        code.pop()
    statement = _Statement(text, code)
    return statement.is_transaction_control() or statement.is_clean(_HARMLESS[brand])


def _is_harmless_hint(hint: str) -> bool:
    """Tell whether a hint, a comment wherever the server expects none, ends with its statement."""
    return _HINTS.issuperset(_HINT_NAMES.findall(hint)) and not any(quote in hint for quote in "'\"`")


class _Statement:
    """Judge one statement by its tokens, spaces, comments and hints left out."""

    def __init__(self, text: str, code: list[t.Token]) -> None:
        self._text = text
        self._code = code
        self._kinds = [kind for kind, _, _ in code]
        self._pieces = [text[start:end] for _, start, end in code]

    def is_transaction_control(self) -> bool:
        return " ".join(self._pieces).replace(" ,", ",") in _TRANSACTION_CONTROL

    def is_clean(self, names: _Harmless) -> bool:
        if not _UNDERSTOOD.issuperset(self._kinds) or not self._has_known_head():
            return False
        table_end = self._table_end()
        return (
            self._has_harmless_words(table_end)
            and self._has_harmless_quotes()
            and all(
                self._is_harmless_parenthesis(index, table_end, names)
                for index, kind in enumerate(self._kinds)
                if kind == t.OPEN
            )
        )

    # ---- the head

    def _has_known_head(self) -> bool:
        index = 0
        while index < len(self._kinds) and self._kinds[index] == t.OPEN:
            index += 1
        return self._is_word(index, *_QUERIES) or (index == 0 and self._is_word(0, *_INSERTS, *_OTHERS))

    def _table_end(self) -> int:
        """Return the index after the name of the table that an INSERT or REPLACE fills; 0 for the other kinds."""
        if not self._is_word(0, *_INSERTS):
            return 0
        index = 1
        while self._is_word(index, *_INSERT_OPTIONS):
            index += 1
        index += 1 + self._is_word(index, "INTO")
        return index + 2 if self._is_kind(index, t.DOT) else index

    def _is_kind(self, index: int, *kinds: str) -> bool:
        return 0 <= index < len(self._kinds) and self._kinds[index] in kinds

    def _is_word(self, index: int, *words: str) -> bool:
        return self._is_kind(index, t.WORD) and self._pieces[index] in words

    # ---- words, names and numbers

    def _has_harmless_words(self, table_end: int) -> bool:
        pieces = set(self._pieces)
        if self._pieces.count("INTO") > self._pieces[:table_end].count("INTO") or self._pieces.count("INTO") > 1:
            return False
        if "NEXT" in pieces and any(self._is_word(index, "NEXT") for index in self._before("VALUE")):
            return False
        if any(self._is_kind(index, t.DOT) for index in self._before("NEXTVAL")):
            return False
        # The views and functions of schema sys set user variables in the session that uses them.
        schema_sys = pieces & {"SYS", "`SYS`", '"SYS"'}
        if schema_sys and any(self._pieces[index] in schema_sys for index in self._before(".")):
            return False
        # 1e5x may be a number and a name, 1.INTO is 1. and INTO to the server, and $$ may open a quoted text in MySQL
        # 9.
        return not any(
            (kind == t.WORD and self._text[start] in "0123456789$")
            or (kind == t.NUMBER and _NAME_OR_DOT.match(self._text, end) is not None)
            for kind, start, end in self._code
        )

    def _before(self, piece: str) -> list[int]:
        """Return the index before each token that is spelled like this."""
        return [index - 1 for index, other in enumerate(self._pieces) if other == piece and index > 0]

    def _has_harmless_quotes(self) -> bool:
        """Tell whether double quotes end where they end under ANSI_QUOTES too, where a backslash is nothing."""
        quoted = [piece for kind, piece in zip(self._kinds, self._pieces, strict=True) if kind == t.DOUBLE_QUOTED]
        return not any("\\" in piece for piece in quoted)

    # ---- parentheses

    def _is_harmless_parenthesis(self, index: int, table_end: int, names: _Harmless) -> bool:
        """Tell whether the parenthesis at ``index`` opens no call but that of a harmless builtin."""
        before = index - 1
        if not self._is_kind(before, *_IDENTIFIERS):
            return not self._is_kind(before, t.STRING, t.NUMBER, t.QMARK, t.DOT)
        if index == table_end or self._names_columns(index):
            return True
        is_bare_word = self._is_kind(before, t.WORD) and not self._is_kind(before - 1, t.DOT)
        return is_bare_word and self._is_harmless_name(before, names)

    def _is_harmless_name(self, index: int, names: _Harmless) -> bool:
        """Tell whether the word at ``index``, before a parenthesis, is the server's own and leaves nothing behind."""
        name = self._pieces[index]
        if name in names.anywhere:
            return True
        if name == "JSON_TABLE":
            return self._is_word(index - 1, "FROM", "JOIN")
        if name == "LAST_INSERT_ID":
            return self._is_kind(index + 2, t.CLOSE)  # with an argument it sets what it returns
        return name in names.without_space and self._code[index][2] == self._code[index + 1][1]

    def _names_columns(self, index: int) -> bool:
        """Tell whether the parenthesis after an alias or the name of a common table expression lists its columns.

        No expression begins right after AS, after a closing parenthesis or after a string, and none is followed by AS
        and a parenthesis; so the name there is not called.
        """
        before = index - 1
        if self._is_kind(before - 1, t.CLOSE, t.STRING):
            return True
        if self._is_word(before - 1, "AS") and not self._is_kind(before - 2, t.DOT):
            return True
        position = index + 1
        while self._is_kind(position, *_IDENTIFIERS) and self._is_kind(position + 1, t.COMMA):
            position += 2
        is_list = self._is_kind(position, *_IDENTIFIERS) and self._is_kind(position + 1, t.CLOSE)
        is_name = not self._is_kind(before - 1, t.DOT)
        return is_list and is_name and self._is_word(position + 2, "AS") and self._is_kind(position + 3, t.OPEN)
