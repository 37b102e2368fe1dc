"""A pipeline whose keys take their time, and that leaves evidence of every commit.

SLOW_STEPS says how many keys there are (more each time, never fewer), SLOW_SECONDS how long each takes. With
SLOW_GATE, a key is held half done until the file of that name is there. SLOW_FAIL names one that fails.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Any

import datajoint as dj

schema = dj.Schema()

PATIENCE = 900.0  # s, before the gate


@schema
class Step(dj.Lookup):
    definition = """
    step : int32
    """
    contents = [(number,) for number in range(int(os.environ.get("SLOW_STEPS", "40")))]  # noqa: RUF012 -- as DataJoint reads it


@schema
class Witness(dj.Manual):
    """One row for every make that was committed: a second commit of the same key would show."""

    definition = """
    step : int32
    token : varchar(32)
    """


@schema
class Slow(dj.Computed):
    definition = """
    -> Step
    ---
    seconds : float64
    """

    class Half(dj.Part):
        definition = """
        -> master
        half : int16
        """

    def make(self, key: dict[str, Any]) -> None:
        seconds = float(os.environ.get("SLOW_SECONDS", "0"))
        self.insert1({**key, "seconds": seconds})
        self.Half.insert1({**key, "half": 1})
        time.sleep(seconds)
        _wait_at_the_gate()
        if str(key["step"]) == os.environ.get("SLOW_FAIL"):
            raise ValueError("a step too far")
        self.Half.insert1({**key, "half": 2})
        Witness.insert1({**key, "token": secrets.token_hex(16)})


def _wait_at_the_gate() -> None:
    gate = os.environ.get("SLOW_GATE")
    deadline = time.monotonic() + PATIENCE
    while gate and not Path(gate).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody opened {gate}")
        time.sleep(0.1)
