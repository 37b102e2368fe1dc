"""A pipeline whose keys take their time: as long as SLOW_SECONDS says, each."""

from __future__ import annotations

import os
import time
from typing import Any

import datajoint as dj

schema = dj.Schema()


@schema
class Step(dj.Lookup):
    definition = """
    step : int32
    """
    contents = [(number,) for number in range(40)]  # noqa: RUF012 -- as DataJoint reads it


@schema
class Slow(dj.Computed):
    definition = """
    -> Step
    ---
    seconds : float64
    """

    def make(self, key: dict[str, Any]) -> None:
        seconds = float(os.environ.get("SLOW_SECONDS", "0"))
        time.sleep(seconds)
        self.insert1({**key, "seconds": seconds})
