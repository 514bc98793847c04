"""Find MariaDB, MySQL and PostgreSQL server programs on this machine, and fetch the ones that are missing.

Why: tests of a connection pool are worth what the servers behind them are worth, and Linux distributions install
either MariaDB or MySQL, never both, and with PostgreSQL a cluster that is started. So a server may also live in
millpond's own cache folder, unpacked from the distribution's packages and run with the libraries that came with it.

Rules:
- A program is what its ``--version`` says: on Debian ``mysqld`` is MariaDB.
- Fetching needs no root, changes nothing outside the cache folder and starts nothing: apt resolves and downloads with
  a private state, dpkg-deb unpacks.
- The mirror and its signing key are the machine's own, read from its apt configuration. No host name is written here.
- What appears under its final name is complete: it was built aside and renamed under a lock.

It must not start servers (``servers.py`` does), nor import anything outside the standard library.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["mariadb", "mysql"]
AnyKind = Literal["mariadb", "mysql", "postgresql"]
MYSQL_KINDS: tuple[Kind, ...] = ("mariadb", "mysql")
KINDS: tuple[AnyKind, ...] = (*MYSQL_KINDS, "postgresql")

_PROGRAM_NAMES: dict[AnyKind, tuple[str, ...]] = {
    "mariadb": ("mariadbd", "mysqld"),
    "mysql": ("mysqld",),
    "postgresql": ("postgres",),
}
_OVERRIDES: dict[AnyKind, str] = {
    "mariadb": "MILLPOND_MARIADBD",
    "mysql": "MILLPOND_MYSQLD",
    "postgresql": "MILLPOND_POSTGRES",
}
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin", "/usr/local/bin")
# PostgreSQL's server is on no PATH: each version has a folder of its own.
_POSTGRESQL_FOLDERS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/pgsql/bin")
# The names that a server's package has in Debian and Ubuntu, as apt-cache searches for them.
_PACKAGES: dict[AnyKind, str] = {
    "mariadb": "^mariadb-server-core",
    "mysql": "^mysql-server-core",
    "postgresql": "^postgresql-[0-9]+$",
}

# Perl comes along only for helper scripts that a private tree never runs; leaving it out saves a third of the room.
_UNUSED_PACKAGES = re.compile(r"(perl|libperl|gcc-\d+-base|libc-gconv)")
# PostgreSQL is of this machine's own release, so its C library is there; LLVM is for its just-in-time compiler alone.
_UNUSED_BY_POSTGRESQL = re.compile(r"(libc6|libc-bin|libllvm|libz3|locales|libc-l10n|tzdata|dpkg|tar|passwd)")
_ENV = "/usr/bin/env"
_ROOTS_CACHE = Path("/var/cache/millpond")  # PostgreSQL refuses to run as root, and others cannot look into root's home


class ServerMissing(RuntimeError):
    """Tell that no server of the wanted kind is on this machine, and how to get one; the machine's fault."""


class InstallFailed(RuntimeError):
    """Tell that a server's packages could not be fetched or unpacked, with the last words of the tool that failed."""


@dataclass(frozen=True)
class ServerBinary:
    """Describe one server program that was found.

    ``command`` is how to run it (a loader and its arguments may come first), ``prefix`` the folder below which its
    ``share`` and ``lib`` folders lie, ``private`` whether it lives in millpond's cache folder and so needs to be told
    where those are.
    """

    kind: AnyKind
    version: str
    command: tuple[str, ...]
    path: Path
    prefix: Path
    private: bool

    @property
    def version_info(self) -> tuple[int, ...]:
        """Return the version as numbers, to compare with."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def share(self) -> Path:
        """Return the folder of error messages, character sets and (MariaDB) the SQL that makes the system tables."""
        candidates = [self.prefix / "share" / name for name in (self.kind, "mysql", "mariadb", "")]
        for folder in candidates:
            if (folder / "charsets").is_dir():
                return folder
        raise ServerMissing(f"{self.path} has no share folder beside it (looked in {', '.join(map(str, candidates))})")


def cache_folder() -> Path:
    """Return the folder of servers and prepared data: ``$MILLPOND_CACHE``, else ``~/.cache/millpond``."""
    named = os.environ.get("MILLPOND_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "millpond"


def tree_of(kind: AnyKind) -> Path:
    """Return the folder of a fetched server."""
    if kind == "postgresql" and os.name == "posix" and os.geteuid() == 0 and not os.environ.get("MILLPOND_CACHE"):
        return _ROOTS_CACHE / kind
    return cache_folder() / kind


def install_remedy(kind: AnyKind) -> str:
    """Return the sentence that says how to get a server of this kind."""
    package = {
        "mariadb": "mariadb-server-core (or mariadb-server, as your system calls it)",
        "mysql": "mysql-server-core (or mysql-server, as your system calls it)",
        "postgresql": "postgresql",
    }[kind]
    return (
        f"Run: python -m millpond.testing.servers install {kind} (no root needed; Debian and Ubuntu), "
        f"or install the package {package}, or name the program in {_OVERRIDES[kind]}."
    )


def find_server(kind: AnyKind) -> ServerBinary:
    """Return a server of this kind: the one named in the environment, else the system's, else the cache folder's.

    Raises:
        ValueError: there is no such kind.
        ServerMissing: there is none; the message says which package or command brings it.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; allowed are {', '.join(map(repr, KINDS))}")
    named = os.environ.get(_OVERRIDES[kind])
    if named:
        return server_at(Path(named), kind)
    for path in _system_candidates(kind):
        found = _describe(path)
        if found is not None and found.kind == kind:
            return found
    tree = tree_of(kind)
    found = _describe_tree(tree)
    if found is not None:
        return found
    raise ServerMissing(
        f"no {kind} server on this machine (looked on PATH, in {', '.join(_system_folders(kind))} and in {tree}). "
        f"{install_remedy(kind)}"
    )


def server_at(path: Path, kind: AnyKind) -> ServerBinary:
    """Return the description of the program at ``path``, which must be a server of this kind.

    Raises:
        ServerMissing: it is not there, does not run, or is of the other kind.
    """
    found = _describe(path.absolute())
    if found is None:
        raise ServerMissing(
            f"{path} is not a MariaDB, MySQL or PostgreSQL server that runs here. {install_remedy(kind)}"
        )
    if found.kind != kind:
        raise ServerMissing(f"{path} is {found.kind} {found.version}, not {kind}. {install_remedy(kind)}")
    return found


def _system_folders(kind: AnyKind) -> list[str]:
    if kind != "postgresql":
        return [*_SYSTEM_FOLDERS]
    found = [folder for pattern in _POSTGRESQL_FOLDERS for folder in Path("/").glob(pattern)]
    newest_first = sorted(found, key=lambda folder: _numbers(str(folder)), reverse=True)
    return [*map(str, newest_first)] or [f"/{pattern}" for pattern in _POSTGRESQL_FOLDERS]


def _system_candidates(kind: AnyKind) -> Iterator[Path]:
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *_system_folders(kind)]
    for name in _PROGRAM_NAMES[kind]:
        for folder in dict.fromkeys(folders):
            candidate = Path(folder) / name
            if folder and os.access(candidate, os.X_OK) and candidate.is_file():
                yield candidate


def _describe(path: Path) -> ServerBinary | None:
    if not path.is_file():
        return None
    return _ask((str(path),), path, path.resolve().parent.parent, private=False, state=path.stat().st_mtime_ns)


def _describe_tree(tree: Path) -> ServerBinary | None:
    for path in sorted(tree.glob("usr/lib/postgresql/*/bin/postgres")):
        with_libraries = (_ENV, f"LD_LIBRARY_PATH={os.pathsep.join(_library_folders(tree))}", str(path))
        return _ask(with_libraries, path, path.parent.parent, private=True, state=path.stat().st_mtime_ns)
    for name in ("mariadbd", "mysqld"):
        path = tree / "usr" / "sbin" / name
        if path.is_file():
            return _ask((*_loader(tree), str(path)), path, tree / "usr", private=True, state=path.stat().st_mtime_ns)
    return None


@functools.lru_cache(maxsize=32)
def _ask(command: tuple[str, ...], path: Path, prefix: Path, private: bool, state: int) -> ServerBinary | None:
    """Run ``--version``; asked once for each state of a file, since it costs tens of milliseconds."""
    del state  # only to be asked again when the file is another
    options = ["--version"] if path.name.startswith("post") else ["--no-defaults", "--version"]
    try:
        answer = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+(\.\d+)*)", answer.stdout)
    if match is not None:
        return ServerBinary("postgresql", match[1], command, path, prefix, private)
    match = re.search(r"\bVer (\d+\.\d+\.\d+)(\S*)", answer.stdout)
    if match is None:
        return None
    kind: Kind = "mariadb" if "mariadb" in answer.stdout.lower() else "mysql"
    return ServerBinary(kind, match[1], command, path, prefix, private)


def _loader(tree: Path) -> tuple[str, ...]:
    """Return the loader of the tree and the library folders it shall use.

    The tree may come from a newer distribution than the machine's, so its programs need the C library that came
    along. Running its own loader does that without chroot, so without root, and leaves every folder of the machine in
    sight.
    """
    loaders = [*tree.glob("usr/lib64/ld-linux*.so.*"), *tree.glob("lib64/ld-linux*.so.*")]
    loaders += [
        *tree.glob("usr/lib/ld-linux*.so.*"),
        *tree.glob("usr/lib/*/ld-linux*.so.*"),
        *tree.glob("lib/*/ld-linux*.so.*"),
    ]
    folders = [path.parent for pattern in ("usr/lib/*/libc.so.6", "lib/*/libc.so.6") for path in tree.glob(pattern)]
    folders += [folder / "private" for folder in (tree / "usr/lib/mysql",) if (folder / "private").is_dir()]
    folders += [tree / "usr/lib" / folder.name for folder in folders if (tree / "usr/lib" / folder.name).is_dir()]
    if not loaders or not folders:
        return ()
    return (str(loaders[0]), "--library-path", os.pathsep.join(dict.fromkeys(map(str, folders))))


def _library_folders(tree: Path) -> list[str]:
    """Return the folders of a tree's shared libraries."""
    libraries = [path for pattern in ("usr/lib/*/*.so.*", "lib/*/*.so.*") for path in tree.glob(pattern)]
    return [*dict.fromkeys(str(path.parent) for path in libraries)]


# ---- fetching what is missing


def install(kinds: Iterable[AnyKind]) -> list[ServerBinary]:
    """Make servers of these kinds be there, fetching only what is missing, and return them.

    Takes about twenty seconds for a server that has to be fetched and none for one that is there. Safe to run from
    several processes at once.

    Raises:
        InstallFailed: apt or dpkg are not there, or the packages cannot be had from the machine's mirrors.
    """
    found: list[ServerBinary] = []
    for kind in kinds:
        try:
            found.append(find_server(kind))
        except ServerMissing:
            found.append(_fetch(kind))
    return found


@contextlib.contextmanager
def locked(name: str, cache: Path | None = None) -> Generator[Path, None, None]:
    """Hold a lock between processes, named ``name``, and give the cache folder: millpond's own, unless one is named."""
    import fcntl  # not on Windows, where this module must still import

    cache = cache or cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(cache / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        problem = f"the cache folder {cache} cannot be written ({error}); name another in MILLPOND_CACHE"
        raise InstallFailed(problem) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield cache
    finally:
        os.close(descriptor)


def _fetch(kind: AnyKind) -> ServerBinary:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise InstallFailed(
                f"{tool} is not here, so {kind} cannot be fetched; install it the way of this system. "
                f"{install_remedy(kind)}"
            )
    final = tree_of(kind)
    with locked(f"install-{kind}", final.parent) as cache:
        if not final.exists():
            with tempfile.TemporaryDirectory(prefix=f".{kind}-", dir=cache) as aside:
                tree = Path(aside) / "tree"
                _unpack(kind, _download(kind, Path(aside) / "apt"), tree)
                if _describe_tree(tree) is None:
                    raise InstallFailed(
                        f"{kind} was unpacked to {tree}, but does not run: is it for another processor?"
                    )
                tree.rename(final)
    return find_server(kind)


def _unpack(kind: AnyKind, packages: list[Path], tree: Path) -> None:
    tree.mkdir()
    unused = [_UNUSED_PACKAGES, *([_UNUSED_BY_POSTGRESQL] if kind == "postgresql" else [])]
    for package in packages:
        if not any(pattern.match(package.name) for pattern in unused):
            _run(["dpkg-deb", "--extract", str(package), str(tree)])
    for name in ("doc", "man", "locale", "info"):
        shutil.rmtree(tree / "usr/share" / name, ignore_errors=True)
    for compiler in tree.glob("usr/lib/postgresql/*/lib/llvmjit*.so"):
        compiler.unlink()  # its library was left out; without it the server does not try


def _download(kind: AnyKind, state: Path) -> list[Path]:
    """Download the server's package and all that it needs, from the first source that has it."""
    complaints: list[str] = []
    for number, source in enumerate(_sources(kind)):
        apt = _PrivateApt(state / str(number), source)
        updated = apt.run("update")
        for package in apt.package_names(kind):
            fetched = apt.run("--yes", "--download-only", "--no-install-recommends", "install", package)
            if fetched.returncode == 0:
                return sorted(apt.archives.glob("*.deb"))
            complaints.append(fetched.stderr.strip()[-500:])
        complaints.append(updated.stderr.strip()[-500:])
    raise InstallFailed(
        f"no source of this machine's apt has a {kind} server. {install_remedy(kind)}\n"
        + "\n".join(filter(None, complaints))
    )


@dataclass(frozen=True)
class _Source:
    """An apt source to ask: the machine's own list as it is (no text), or one entry made from it."""

    suffix: str = ""
    text: str = ""


class _PrivateApt:
    """Run apt-get with a state of its own that knows no installed package, so that it fetches every library."""

    def __init__(self, folder: Path, source: _Source) -> None:
        self.archives = folder / "archives"
        for name in ("lists/partial", "archives/partial", "log", "empty"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        settings: dict[str, str | Path] = {
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder,
            "Dir::Cache::archives": self.archives,
            "Dir::Log": folder / "log",
            "Dir::Etc::preferencesparts": folder / "empty",
            "Dir::Etc::preferences": os.devnull,
            "APT::Sandbox::User": "",
            "APT::Keep-Downloaded-Packages": "true",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        if source.text:
            file = folder / f"only{source.suffix}"
            file.write_text(source.text)
            settings |= {"Dir::Etc::sourcelist": file, "Dir::Etc::sourceparts": folder / "empty"}
        # On the command line, because a file named in APT_CONFIG is read before the machine's own settings, which
        # would win.
        self._options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        self._environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}

    def run(self, *arguments: str, program: str = "apt-get") -> subprocess.CompletedProcess[str]:
        command = [program, "-q", *self._options, *arguments]
        nothing = subprocess.DEVNULL
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, stdin=nothing, check=False
        )

    def package_names(self, kind: AnyKind) -> list[str]:
        """Return the names this source may have the server under, best first: some have the version in them."""
        listed = self.run("--names-only", "search", _PACKAGES[kind], program="apt-cache").stdout
        names = [line.split()[0] for line in listed.splitlines() if line.strip()]
        return sorted(names, key=lambda name: (name == f"{kind}-server-core", _numbers(name)), reverse=True)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]


def _sources(kind: AnyKind) -> Iterator[_Source]:
    """Yield where to look: the machine's own sources or, for MySQL on Debian, the unstable suite of their mirror.

    Debian has MySQL in no other suite (its stable releases carry MariaDB), and a private tree brings its own C
    library, so the mix is harmless.
    """
    is_debian = _os_release().get("ID") == "debian"
    if kind != "mysql" or not is_debian:
        yield _Source()
        return
    entries = [*entries_for_suite("unstable", Path("/etc/apt"))]
    if not entries:
        raise InstallFailed(
            "no Debian mirror in /etc/apt/sources.list or sources.list.d, so MySQL cannot be fetched from it"
        )
    yield from entries


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def entries_for_suite(suite: str, apt_folder: Path) -> list[_Source]:
    """Return the machine's apt entries turned to another suite, with address, key and options kept, Debian's first."""
    files = [apt_folder / "sources.list", *sorted((apt_folder / "sources.list.d").glob("*"))]
    entries: list[_Source] = []
    for file in files:
        if file.suffix == ".list" and file.is_file():
            entries += _one_line_entries(file.read_text(), suite)
        elif file.suffix == ".sources" and file.is_file():
            entries += _stanza_entries(file.read_text(), suite)
    return sorted(dict.fromkeys(entries), key=lambda entry: re.search(r"/debian/?(\s|$)", entry.text) is None)


def _one_line_entries(text: str, suite: str) -> Iterator[_Source]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(\[[^\]]*\]\s+)?(\S+)\s+([^\s/#-]+)\s+([^#]*)", line)
        if match and "main" in match[4].split():
            yield _Source(".list", f"deb {match[1] or ''}{match[2]} {suite} main\n")


def _stanza_entries(text: str, suite: str) -> Iterator[_Source]:
    without_comments = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n[ \t]*\n", without_comments):
        fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t]+.*)*)", stanza, re.MULTILINE))
        named = {key.lower(): value.split() for key, value in fields.items()}
        plain_suites = [name for name in named.get("suites", []) if not re.search(r"[-/]", name)]
        if (
            "deb" not in named.get("types", [])
            or "main" not in named.get("components", [])
            or not plain_suites
            or named.get("enabled") == ["no"]
        ):
            continue
        kept = {key: value for key, value in fields.items() if key.lower() not in ("types", "suites", "components")}
        kept |= {"Types": "deb", "Suites": suite, "Components": "main"}
        yield _Source(".sources", "".join(f"{key}: {value}\n" for key, value in kept.items()))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise InstallFailed(f"{command[0]} failed with {done.returncode}: {done.stderr.strip()[-500:]}")
