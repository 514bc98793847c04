"""What the adapter of mysql-connector-python makes of settings; nothing connects here."""

from __future__ import annotations

from typing import Any

import pytest

from millpond.drivers import resolve
from millpond.drivers.mysqlconnector import SESSION_TRACK, arguments_of_mode, with_tracking
from millpond.errors import InvalidSetting


@pytest.mark.parametrize(
    ("mode", "given", "expected"),
    [
        ("disabled", {}, {"ssl_disabled": True}),
        ("preferred", {}, {}),
        ("required", {}, {}),
        ("verify-ca", {"ssl_ca": "/ca"}, {"ssl_verify_cert": True, "ssl_verify_identity": False}),
        ("verify-identity", {"ssl_ca": "/ca"}, {"ssl_verify_cert": True, "ssl_verify_identity": True}),
    ],
)
def test_words_for_tls_become_the_drivers_arguments(mode: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each word for TLS is what the driver has for it."""
    assert expected == arguments_of_mode(mode, given)


@pytest.mark.parametrize("mode", ["verify-ca", "verify-identity", "always"])
def test_words_that_the_driver_cannot_keep_are_refused(mode: str) -> None:
    """Verifying takes a file of authorities, and an unknown word is none."""
    with pytest.raises(InvalidSetting, match="ssl="):
        arguments_of_mode(mode, {})


def test_required_tls_is_refused_where_the_driver_would_go_on_without() -> None:
    """The C implementation goes on without TLS where the server has none: it cannot keep the word."""
    with pytest.raises(InvalidSetting, match="use_pure=False goes on without TLS"):
        resolve("mysql+mysqlconnector://u:p@h/d?ssl=required&use_pure=false")


def test_the_c_implementation_promises_less() -> None:
    """What it can be asked is told, and it cannot be polled."""
    driver = resolve("mysql+mysqlconnector://u:p@h/d?use_pure=false")
    assert "cannot" == driver.capabilities["cut"]
    assert driver.is_readable is None
    assert "its descriptor is shut down" == resolve("mysql+mysqlconnector://u:p@h/d").capabilities["cut"]


@pytest.mark.parametrize(
    ("flags", "expected"), [(None, [SESSION_TRACK]), ([1], [1, SESSION_TRACK]), (1, 1 | SESSION_TRACK)]
)
def test_session_tracking_is_added_to_client_flags(flags: Any, expected: Any) -> None:
    """Flags may be a number or a list, or nothing."""
    assert expected == with_tracking(flags)
