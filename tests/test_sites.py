"""A place in a program, from what was noted about it."""

from __future__ import annotations

import sys

from millpond.sites import Site


def here() -> tuple[Site | None, int]:
    """Note this place, as the pool does."""
    frame = sys._getframe()
    site = Site.of(frame.f_code, frame.f_lasti)
    return site, frame.f_code.co_firstlineno + 3


def test_a_place_is_worked_out_from_code_and_instruction() -> None:
    """File, line and function are those of the instruction that was noted."""
    site, line = here()
    assert Site(__file__, line, "here") == site


def test_what_was_not_noted_is_no_place() -> None:
    """Without code there is nothing to say."""
    assert None is Site.of(None, 0)


def test_a_place_reads_as_an_editor_takes_it() -> None:
    """File and line with a colon between."""
    assert "app.py:12 in handler" == str(Site("app.py", 12, "handler"))


def test_the_caller_s_program_begins_outside_the_package() -> None:
    """The innermost frame that is not in the package; from here that is here."""
    site = Site.outside("millpond")
    assert site is not None
    assert (__file__, "test_the_caller_s_program_begins_outside_the_package") == (site.file, site.function)
