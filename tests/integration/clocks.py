"""Control nodes and workers whose clock is wrong, and remains so in every Python that they start."""

from __future__ import annotations

from pathlib import Path

#: Read by every Python that finds it. The class ``datetime`` must remain the one that compiled modules know,
#: so its methods are exchanged, which no Python code may do, in the dictionary behind it.
WRONG_CLOCK = """
import ctypes, datetime, gc, time
seconds = time.time
time.time = lambda: seconds() + {hours} * 3600
time.time_ns = lambda: int(time.time() * 1e9)
def now(cls, tz=None):
    return cls.fromtimestamp(time.time(), tz)
def utcnow(cls):
    return now(cls, datetime.timezone.utc).replace(tzinfo=None)
[methods] = (each for each in gc.get_referents(vars(datetime.datetime)) if isinstance(each, dict))
methods.update(now=classmethod(now), utcnow=classmethod(utcnow))
ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
"""


def wrong_clock(folder: Path, hours: float) -> dict[str, str]:
    """Return an environment in which it is so many hours later than it is."""
    place = folder / f"clock{hours:+g}"
    place.mkdir()
    (place / "sitecustomize.py").write_text(WRONG_CLOCK.format(hours=hours))
    return {"PYTHONPATH": str(place)}
