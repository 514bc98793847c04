"""Servers are found as what they are, and their packages asked for where the machine's own apt sources point."""

from __future__ import annotations

from pathlib import Path

import pytest

from millpond.testing import _server_binaries as binaries
from millpond.testing._ports import choose_port

STANZA = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/some-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://vendor.example/packages
Suites: nodistro
Components: main
Enabled: no
"""

LINES = """\
# deb http://off.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb http://vendor.example/apt bookworm stable
deb http://vendor.example/other bookworm main
deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm main contrib # a comment
deb http://mirror.example/debian bookworm-backports main
deb http://flat.example/ ./
"""


def fake_server(path: Path, version_line: str) -> Path:
    """Make a program that answers ``--version`` with this line, with a share folder beside it."""
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{version_line}'\n")
    path.chmod(0o755)
    (path.parent.parent / "share" / "mysql" / "charsets").mkdir(parents=True)
    return path


def test_stanzas_are_turned_to_another_suite(tmp_path: Path) -> None:
    """Address and key stay as they are; security, disabled and foreign entries are left out."""
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(STANZA)
    (folder / "debian.sources.save").write_text(STANZA)
    (source,) = binaries.entries_for_suite("unstable", tmp_path)
    assert ".sources" == source.suffix
    assert {
        "Types: deb",
        "URIs: http://mirror.example/debian",
        "Suites: unstable",
        "Components: main",
        "Signed-By: /usr/share/keyrings/some-archive-keyring.gpg",
    } == set(source.text.splitlines())


def test_lines_are_turned_to_another_suite(tmp_path: Path) -> None:
    """Options stay as they are, and the distribution's own mirror is asked first."""
    (tmp_path / "sources.list").write_text(LINES)
    assert [
        "deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian unstable main\n",
        "deb http://vendor.example/other unstable main\n",
    ] == [source.text for source in binaries.entries_for_suite("unstable", tmp_path)]


def test_no_sources_at_all(tmp_path: Path) -> None:
    """A machine without apt's files has nowhere to ask."""
    assert [] == binaries.entries_for_suite("unstable", tmp_path)


@pytest.mark.parametrize(
    ("line", "kind", "version"),
    [
        ("mysqld  Ver 8.0.36-0ubuntu0.22.04.1 for Linux on x86_64 ((Ubuntu))", "mysql", "8.0.36"),
        ("mysqld  Ver 5.7.44 for Linux on x86_64 (MySQL Community Server (GPL))", "mysql", "5.7.44"),
        ("mysqld  Ver 10.5.23-MariaDB-0+deb11u1 for debian-linux-gnu on x86_64 (Debian 11)", "mariadb", "10.5.23"),
    ],
)
def test_a_program_is_what_it_says(tmp_path: Path, line: str, kind: binaries.Kind, version: str) -> None:
    """Kind and version come from the program's own word, not from its name."""
    found = binaries.server_at(fake_server(tmp_path / "usr" / "sbin" / "mysqld", line), kind)
    assert (kind, version) == (found.kind, found.version)
    assert tmp_path / "usr" / "share" / "mysql" == found.share
    other: binaries.Kind = "mysql" if kind == "mariadb" else "mariadb"
    with pytest.raises(binaries.ServerMissing, match=f"is {kind} {version}, not {other}"):
        binaries.server_at(found.path, other)


def test_postgresql_is_asked_in_its_own_way(tmp_path: Path) -> None:
    """Its version has two numbers, and it knows no option of the others'."""
    path = tmp_path / "lib" / "postgresql" / "15" / "bin" / "postgres"
    path.parent.mkdir(parents=True)
    path.write_text('#!/bin/sh\n[ "$*" = --version ] && echo "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"\n')
    path.chmod(0o755)
    found = binaries.server_at(path, "postgresql")
    assert ("postgresql", (15, 18)) == (found.kind, found.version_info)
    with pytest.raises(binaries.ServerMissing, match=r"is postgresql 15\.18, not mysql"):
        binaries.server_at(path, "mysql")


def test_root_keeps_postgresql_where_others_can_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It refuses to run as root, and nobody else can look into root's home; a folder that was named is that."""
    monkeypatch.delenv("MILLPOND_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for user, below in ((0, Path("/var/cache/millpond")), (1000, tmp_path / ".cache" / "millpond")):
        monkeypatch.setattr("os.geteuid", lambda user=user: user)
        assert below / "postgresql" == binaries.tree_of("postgresql")
        assert tmp_path / ".cache" / "millpond" / "mysql" == binaries.tree_of("mysql")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("MILLPOND_CACHE", str(tmp_path / "named"))
    assert tmp_path / "named" / "postgresql" == binaries.tree_of("postgresql")


def test_a_program_that_is_no_server(tmp_path: Path) -> None:
    """A program that says something else is no server."""
    with pytest.raises(binaries.ServerMissing, match="is not a MariaDB, MySQL or PostgreSQL server that runs here"):
        binaries.server_at(fake_server(tmp_path / "usr" / "sbin" / "mysqld", "hello"), "mysql")


def test_the_cache_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MILLPOND_CACHE wins over the home folder, and one that cannot be written is named in the error."""
    monkeypatch.setenv("MILLPOND_CACHE", str(tmp_path / "here"))
    assert tmp_path / "here" == binaries.cache_folder()
    monkeypatch.delenv("MILLPOND_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path / ".cache" / "millpond" == binaries.cache_folder()
    (tmp_path / "file").touch()
    monkeypatch.setenv("MILLPOND_CACHE", str(tmp_path / "file"))
    with pytest.raises(binaries.InstallFailed, match="MILLPOND_CACHE"), binaries.locked("test"):
        pass


def test_without_apt_nothing_can_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a system without apt the error says that, and what to do instead."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MILLPOND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MILLPOND_MYSQLD", str(tmp_path / "nothing"))
    with pytest.raises(binaries.InstallFailed, match=r"apt-get is not here.*MILLPOND_MYSQLD"):
        binaries.install(["mysql"])


def test_chosen_ports_are_not_the_kernels_own() -> None:
    """Ports chosen lie below those that the kernel gives to outgoing connections."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(50):
        assert 1024 <= choose_port() < first_ephemeral
