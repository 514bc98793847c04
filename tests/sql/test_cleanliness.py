"""The proof that a statement leaves nothing behind: which statements pass, and that nothing talks it over."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from millpond._sql import tokens as t
from millpond._sql.cleanliness import LENGTH_MAX, Brand, is_clean_statement, is_transaction_control

CLEAN: dict[str, list[str]] = {
    "plain queries": [
        "SELECT 1",
        "select 1",
        "  \n\tSELECT 1  ",
        "SELECT 1;",
        "SELECT 1 ; -- done",
        "SELECT * FROM t",
        "SELECT a, b AS c FROM db.t WHERE a = 1 AND b <> 'x' ORDER BY c DESC LIMIT 10 OFFSET 5",
        "SELECT DISTINCT a FROM t GROUP BY a HAVING a > 1",
        "SELECT `t`.`a` FROM `t` WHERE `t`.`b` = 'x' LIMIT 21",
        'SELECT "t"."a" FROM "t"',
        "SELECT a FROM t WHERE a = -1.5e3 OR b = .5 OR c = 0x1F OR d = x'00ff' OR e = b'01'",
        "SELECT a FROM t WHERE b LIKE 'x%' AND c NOT LIKE '%y' AND d REGEXP '^z'",
        "SELECT a FROM t WHERE b IS NOT NULL AND c BETWEEN 1 AND 2",
        "SELECT a->>'$.x', b->'$.y[0]' FROM t",
        "SELECT N'x', _utf8mb4'y', _binary'z', DATE '2020-01-01', INTERVAL 1 DAY + '2020-01-01'",
        "SELECT a FROM t WHERE b = ? AND c IN (?, ?)",
        "SELECT a FROM t1 LEFT JOIN t2 ON t1.id = t2.id JOIN t3 USING (id) NATURAL JOIN t4",
        "SELECT 姓名 FROM 用户 WHERE 城市 = '杭州'",
        "SELECT 'größe' AS größe",
        "SELECT CURRENT_DATE, CURRENT_TIMESTAMP, CURRENT_USER, UTC_TIMESTAMP, LOCALTIME",
    ],
    "parentheses that call nothing": [
        "SELECT (1)",
        "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1 LIMIT 1",
        "((SELECT 1))",
        "SELECT a FROM t WHERE id IN (1, 2, 3) AND (b, c) NOT IN ((1, 2), (3, 4))",
        "SELECT a FROM t WHERE id IN(1)",
        "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u) AND NOT (b = 1) OR (c = 2) XOR (d = 3)",
        "SELECT a FROM t WHERE a = ANY (SELECT 1) OR a > ALL (SELECT 1) OR a < SOME (SELECT 2)",
        "SELECT a FROM (SELECT 1 AS a) AS x",
        "SELECT a FROM (SELECT 1 AS a) x JOIN (SELECT 2 AS b) AS y ON (x.a = y.b)",
        "SELECT CASE WHEN (a > 1) THEN (b) ELSE (c) END FROM t",
        "SELECT a FROM t USE INDEX (i, j) WHERE b = 1",
        "SELECT a FROM t FORCE INDEX FOR JOIN (i) IGNORE KEY (j)",
        "SELECT a FROM t PARTITION (p0, p1) WHERE b = 1",
        "SELECT a * (b + 1), -(c), ~(d), !(e), a/(b), a DIV (b), a MOD (b), BINARY (a) FROM t",
        "SELECT a FROM t WHERE a LIKE ('x') AND b REGEXP ('y') AND c RLIKE ('z')",
        "SELECT a FROM t GROUP BY (a) ORDER BY (b)",
        "SELECT x.a FROM (SELECT 1, 2) AS x (a, b)",
        "SELECT x.a FROM (SELECT 1, 2) x (a, b)",
        "SELECT a FROM (VALUES (1, 2), (3, 4)) AS x (a, b)",
        "WITH x AS (SELECT 1 AS a) SELECT a FROM x",
        "WITH x (a, b) AS (SELECT 1, 2), y (c) AS (SELECT 3) SELECT a FROM x, y",
        "WITH x(a) AS (SELECT 1), `y`(`c`) AS (SELECT 3) SELECT a FROM x, y",
        "WITH RECURSIVE x (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x WHERE n < 5) SELECT n FROM x",
        "WITH x AS (SELECT 1 AS a) UPDATE t, x SET t.a = x.a",
        "WITH x AS (SELECT 1 AS a) DELETE FROM t WHERE a IN (SELECT a FROM x)",
        "SELECT a FROM t WHERE MATCH (a, b) AGAINST ('x' IN BOOLEAN MODE)",
        "SELECT ROW(1, 2) = ROW(1, 2)",
        "SELECT 1 IN (SELECT 1 INTERSECT SELECT 1) EXCEPT SELECT 2",
        "SELECT SUM(a) OVER (PARTITION BY b ORDER BY c ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
        "SELECT SUM(a) OVER w FROM t WINDOW w AS (PARTITION BY b)",
        "SELECT a\nFROM t\nWHERE b IN\n    (1, 2)\n  AND c =\n(SELECT 1)",
    ],
    "builtins": [
        "SELECT COUNT(*), MAX(a), MIN(b), SUM(c), AVG(d), GROUP_CONCAT(e ORDER BY e SEPARATOR ', ') FROM t",
        "SELECT COUNT(DISTINCT a) FROM t",
        "SELECT NOW(), CURDATE(), NOW(6), UTC_TIMESTAMP(), SYSDATE(), UNIX_TIMESTAMP(a) FROM t",
        "SELECT CONCAT (a, b), COALESCE (c, d), IF (e, f, g), IFNULL(h, i), NULLIF(j, k) FROM t",
        "SELECT DATE_FORMAT(a, '%Y-%m'), DATE_SUB(NOW(), INTERVAL 1 DAY), TIMESTAMPDIFF(DAY, a, b) FROM t",
        "SELECT CAST(a AS CHAR(10)), CAST(b AS DECIMAL(10, 2)), CAST(c AS DATETIME(6)), CONVERT(d, SIGNED) FROM t",
        "SELECT CONVERT(a USING utf8mb4), CHAR(77 USING utf8mb4), EXTRACT(YEAR FROM b), TRIM(BOTH 'x' FROM c) FROM t",
        "SELECT SUBSTRING(a FROM 1 FOR 2), POSITION('a' IN b), LEFT(a, 1), RIGHT(b, 2), REPLACE(c, 'x', 'y') FROM t",
        "SELECT UPPER(LOWER(TRIM(a))), LENGTH(b), CHAR_LENGTH(c), MD5(d), SHA2(e, 256), HEX(f), UUID() FROM t",
        "SELECT ROUND(a, 2), FLOOR(b), CEIL(c), ABS(d), MOD(e, 2), RAND(), GREATEST(f, g), LEAST(h, i) FROM t",
        "SELECT JSON_EXTRACT(a, '$.x'), JSON_UNQUOTE(b), JSON_OBJECT('k', c), JSON_ARRAYAGG(d) FROM t",
        "SELECT ST_AsText(p), ST_Distance(p, q), ST_GeomFromText('POINT(1 1)') FROM t",
        "SELECT a FROM t ORDER BY FIELD(a, 3, 1, 2), FIND_IN_SET(b, 'x,y')",
        "SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b), RANK() OVER w, LAG(c, 1) OVER w FROM t",
        "SELECT FOUND_ROWS(), ROW_COUNT(), CONNECTION_ID(), DATABASE(), USER(), VERSION()",
        "SELECT LAST_INSERT_ID()",
        "SELECT last_insert_id( )",
        "SELECT IS_FREE_LOCK('a'), IS_USED_LOCK('a')",
        "SELECT SLEEP(0), BENCHMARK(1, 1 + 1)",
        "SELECT * FROM JSON_TABLE(t.a, '$[*]' COLUMNS (a INT PATH '$', b VARCHAR(9) PATH '$.b')) x",
        "SELECT * FROM JSON_TABLE('[1]', '$' COLUMNS (NESTED PATH '$.b' COLUMNS (c DECIMAL(9, 2) PATH '$'))) x",
    ],
    "writes": [
        "INSERT INTO t VALUES (1, 'x')",
        "INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')",
        "INSERT INTO t(a, b) VALUES(1, 'x')",
        "INSERT INTO `t` (`a`, `b`) VALUES (1, NULL), (DEFAULT, DEFAULT(b))",
        "INSERT INTO db.t(a) VALUES (1)",
        "INSERT INTO `db`.`t` (`a`) VALUES (1)",
        "INSERT INTO `odd(name` (a) VALUES (1)",
        "INSERT INTO t () VALUES ()",
        "INSERT t (a) VALUES (1)",
        "INSERT t VALUES (1)",
        "INSERT IGNORE INTO t (a) VALUES (1)",
        "INSERT LOW_PRIORITY IGNORE t (a) VALUES (1)",
        "INSERT INTO t SET a = 1, b = NOW()",
        "INSERT INTO t (a) SELECT b FROM u WHERE c = 1",
        "INSERT INTO t (a) (SELECT b FROM u)",
        "INSERT INTO t PARTITION (p0) (a) VALUES (1)",
        "INSERT INTO t (a, b) VALUES (1, 2) ON DUPLICATE KEY UPDATE b = VALUES(b), c = c + 1",
        "INSERT INTO t (a, b) VALUES (1, 2) AS new ON DUPLICATE KEY UPDATE b = new.b",
        "INSERT INTO t (a, b) VALUES (1, 2) AS new(m, n) ON DUPLICATE KEY UPDATE b = n",
        "INSERT INTO t (a) VALUES (1) RETURNING id",
        "REPLACE INTO t (a) VALUES (1)",
        "REPLACE t (a) VALUES (1)",
        "UPDATE t SET a = a + 1 WHERE id = 5",
        "UPDATE t SET a = (SELECT MAX(b) FROM u), c = NOW() WHERE id IN (1, 2) ORDER BY id LIMIT 1",
        "UPDATE t1 JOIN t2 USING (id) SET t1.a = t2.a",
        "DELETE FROM t WHERE id = 5",
        "DELETE t1 FROM t1 JOIN t2 ON t1.id = t2.id WHERE (t2.a = 1)",
        "SELECT a FROM t WHERE id = 1 FOR UPDATE",
        "SELECT a FROM t WHERE id = 1 FOR UPDATE OF t SKIP LOCKED",
        "SELECT a FROM t WHERE id = 1 LOCK IN SHARE MODE",
        "SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1",
    ],
    "text that only looks like dirt": [
        "SELECT 'GET_LOCK(1)', '@a := 1', 'a; b', '/*! c */', '-- d', '# e'",
        "SELECT a FROM t WHERE email = 'somebody@example.org'",
        "SELECT a FROM t WHERE b = 'it''s f(x)' AND c = 'it\\'s g(y)' AND d = 'ends in \\\\'",
        'SELECT "f(x) @a", a FROM t',
        "SELECT `f(x)`, `@a`, `into` FROM t",
        "SELECT a /* f(x) @a ; */ FROM t -- g(y)\n WHERE b = 1 # h(z)",
        "/* trace='00-abc', app='x' */ SELECT a FROM t",
        "SELECT a FROM t WHERE b = 5--3",
        "SELECT 'INTO', a FROM t WHERE b = 'NEXT VALUE FOR s' OR c = 'sys.x'",
        "SELECT sysname, next_value, systems.a FROM systems",
        "SELECT pinto FROM horses",
        "UPDATE t SET next = 1",
        "INSERT INTO t (a) VALUES ('f(x)'), ('@'), (';'), ('`')",
        "INSERT INTO t (data) VALUES (_binary'\udcff\udcd8\\0\\'f(')",
    ],
    "hints that end with the statement": [
        "SELECT /*+ MAX_EXECUTION_TIME(1000) */ a FROM t",
        "SELECT /*+ BKA(t1) NO_ICP(t2 i1) INDEX(t1 i1, i2) */ a FROM t1, t2",
        "INSERT /*+ NO_MERGE(x) */ INTO t (a) SELECT a FROM (SELECT 1 AS a) x",
    ],
    "transactions": [
        "BEGIN",
        "begin work",
        "COMMIT",
        "commit ;",
        "COMMIT WORK",
        "ROLLBACK",
        "rollback work",
        "START TRANSACTION",
        "start  transaction\nread only",
        "START TRANSACTION READ WRITE",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        "START TRANSACTION READ ONLY , WITH CONSISTENT SNAPSHOT",
        "/* unit of work */ COMMIT",
    ],
    "looking at the server": [
        "SHOW TABLES",
        "SHOW WARNINGS",
        "SHOW FULL COLUMNS FROM t LIKE 'a%'",
        "SHOW CREATE TABLE t",
        "SHOW STATUS WHERE Variable_name IN ('Uptime')",
        "EXPLAIN SELECT a FROM t",
        "EXPLAIN FORMAT=JSON SELECT COUNT(*) FROM t",
        "EXPLAIN (SELECT 1)",
        "EXPLAIN UPDATE t SET a = 1",
        "DESCRIBE t",
        "DESC db.t a",
        "TABLE t",
        "VALUES ROW(1, 2), ROW(3, 4)",
        "VALUES (1, 2), (3, 4)",
        "SELECT TABLE_NAME FROM information_schema.tables WHERE table_schema = DATABASE()",
    ],
}

DIRTY: dict[str, list[str]] = {
    "nothing": ["", " ", ";", "-- only a comment", "/* */", "()", "("],
    "kinds that change the session or may": [
        "SET NAMES utf8mb4",
        "SET @a = 1",
        "SET SESSION sql_mode = ''",
        "SET STATEMENT max_statement_time = 1 FOR SELECT 1",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET ROLE boss",
        "USE db",
        "CALL p()",
        "DO GET_LOCK('a', 0)",
        "DO SLEEP(0)",
        "CREATE TEMPORARY TABLE t (a INT)",
        "CREATE TABLE t (a INT)",
        "DROP TABLE t",
        "ALTER TABLE t ADD b INT",
        "TRUNCATE t",
        "LOCK TABLES t READ",
        "UNLOCK TABLES",
        "FLUSH TABLES WITH READ LOCK",
        "PREPARE s FROM 'SELECT 1'",
        "EXECUTE s",
        "EXECUTE IMMEDIATE 'SELECT 1'",
        "HANDLER t OPEN",
        "LOAD DATA LOCAL INFILE 'x' INTO TABLE t",
        "XA START 'x'",
        "SAVEPOINT a",
        "RELEASE SAVEPOINT a",
        "ROLLBACK TO SAVEPOINT a",
        "ROLLBACK TO a",
        "COMMIT AND CHAIN",
        "COMMIT AND NO CHAIN RELEASE",
        "ROLLBACK RELEASE",
        "ROLLBACK AND CHAIN",
        "BEGIN NOT ATOMIC SELECT 1; END",
        "START SLAVE",
        "START REPLICA",
        "START TRANSACTION READ ONLY READ WRITE",
        "KILL 5",
        "ANALYZE TABLE t",
        "ANALYZE SELECT 1",
        "GRANT ALL ON t TO u",
        "INSTALL PLUGIN x SONAME 'y'",
        "HELP 'x'",
        "GET DIAGNOSTICS CONDITION 1 a = MESSAGE_TEXT",
        "SIGNAL SQLSTATE '45000'",
        "BINLOG 'x'",
        "(SHOW TABLES)",
        "(UPDATE t SET a = 1)",
        "SELECTED",
        "'SELECT' 1",
        "`SELECT` 1",
        "1 SELECT",
    ],
    "variables": [
        "SELECT @a",
        "SELECT @a := 1",
        "SELECT @a:=1",
        "SELECT a FROM t WHERE (@b := a) > 1",
        "UPDATE t SET a = (@w := a)",
        "SELECT @`a b`, @'c'",
        "SELECT @@sql_mode",
        "SELECT a := 1",
        "SHOW GRANTS FOR 'u'@'h'",
    ],
    "INTO": [
        "SELECT 1 INTO @a",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT 1 INTO DUMPFILE '/tmp/x'",
        "SELECT a INTO b FROM t",
        "SELECT 1 /**/INTO/**/ OUTFILE '/tmp/x'",
        "SELECT 1.5INTO OUTFILE '/tmp/x'",
        "SELECT 1.INTO OUTFILE '/tmp/x'",
        "SELECT 1e5INTO OUTFILE '/tmp/x'",
        "SELECT 'x'INTO OUTFILE '/tmp/x'",
        "TABLE t INTO OUTFILE '/tmp/x'",
        "VALUES ROW(1) INTO @a",
        "EXPLAIN FORMAT=JSON INTO @a SELECT 1",
        "INSERT INTO t SELECT 1 INTO OUTFILE '/tmp/x'",
        "WITH x AS (SELECT 1) SELECT 1 FROM x INTO b",
    ],
    "functions that leave something": [
        "SELECT GET_LOCK('a', 0)",
        "select get_lock('a', 0)",
        "SELECT Get_Lock ('a', 0)",
        "SELECT GET_LOCK\n\t('a', 0)",
        "SELECT GET_LOCK/* c */('a', 0)",
        "SELECT GET_LOCK-- c\n('a', 0)",
        "SELECT GET_LOCK# c\n('a', 0)",
        "SELECT `GET_LOCK`('a', 0)",
        "SELECT \"GET_LOCK\"('a', 0)",
        "SELECT RELEASE_LOCK('a')",
        "SELECT RELEASE_ALL_LOCKS()",
        "SELECT LAST_INSERT_ID(5)",
        "UPDATE t SET id = LAST_INSERT_ID(id + 1)",
        "SELECT a FROM t WHERE b IN (1, GET_LOCK('a', 0))",
        "SELECT MASTER_POS_WAIT('x', 1)",
        "INSERT INTO t (a) VALUES (GET_LOCK('a', 0))",
        "INSERT INTO t SET a = GET_LOCK('a', 0)",
        "SHOW TABLES WHERE GET_LOCK('a', 0)",
        "EXPLAIN SELECT * FROM (SELECT GET_LOCK('a', 0)) x",
        "SELECT * FROM t PROCEDURE ANALYSE(10)",
        "SELECT {fn GET_LOCK('a', 0)}",
    ],
    "functions that nobody knows": [
        "SELECT f()",
        "SELECT f ()",
        "SELECT db.f()",
        "SELECT db . f ()",
        "SELECT db. f ()",
        "SELECT db .f ()",
        "SELECT db./**/COUNT(1)",
        "SELECT db.count(1)",
        "SELECT db. count(1)",
        "SELECT db.\ncount(1)",
        "SELECT `db`.`f`()",
        "SELECT `f`()",
        "SELECT `count`(1)",
        "SELECT 1f(1)",
        "SELECT $f(1)",
        "SELECT \u017fleep(1)",
        "SELECT u\u017fer()",
        "SELECT COUNT (1)",
        "SELECT COUNT/**/(1)",
        "SELECT COUNT\n(1)",
        "SELECT MAX (a) FROM t",
        "SELECT NOW ()",
        "SELECT größe(1)",
        "SELECT COUNTé(1)",
        "SELECT COUNT\xa0(1)",
        "INSERT INTO t (a) VALUES (f(1))",
        "INSERT INTO t (a) SELECT f(1)",
        "INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = f(1)",
        "UPDATE t SET a = f(1)",
        "DELETE FROM t WHERE f(a)",
        "SELECT a FROM t ORDER BY f(a)",
        "SELECT a AS b, f(a) FROM t",
        "SELECT t.as f(1) FROM t",
        "WITH x (a) AS (SELECT f(1)) SELECT a FROM x",
        "WITH x AS (SELECT 1), y AS (SELECT f(a)) SELECT 1",
        "SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP f(1)",
    ],
    "sequences": [
        "SELECT NEXT VALUE FOR s",
        "SELECT NEXT\n VALUE FOR s",
        "SELECT NEXT/**/VALUE FOR s",
        "INSERT INTO t VALUES (NEXT VALUE FOR s)",
        "SELECT NEXTVAL(s)",
        "SELECT SETVAL(s, 5)",
        "SELECT LASTVAL(s)",
        "SELECT s.nextval",
    ],
    "views and functions of schema sys, which set variables": [
        "SELECT * FROM sys.processlist",
        "SELECT * FROM `sys`.`statement_analysis`",
        "SELECT * FROM sys . processlist",
        "SELECT * FROM SYS/**/.processlist",
        'SELECT * FROM "sys"."processlist"',
        "SELECT sys.format_statement('x')",
        "SHOW CREATE VIEW sys.processlist",
    ],
    "executable comments and hints that reach the session": [
        "SELECT /*!50000 1 */",
        "/*!50000 SELECT */ 1",
        "SELECT 1 /*! INTO @a */",
        "SELECT 1 /*M! INTO @a */",
        "SELECT 1 /*!99999 harmless */",
        "SELECT /*+ SET_VAR(sql_mode = '') */ 1",
        "SELECT /*+ RESOURCE_GROUP(x) */ 1",
        "SELECT /*+ SOMETHING_NEW(x) */ 1",
        "SELECT /*+ BKA(`*/ , f(1) , /*`) */ 1",
    ],
    "more than one statement": [
        "SELECT 1; SELECT 2",
        "SELECT 1;SET @a = 1",
        "COMMIT; SELECT 1",
        "SELECT 1; /*! SET @a = 1 */",
    ],
    "what may hold dirt and is not understood": [
        "SELECT 'a', f(1)'open",
        "SELECT 'a\\', f(1)",
        'SELECT "a\\", f(1), "b"',
        'SELECT \'a\', "b\\", f(1), "c"',
        "SELECT `a, f(1)",
        "SELECT 1 /* open, f(1)",
        "SELECT \\N, f(1)",
        "SELECT {d f(1)}",
        "SELECT $$f(1)$$",
        "SELECT %(f)s, f(1)",
        "SELECT \"f\"(1), 'x'",
        "SELECT 'x'f(1), f(1)",
        "SELECT 1 \x00, f(1)",
        "SELECT 1 FROM 2nd(1)",
    ],
}


def cases(groups: dict[str, list[str]]) -> list[Any]:
    """Return every statement as a case that names its group."""
    return [
        pytest.param(text, id=f"{group} {number}: {text[:40]!a}")
        for group, texts in groups.items()
        for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize("sql", cases(CLEAN))
def test_what_leaves_nothing_is_proved_clean(sql: str) -> None:
    """What real programs send costs no reset, as text and as bytes."""
    brand: Brand | None = "mysql" if "JSON_TABLE" in sql else None
    assert is_clean_statement(sql, brand=brand)
    assert is_clean_statement(sql.encode("utf-8", "surrogateescape"), brand=brand)
    assert is_clean_statement(bytearray(sql.lower().encode("utf-8", "surrogateescape")), brand=brand)


@pytest.mark.parametrize("brand", [None, "mysql", "mariadb"])
@pytest.mark.parametrize("sql", cases(DIRTY))
def test_what_may_leave_something_is_dirty(sql: str, brand: Brand | None) -> None:
    """What changes the session, or may, or is not understood, is dirty on every server, as text and as bytes."""
    assert not is_clean_statement(sql, brand=brand)
    assert not is_clean_statement(sql.encode(), brand=brand)
    assert not is_clean_statement(sql.lower().encode(), brand=brand)


FORMS = [
    "{0}",
    "/* c */ {0}",
    "-- c\n{0}",
    "{0} -- c",
    "\n\n  {0}\n",
    "{0} ",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sql", cases(DIRTY))
def test_a_comment_or_space_around_makes_nothing_clean(sql: str, form: str) -> None:
    """Where a statement stands and what is said beside it does not change the verdict."""
    assert not is_clean_statement(form.format(sql.replace("{", "(").replace("}", ")")), brand="mysql")


BRANDED = [
    ("SELECT ANY_VALUE(a), GROUPING(a) FROM t", "mysql"),
    ("SELECT UUID_TO_BIN(UUID())", "mysql"),
    ("SELECT a FROM t WHERE 1 MEMBER OF (a)", "mysql"),
    ("SELECT a FROM t, LATERAL (SELECT 1) x", "mysql"),
    ("SELECT SQL_NO_CACHE (1)", "mysql"),
    ("SELECT a FROM t, JSON_TABLE(t.b, '$' COLUMNS (c INT PATH '$')) x", "mysql"),
    ("SELECT NVL(a, b), JSON_QUERY(c, '$') FROM t", "mariadb"),
    ("SELECT MEDIAN(a) OVER (PARTITION BY b) FROM t", "mariadb"),
]


@pytest.mark.parametrize(("sql", "brand"), BRANDED)
def test_a_builtin_of_one_brand_is_trusted_there_only(sql: str, brand: Brand) -> None:
    """What is built into one server may be anybody's function on the other, or on one that is not known."""
    verdicts = {name: is_clean_statement(sql, brand=name) for name in ("mysql", "mariadb", None)}
    assert {"mysql": brand == "mysql", "mariadb": brand == "mariadb", None: False} == verdicts


def test_backslashes_decide_where_a_string_ends() -> None:
    """The same text is a string to one server and a call to another, and the status word says which."""
    hidden = r"SELECT 'a\' , f(1) , '"
    assert not is_clean_statement(hidden, backslash_escapes=False)
    assert is_clean_statement(hidden, backslash_escapes=True)
    assert is_clean_statement(r"SELECT 'f(1) c:\dir', 'x'", backslash_escapes=False)


def test_a_character_set_that_hides_quotes_is_not_understood() -> None:
    """Under GBK a byte that looks like a backslash can be half a letter, so only plain ASCII is trusted."""
    assert is_clean_statement("SELECT 'a'", utf8=False)
    assert not is_clean_statement("SELECT '杭州'", utf8=False)
    assert not is_clean_statement("SELECT '杭州'".encode("gbk"), utf8=False)


def test_letters_that_only_look_like_ascii_do_not_count_as_ascii() -> None:
    """The long s and the Kelvin sign are other letters to the server, so such a name is somebody's function."""
    assert not is_clean_statement("SELECT A\u017fCII('x')")
    assert not is_clean_statement("SELECT \u212bBS(1)")


@pytest.mark.parametrize("sql", [sql for group in ("plain queries", "builtins", "writes") for sql in CLEAN[group]])
def test_only_transaction_control_is_transaction_control(sql: str) -> None:
    """No other statement is taken for a BEGIN or COMMIT."""
    assert not is_transaction_control(sql)


def test_transaction_control_is_told_exactly() -> None:
    """BEGIN, START TRANSACTION, COMMIT and ROLLBACK are; what chains, releases or makes a savepoint is not."""
    for sql in ("BEGIN", b"commit", " Rollback Work ;", "START TRANSACTION\nREAD ONLY", bytearray(b"COMMIT")):
        assert is_transaction_control(sql), sql
    for sql in (
        "COMMIT AND CHAIN",
        "ROLLBACK TO a",
        "SAVEPOINT a",
        "BEGIN; SELECT 1",
        "COMMIT /*! */",
        "",
        "é",
        "B" * 999,
    ):
        assert not is_transaction_control(sql), sql


def test_a_long_statement_is_dirty_unseen() -> None:
    """Past the length where the proof costs more than a reset nothing is proved."""
    sql = "SELECT a FROM t WHERE id IN (" + ", ".join(["1"] * LENGTH_MAX)
    assert is_clean_statement(sql[: LENGTH_MAX - 5] + ")")
    assert not is_clean_statement(sql[: LENGTH_MAX + 1] + ")")


# ---- properties

CALLS = [
    " GET_LOCK('a',0) ", " f(1) ", " f (1) ", " `f`(1) ", " f/**/(1) ", " count (1) ", " LAST_INSERT_ID(1) ",
    " db.f(1) ", " db . count(1) ",
]  # fmt: skip
FRAGMENTS = [
    " @a ", " @@x ", " /*! 1 */ ", " ; SELECT 1 ", " := ", " INTO b ", " sys.x ",
    " NEXT VALUE FOR s ", " /*+ SET_VAR(a=1) */ ", " sys/**/.`x` ", ' "sys".x ',
]  # fmt: skip
CLEAN_TEXTS = [sql for texts in CLEAN.values() for sql in texts]
INSERT_HEAD = {"INSERT", "REPLACE", "INTO", "IGNORE", "LOW_PRIORITY"}


def places_in_code(sql: str) -> list[int]:
    """Return the positions between two tokens, but not where more text would be, or begin, a comment."""
    all_tokens = list(t.tokens(sql))
    line_comments = {end for kind, start, end in all_tokens if kind == t.COMMENT and sql[start] != "/"}
    minuses = {end for _, _, end in all_tokens if sql[end - 2 : end] == "--"}
    return [place for place in (0, *(end for _, _, end in all_tokens)) if place not in line_comments | minuses]


def no_call_can_begin_after(text: str, dialect: t.Dialect = t.Dialect.MYSQL) -> bool:
    """Tell whether a name and a parenthesis after this text are an alias and its columns, or the table of an INSERT."""
    code = [(kind, text[start:end].upper()) for kind, start, end in t.code_tokens(text, dialect) if kind != t.HINT]
    if not code:
        return False
    kind, piece = code[-1]
    if kind == t.DOT:
        code = code[:-2]  # the schema before the table
    return kind in (t.CLOSE, t.STRING) or piece == "AS" or INSERT_HEAD.issuperset(word for _, word in code)


@given(st.sampled_from(CLEAN_TEXTS), st.sampled_from(FRAGMENTS + CALLS), st.data())
def test_dirt_anywhere_in_a_clean_statement_is_seen(sql: str, dirt: str, data: st.DataObject) -> None:
    """Wherever a dirty fragment stands in a clean statement's code, the statement is dirty."""
    place = data.draw(st.sampled_from(places_in_code(sql)))
    assume(dirt not in CALLS or not no_call_can_begin_after(sql[:place]))
    assert not is_clean_statement(sql[:place] + dirt + sql[place:], brand="mysql")


@given(st.sampled_from([sql for texts in DIRTY.values() for sql in texts]), st.data())
def test_a_comment_between_tokens_makes_nothing_clean(sql: str, data: st.DataObject) -> None:
    """A comment, a space or a hint put between two tokens of a dirty statement leaves it dirty."""
    place = data.draw(st.sampled_from([0, *(end for kind, _, end in t.tokens(sql) if kind != t.UNTERMINATED)]))
    between = data.draw(st.sampled_from([" ", "\n", "/**/", "/* c */", "-- c\n", "# c\n", "/*+ BKA(t) */"]))
    assert not is_clean_statement(sql[:place] + between + sql[place:], brand="mysql")


KNOWN_HEADS = re.compile(
    r"(?i)select|with|insert|replace|update|delete|show|explain|desc|table|values|begin|start|commit|rollback"
)


@given(st.text(), st.booleans(), st.booleans(), st.sampled_from(["mysql", "mariadb", None]))
def test_no_text_makes_it_fail(text: str, escapes: bool, utf8: bool, brand: Brand | None) -> None:
    """Any text gets a verdict, and one without a word that a clean statement can begin with is dirty."""
    verdict = is_clean_statement(text, backslash_escapes=escapes, utf8=utf8, brand=brand)
    assert not verdict or KNOWN_HEADS.search(text) is not None


@given(st.binary())
def test_no_bytes_make_it_fail(data: bytes) -> None:
    """Any bytes get a verdict, and the same as a bytearray."""
    assert is_clean_statement(data) == is_clean_statement(bytearray(data))


SCRAPS = st.lists(
    st.sampled_from([*"()'\"`\\# \na,1.", "SELECT ", "INSERT ", "INTO ", "COUNT", "/*", "*/", "-- "])
).map("".join)
HEADS = st.sampled_from(
    ["SELECT ", "SELECT a, ", "INSERT INTO t VALUES ", "/* c */ SELECT ", "WITH x AS (SELECT 1) SELECT "]
)
GAPS = st.sampled_from(["", " ", "\n", "/**/", "-- c\n"])


@given(HEADS, SCRAPS, GAPS, SCRAPS, st.booleans())
def test_a_call_of_an_unknown_function_is_never_clean(
    head: str, before: str, gap: str, after: str, escapes: bool
) -> None:
    """Where the tokens show the name f before a parenthesis, and a call can stand there, the verdict is dirty."""
    text = f"{head}{before}f{gap}({after}"
    dialect = t.Dialect.MYSQL if escapes else t.Dialect.MYSQL_NO_BACKSLASH_ESCAPES
    code = [token for token in t.code_tokens(text, dialect) if token[0] != t.HINT]
    pieces = [text[start:end] for _, start, end in code]
    calls = [index for index in range(len(code) - 1) if pieces[index] == "f" and pieces[index + 1] == "("]
    assume(any(not no_call_can_begin_after(text[: code[index][1]], dialect) for index in calls))
    assert not is_clean_statement(text, brand="mysql", backslash_escapes=escapes)


BLOW_UPS = [
    "'", '"', "`", "''", "\\'", "(", "( ", "a(", "f (", "COUNT(", "/*", "/*!", "-- ", "#", "a", " ", ".", "1", "AS ",
    "x(a,", "@", "a.", "SYS", "SYS ", "NEXT ", "INTO ", "(a,", "%s", "/* *", "'a' ", "/*+ ", "f(a) ",
]  # fmt: skip


@pytest.mark.parametrize("piece", BLOW_UPS)
@pytest.mark.parametrize("head", ["SELECT ", "INSERT INTO ", "INSERT ", "/* */ SELECT "])
def test_work_is_bounded_whatever_is_repeated(
    head: str, piece: str, growth_of_effort: Callable[[Callable[[str], object], str], float]
) -> None:
    """Statements up to the longest that is looked at cost time in proportion to their length."""

    def judge(text: str) -> None:
        for number in range(20):  # each time another text, because verdicts are remembered
            is_clean_statement(head + text[: len(text) // 20] + str(number))

    assert growth_of_effort(judge, piece) < 24
