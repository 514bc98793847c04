"""Prepare what a scratch server needs before it starts: options, a data folder, certificates.

Why: making MySQL's system tables takes seconds and copying them hundredths of a second, so they are made once for
each server program and kept in the cache folder; tests can then afford a server of their own.

Rules: a prepared folder is complete when it has its final name, is never written again, and holds no secret.
It must not start servers that listen (``servers.py`` does).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from millpond.testing._server_binaries import AnyKind, ServerBinary, locked

OptionValue = str | int | float | bool | None

# What makes a scratch server small and quick. Measured on MariaDB 10.11 and MySQL 9.7: "nosync" takes a quarter
# off the start, and what a commit wrote still survives SIGKILL, because the kernel has it. "loose" is for versions that
# do not know an option: they warn and go on.
COMMON_OPTIONS: dict[str, OptionValue] = {
    "skip_name_resolve": True,
    "log_bin": False,
    "performance_schema": "OFF",
    "loose_innodb_flush_method": "nosync",
    "loose_innodb_flush_log_at_trx_commit": 2,
    "loose_innodb_buffer_pool_load_at_startup": "OFF",
    "loose_innodb_buffer_pool_dump_at_shutdown": "OFF",
}
KIND_OPTIONS: dict[AnyKind, dict[str, OptionValue]] = {
    "mariadb": {"loose_innodb_buffer_pool_size": "16M", "loose_innodb_log_file_size": "10M"},
    "mysql": {
        "loose_innodb_buffer_pool_size": "32M",
        "loose_innodb_doublewrite": "OFF",
        "loose_innodb_redo_log_capacity": "8M",
        "loose_mysqlx": "OFF",
        "secure_file_priv": "NULL",  # the built-in default names a folder that only a system-wide installation has
    },
}


class ServerFailed(RuntimeError):
    """Tell that a server did not start, stop or stay; the message ends with the last lines of its log."""


# ---- command lines


def base_command(binary: ServerBinary) -> list[str]:
    command = [*binary.command, "--no-defaults"]
    if os.geteuid() == 0:
        command.append("--user=root")  # both kinds refuse to run as root unless told by name
    if binary.private:
        share = binary.share
        command += [
            f"--basedir={binary.prefix}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            f"--plugin-dir={_plugin_folder(binary)}",
        ]
    return command


def _plugin_folder(binary: ServerBinary) -> Path:
    candidates = [binary.prefix / "lib" / name / "plugin" for name in (binary.kind, "mysql", "mariadb")]
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])


def as_arguments(settings: Mapping[str, OptionValue]) -> list[str]:
    arguments: list[str] = []
    for name, value in settings.items():
        dashed = name.replace("_", "-")
        if value is True:
            arguments.append(f"--{dashed}")
        elif value is False:
            arguments.append(f"--skip-{dashed}")
        elif value is not None:
            arguments.append(f"--{dashed}={value}")
    return arguments


def sql_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


# ---- data folders, prepared once for each server program


def prepared_data(binary: ServerBinary) -> Path:
    """Return a folder with the system tables and a root without password, made at the first call for this program.

    Making one takes seconds, copying it hundredths of a second.
    """
    arguments = as_arguments({**COMMON_OPTIONS, **KIND_OPTIONS[binary.kind], "skip_name_resolve": None})
    state = repr((binary.path, binary.path.stat().st_mtime_ns, arguments, "format 1"))
    name = f"data-{binary.kind}-{binary.version}-{hashlib.sha256(state.encode()).hexdigest()[:12]}"
    with locked(name) as cache:
        final = cache / name
        if final.is_dir():
            return final
        with tempfile.TemporaryDirectory(prefix=".data-", dir=cache) as aside:
            data = Path(aside) / "data"
            data.mkdir(mode=0o700)
            command = [*base_command(binary), *arguments, f"--datadir={data}"]
            if binary.kind == "mysql":
                _run_initializer([*command, "--initialize-insecure"], b"")
            else:
                _run_initializer(
                    [*command, "--bootstrap", "--enforce-storage-engine="], _mariadb_system_tables(binary.share)
                )
            data.rename(final)
        return final


def _run_initializer(command: list[str], statements: bytes) -> None:
    done = subprocess.run(command, input=statements, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stdout.decode(errors="replace").splitlines()[-15:])
        raise ServerFailed(f"preparing an empty data folder failed with {done.returncode}\n{tail}")


def _mariadb_system_tables(share: Path) -> bytes:
    """Return what MariaDB's mariadb-install-db feeds to ``--bootstrap``, less help texts and the anonymous user."""
    parts = [
        b"CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\nSET @skip_auth_anonymous=1;\n"
    ]
    for stem in ("system_tables", "performance_tables", "system_tables_data", "sys_schema"):
        candidates = [share / f"{prefix}_{stem}.sql" for prefix in ("mariadb", "mysql")]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise ServerFailed(
                f"MariaDB's {candidates[0].name} is not in {share}: install the package mariadb-server-core in full"
            )
        parts.append(found.read_bytes())
    return b"\n".join(parts)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a data folder; with the cp of Linux its holes stay holes, which halves the time."""
    if sys.platform.startswith("linux"):
        subprocess.run(
            ["cp", "-R", "--sparse=always", "--reflink=auto", "--preserve=mode", str(source), str(target)], check=True
        )
    else:
        shutil.copytree(source, target)


# ---- certificates


_AUTHORITY_SETTINGS = """\
[req]
distinguished_name=name
x509_extensions=extensions
[name]
[extensions]
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
"""
_SERVER_EXTENSIONS = """\
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
subjectAltName=IP:127.0.0.1,DNS:localhost
"""


def make_certificates(folder: Path) -> None:
    """Make an authority and a server certificate for 127.0.0.1 and localhost.

    Python 3.13 verifies strictly, so both carry the extensions that RFC 5280 asks for.
    """
    if shutil.which("openssl") is None:
        raise ServerFailed("tls=True needs the openssl command: install the package openssl")
    folder.mkdir(mode=0o700)
    (folder / "ca.cnf").write_text(_AUTHORITY_SETTINGS)
    (folder / "server.ext").write_text(_SERVER_EXTENSIONS)
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256", "-config", "ca.cnf")
    _openssl(
        folder,
        "req",
        "-x509",
        *new_key,
        "-days",
        "3650",
        "-subj",
        "/CN=millpond scratch authority",
        "-keyout",
        "ca-key.pem",
        "-out",
        "ca.pem",
    )
    _openssl(
        folder, "req", "-new", *new_key, "-subj", "/CN=localhost", "-keyout", "server-key.pem", "-out", "server.csr"
    )
    signing = (
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca-key.pem",
        "-set_serial",
        str(secrets.randbits(63) + 1),
        "-days",
        "3650",
        "-sha256",
    )
    _openssl(folder, "x509", "-req", "-in", "server.csr", *signing, "-extfile", "server.ext", "-out", "server-cert.pem")


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"openssl {arguments[0]} failed with {done.returncode}: {done.stderr.strip()[-500:]}")
