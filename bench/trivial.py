"""A pipeline whose computations cost nothing, for what remains."""

from __future__ import annotations

import time
from typing import Any

import datajoint as dj
import numpy as np  # noqa: F401  (as every pipeline does)
import scipy.linalg  # noqa: F401

schema = dj.Schema()


@schema
class Number(dj.Manual):
    """What is entered."""

    definition = """
    number : int32
    """


@schema
class Square(dj.Computed):
    """What is computed from it."""

    definition = """
    -> Number
    ---
    square : int64
    """

    def make(self, key: dict[str, Any]) -> None:
        """One insert."""
        self.insert1({**key, "square": key["number"] ** 2})


@schema
class Wait(dj.Computed):
    """A computation that waits."""

    definition = """
    -> Number
    """

    def make(self, key: dict[str, Any]) -> None:
        """Wait long enough for somebody to look."""
        time.sleep(3)
        self.insert1(key)
