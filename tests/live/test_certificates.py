"""An authority that is renewed: the files that say whom to trust are read again when TLS has failed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.testing import ScratchServer

DEADLINE_S = 20.0


def url_of(server: ScratchServer, driver: str, authority: Path) -> str:
    """Return a URL that trusts who is named in a file."""
    address = server.url(tls=False).partition("?")[0].partition("://")[2]
    return f"mysql+{driver}://{address}?ssl=verify-ca&ssl_ca={authority}"


def certificate_of(server: ScratchServer) -> bytes:
    """Return the certificate of a server's authority."""
    return Path(str(server.ca_file)).read_bytes()


def until() -> float:
    """Return a deadline."""
    return time.monotonic() + DEADLINE_S


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient", "mysqlconnector"])
def test_a_renewed_authority_needs_no_new_pool(
    mariadb: ScratchServer, mysql: ScratchServer, tmp_path: Path, driver: str
) -> None:
    """A program whose file was replaced, as services ask for every few years, connects without being started anew."""
    authority = tmp_path / "authority.pem"
    authority.write_bytes(certificate_of(mysql))
    with millpond.Pool(url_of(mariadb, driver, authority)) as pool:
        with pytest.raises(Exception, match=r"(?i)certificate"):
            pool.driver.open(until())
        authority.write_bytes(certificate_of(mariadb))
        pool.driver.close(pool.driver.open(until()))


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
def test_a_renewed_authority_needs_no_new_pool_of_tasks(
    mariadb: ScratchServer, mysql: ScratchServer, tmp_path: Path, driver: str
) -> None:
    """As with threads; a file that cannot be read just now leaves the next dial as it was."""
    authority = tmp_path / "authority.pem"

    async def main() -> None:
        authority.write_bytes(certificate_of(mysql))
        async with millpond.AsyncPool(url_of(mariadb, driver, authority)) as pool:
            adapter: Any = pool.driver
            for content in (b"no authority", certificate_of(mariadb)):
                authority.write_bytes(content)
                with pytest.raises(Exception, match=r"(?i)certificate|2003"):
                    await adapter.open(until())
            ended = adapter.close(await adapter.open(until()))
            if ended is not None:
                await ended

    asyncio.run(main())
