"""Control nodes whose clock is wrong, and remains so in every Python that they start."""

from __future__ import annotations

from pathlib import Path

#: Read by every Python that finds it.
WRONG_CLOCK = """
import datetime, time
seconds, real = time.time, datetime.datetime
time.time = lambda: seconds() + {hours} * 3600
def now(cls, tz=None):
    return cls.fromtimestamp(time.time(), tz)
def utcnow(cls):
    return now(cls, datetime.timezone.utc).replace(tzinfo=None)
wrong = {{"now": classmethod(now), "utcnow": classmethod(utcnow)}}
datetime.datetime = type("datetime.datetime", (real,), wrong)  # its name is part of what repr() says
"""


def wrong_clock(folder: Path, hours: float) -> dict[str, str]:
    """Return an environment in which it is so many hours later than it is."""
    place = folder / f"clock{hours:+g}"
    place.mkdir()
    (place / "sitecustomize.py").write_text(WRONG_CLOCK.format(hours=hours))
    return {"PYTHONPATH": str(place)}
