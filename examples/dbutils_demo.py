"""The program of ApsaraDB RDS' help page on connection pools in Python, on the drop-in: one import is changed.

    python examples/dbutils_demo.py HOST USER PASSWORD DATABASE [PORT]

It is kept as programs copied from there are, weaknesses included: errors are printed and None is returned, ``charset``
is the three-byte utf8, ``db`` is an old name, SQL is put together by hand.  The drop-in runs it, and warns of what it
can see.  What it would look like today, and what changes by it, is in ``database_demo.py``.
"""

import sys

import pymysql

from millpond.dbutils.pooled_db import PooledDB  # the page: from dbutils.pooled_db import PooledDB


class DBUtilsDemo:
    """Reads and writes by a pool."""

    def __init__(self, url, user, password, database, port=3306):
        db_config = {
            "host": url,
            "port": port,
            "user": user,
            "db": database,
            "password": password,
            "charset": "utf8",
            "connect_timeout": 3,
            "read_timeout": 10,
            "write_timeout": 10,
        }
        # At most 20 idle connections, at most 100 in all, each replaced after 20 statements.
        self.pooled = PooledDB(pymysql, maxcached=20, maxconnections=100, maxusage=20, **db_config)

    def _connect(self):
        """Take a connection."""
        try:
            return self.pooled.connection()
        except Exception as e:
            print("Failed to connect:", e)

    def _close(self, conn, stmt):
        """Give it back."""
        if stmt is not None:
            stmt.close()
        if conn is not None:
            conn.close()

    def select_row(self, sql):
        """Read one row."""
        connection = self._connect()
        statement = None
        try:
            statement = connection.cursor()
            statement.execute(sql)
            return statement.fetchone()
        except Exception as e:
            print(e)
        finally:
            self._close(connection, statement)

    def select_rows(self, sql):
        """Read rows."""
        connection = self._connect()
        statement = None
        try:
            statement = connection.cursor()
            statement.execute(sql)
            return statement.fetchall()
        except Exception as e:
            print(e)
        finally:
            self._close(connection, statement)

    def upsert_data(self, sql):
        """Write."""
        connection = self._connect()
        statement = None
        try:
            statement = connection.cursor()
            statement.execute(sql)
            connection.commit()
        except Exception as e:
            print(e)
        finally:
            self._close(connection, statement)

    def upsert_data_prams(self, sql, params):
        """Write, with parameters."""
        connection = self._connect()
        statement = None
        try:
            statement = connection.cursor()
            statement.execute(sql, params)
            connection.commit()
        except Exception as e:
            print(e)
        finally:
            self._close(connection, statement)


if __name__ == "__main__":
    host, user, password, database, *rest = sys.argv[1:]
    demo = DBUtilsDemo(host, user, password, database, *map(int, rest))
    demo.upsert_data("CREATE TABLE IF NOT EXISTS sell_test (name VARCHAR(64) PRIMARY KEY, price INT)")
    print(demo.select_row("SELECT 1"))
    demo.upsert_data("REPLACE INTO sell_test (name, price) VALUES ('tea', 3)")
    demo.upsert_data_prams("REPLACE INTO sell_test (name, price) VALUES (%s, %s)", ("rice", 5))
    print(demo.select_row("SELECT name, price FROM sell_test WHERE name = 'rice'"))
    for row in demo.select_rows("SELECT name, price FROM sell_test ORDER BY name"):
        print(row)
