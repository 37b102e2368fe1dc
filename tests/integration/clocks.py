"""Clocks that are wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

#: For every Python that finds this text as its ``sitecustomize.py``, and none of whose compiled code minds.
SLOW_CLOCK = """
import datetime, time
seconds, real = time.time, datetime.datetime
time.time = lambda: seconds() - 7200
def now(cls, tz=None):
    return cls.fromtimestamp(time.time(), tz)
def utcnow(cls):
    return now(cls, datetime.timezone.utc).replace(tzinfo=None)
slow = {"now": classmethod(now), "utcnow": classmethod(utcnow)}
datetime.datetime = type("datetime.datetime", (real,), slow)  # its name is part of what repr() says
"""


def slow_clock() -> dict[str, str]:
    """Environment of a program whose clock is two hours slow; what it measures is right."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        reason = "Debian's package libfaketime is missing, which gives programs a clock of their own"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return {"LD_PRELOAD": str(libraries[0]), "FAKETIME": "-2h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
