"""What the sanitizers find is seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hatch_build import PACKAGE, REQUIRE, SOURCE, build, put_into
from tools.sanitized import FLAGS, library, sanitizing, told
from tools.system import SetupFailed

# A module that, when it is imported, does what is put into it.
C = """
#include <Python.h>
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_compiled_pair", .m_size = 0};
static volatile int five = 5;
PyMODINIT_FUNC
PyInit__compiled_pair(void)
{
    PyObject *made = PyModule_Create(&definition);
    %s
    return made;
}
"""


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        (
            "PyObject *gone = PyBytes_FromString(__FILE__); Py_DECREF(gone); five = (int)Py_REFCNT(gone);",
            "heap-use-after-free",
        ),
        ("int few[4] = {0}; few[five] = 1; five = few[five - 2];", "AddressSanitizer: ILL"),
    ],
)
def test_a_planted_fault_is_found(fault: str, finding: str, tmp_path: Path) -> None:
    """An object that is looked at when it is gone, and a place behind an array, end the process and are told."""
    (tmp_path / PACKAGE).mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    (tmp_path / SOURCE).write_text(C % fault)
    put_into(tmp_path / PACKAGE, build(tmp_path, tmp_path / "folder", REQUIRE, FLAGS))
    findings = tmp_path / "findings"
    findings.mkdir()
    environment = {**os.environ, **sanitizing(tmp_path / "src", findings)}
    command = [sys.executable, "-c", "import millpond._compiled_pair"]
    answer = subprocess.run(command, check=False, env=environment, cwd=tmp_path)
    assert 0 != answer.returncode
    assert finding in told(findings)


def test_a_sanitizer_that_is_missing_is_named() -> None:
    """A library that the compiler has not is told by its name."""
    with pytest.raises(SetupFailed, match=r"gcc has no libnosuch\.so"):
        library("libnosuch.so")
