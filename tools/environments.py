"""Make virtual environments with millpond installed in them, below ``.venvs``, and only when something has changed.

Rules: whatever is missing is installed, and said so, or asked for by name; where packages come from is the machine's
own configuration. The package is installed editable: a change of its sources needs no new installation, one of
``pyproject.toml`` does, and one of what is compiled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tools import system
from tools.interpreters import Interpreter
from tools.system import ROOT, SetupFailed

FOLDER = ROOT / ".venvs"
COMPILED_PART = ROOT / "src" / "millpond" / "_compiled_pair.c"
COMPILED = "MILLPOND_COMPILED"  # the environment variable, at installation and afterwards: its values
REQUIRE, WITHOUT = "require", "no"
_MADE_OF = (ROOT / "pyproject.toml", ROOT / "hatch_build.py", COMPILED_PART)
_SYSTEMS_PYTHON = Path("/usr/bin/python3")
_PIP_PACKAGE = "python3-pip-whl"  # Debian's and Ubuntu's: pip, as the file that ensurepip would install
_WHEELS = "usr/share/python-wheels"  # where that package puts it
_DISTUTILS_PACKAGE = "python3-distutils"  # Ubuntu's, up to 22.04
_one_fetches = threading.Lock()


def current() -> Interpreter:
    """Return the interpreter that runs this."""
    major, minor, micro = sys.version_info[:3]
    return Interpreter(sys.executable, f"{major}.{minor}", f"{major}.{minor}.{micro}")


def make(name: str, interpreter: Interpreter, *requirements: str, compiled: bool = False) -> Path:
    """Return the Python of the environment *name*, made or brought up to date with *requirements*.

    Args:
        name: of its folder.
        interpreter: what it is made with.
        requirements: what pip is to install.
        compiled: millpond's compiled part must be there; otherwise it is where that is possible.

    Raises:
        SetupFailed: it could not be made; the message ends with what the failing command said.
    """
    folder = FOLDER / name
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = fingerprint(interpreter, requirements, compiled=compiled)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        built = COMPILED_PART.with_name(COMPILED_PART.stem + _suffix_of_modules(python))
        if is_up_to_date(built, COMPILED_PART, needed=compiled):
            return python
    if folder.exists():
        shutil.rmtree(folder)
    _make_empty(interpreter, folder)
    # Compiled is what is imported, when it is: the rest of what is installed is a third of the time that pip takes.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    system.call([*(["env", f"{COMPILED}={REQUIRE}"] if compiled else []), *pip, *requirements])
    stamp.write_text(wanted)
    return python


def fingerprint(
    interpreter: Interpreter,
    requirements: Sequence[str],
    *,
    compiled: bool,
    made_of: Sequence[Path] = _MADE_OF,
    asked: str = os.environ.get(COMPILED, ""),
) -> str:
    """Return what changes with whatever an environment is made of; *asked* is what its user asked to have compiled."""
    told = f"{ROOT} {interpreter} {tuple(requirements)} {REQUIRE if compiled else asked}"
    return hashlib.sha256(told.encode() + b"".join(file.read_bytes() for file in made_of)).hexdigest()


def is_up_to_date(built: Path, source: Path, *, needed: bool) -> bool:
    """Say whether *built* is no older than its *source*; what is not there is up to date unless it is *needed*.

    All environments share what is compiled, beside its source: another one may have replaced it since, from another
    state of the project.
    """
    if not built.exists():
        return not needed
    return built.stat().st_mtime >= source.stat().st_mtime


def _suffix_of_modules(python: Path) -> str:
    tell = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
    return subprocess.run([python, "-c", tell], check=True, capture_output=True, text=True).stdout.strip()


def _make_empty(interpreter: Interpreter, folder: Path) -> None:
    """Make an environment with pip in it, also where a distribution has taken ensurepip out of its Python."""
    if not _can_make_venvs(interpreter):
        if Path(interpreter.path).resolve() == _SYSTEMS_PYTHON.resolve():
            make_from_wheel(interpreter, folder, pip_wheel())
            return
        system.install(
            [f"python{interpreter.version}-venv"],
            why=f"{interpreter.path} cannot make virtual environments: its ensurepip module is missing",
            mended=lambda: _can_make_venvs(interpreter),
        )
    system.call([interpreter.path, "-m", "venv", str(folder)])


def _can_make_venvs(interpreter: Interpreter) -> bool:
    return system.succeeds([interpreter.path, "-c", "import ensurepip, venv"])


def make_from_wheel(interpreter: Interpreter, folder: Path, pip: Path) -> None:
    """Make an environment in *folder* without ensurepip: *pip*, a wheel, is run from its file to install itself.

    Ubuntu 22.04 takes distutils out of its Python as well, and the pip that it keeps does not run without: with what is
    missing beside it, it installs a newer one.
    """
    system.call([interpreter.path, "-m", "venv", "--without-pip", str(folder)])
    run_pip = [str(folder / "bin" / "python"), str(pip / "pip")]
    if system.succeeds([*run_pip, "--version"]):
        system.call([*run_pip, "install", "--quiet", "--no-index", str(pip)])
    else:
        library = _fetched(_DISTUTILS_PACKAGE) / f"usr/lib/python{interpreter.version}"
        (library / "distutils" / "__init__.py").touch()  # makes it a package of its own: the system's has only this
        system.call(["env", f"PYTHONPATH={library}", *run_pip, "install", "--quiet", "pip>=23"])


def pip_wheel(system_folder: Path = Path("/")) -> Path:
    """Return pip as a wheel for the system's Python: below *system_folder*, else fetched by apt, without root.

    Raises:
        SetupFailed: there is no apt-get, or it cannot get the package.
    """
    wheels = sorted((system_folder / _WHEELS).glob("pip-*.whl"))
    return wheels[-1] if wheels else next((_fetched(_PIP_PACKAGE) / _WHEELS).glob("pip-*.whl"))


def _fetched(package: str) -> Path:
    """Return the folder into which *package* is unpacked, beside the environments; fetch it if it is not there."""
    unpacked = FOLDER / package
    with _one_fetches:
        if not unpacked.exists():
            print(f"This Python comes without pip: fetching {package} with apt-get, into {unpacked}", flush=True)
            _fetch_package(package, unpacked)
    return unpacked


def _fetch_package(package: str, into: Path) -> None:
    """Have apt download *package* with a state of its own, and unpack it: nothing on the system is changed."""
    if shutil.which("apt-get") is None:
        raise SetupFailed("This Python cannot make virtual environments: install its ensurepip and venv modules.")
    into.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as aside:
        for name in ("lists", "cache"):
            (Path(aside) / name / "partial").mkdir(parents=True)
        settings = {
            "Dir::State::lists": f"{aside}/lists",
            "Dir::Cache": f"{aside}/cache",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
        }
        apt = ["apt-get", "-q", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
        system.call([*apt, "update"])
        try:
            system.call([*apt, "download", package], folder=Path(aside))
        except SetupFailed as failure:
            remedy = f"Ubuntu has {package} in its component universe, which apt's sources have to name."
            raise SetupFailed(f"{failure}\n{remedy}") from None
        (downloaded,) = Path(aside).glob("*.deb")
        system.call(["dpkg-deb", "--extract", str(downloaded), f"{aside}/tree"])
        Path(aside, "tree").rename(into)


def ensure_compiles(interpreter: Interpreter) -> None:
    """See to it that *interpreter* can build millpond's compiled part.

    Raises:
        SetupFailed: a compiler, the C library's headers or Python's are missing, and cannot be installed.
    """
    if not _compiles(interpreter):
        system.install(
            ["gcc", "libc6-dev", *_headers_of(interpreter)],
            why="millpond has a part that is compiled, and something that it takes is missing",
            mended=lambda: _compiles(interpreter),
        )


def ensure_compiles_mysqlclient(interpreter: Interpreter) -> None:
    """See to it that *interpreter* can build mysqlclient as well, which has no wheels for Linux.

    Raises:
        SetupFailed: a compiler, the client library or Python's headers are missing, and cannot be installed.
    """
    if not _compiles_mysqlclient(interpreter):
        system.install(
            ["gcc", "libc6-dev", "pkg-config", "libmariadb-dev", *_headers_of(interpreter)],
            why="mysqlclient has to be compiled, and something that it takes is missing",
            mended=lambda: _compiles_mysqlclient(interpreter),
        )


def _compiles_mysqlclient(interpreter: Interpreter) -> bool:
    libraries = ("mysqlclient", "mariadb", "libmariadb", "perconaserverclient")  # as its own build looks for them
    has_library = any(system.succeeds(["pkg-config", "--exists", library]) for library in libraries)
    return has_library and _compiles(interpreter)


def _compiles(interpreter: Interpreter) -> bool:
    """Have a file compiled that has nothing in it but Python's headers, and with them those of the C library."""
    return system.succeeds(
        ["gcc", "-fsyntax-only", f"-I{_folder_of_headers(interpreter)}", "-include", "Python.h", "-x", "c", os.devnull]
    )


def _headers_of(interpreter: Interpreter) -> list[str]:
    """Return the package with the headers of *interpreter*, if they are not there."""
    there = (_folder_of_headers(interpreter) / "Python.h").exists()
    return [] if there else [f"python{interpreter.version}-dev"]


def _folder_of_headers(interpreter: Interpreter) -> Path:
    tell = "import sysconfig; print(sysconfig.get_path('include'))"
    said = subprocess.run([interpreter.path, "-c", tell], check=True, capture_output=True, text=True).stdout
    return Path(said.strip())
