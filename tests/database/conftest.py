"""A profile under which the tests that try to break out of a value try a hundred thousand times."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("break-out", max_examples=2_000)
