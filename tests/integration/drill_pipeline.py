"""Cheap computations that are easily interrupted half-way, and that leave evidence of every commit."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Generator
from typing import Any

import datajoint as dj

schema = dj.Schema()

PAUSE = float(os.environ.get("DRILL_PAUSE", "0.004"))  # s, between two statements


@schema
class Item(dj.Manual):
    definition = """
    item : int32
    """


@schema
class Witness(dj.Manual):
    """One row for every make that was committed: a second commit of the same key would show."""

    definition = """
    kind : varchar(16)
    item : int32
    token : varchar(32)
    """


@schema
class First(dj.Computed):
    """Everything in one transaction."""

    definition = """
    -> Item
    ---
    n_parts : int16
    """

    class Part(dj.Part):
        definition = """
        -> master
        part : int16
        """

    def make(self, key: dict[str, Any]) -> None:
        n_parts = 2 + key["item"] % 4
        self.insert1({**key, "n_parts": n_parts})
        for part in range(n_parts):
            time.sleep(PAUSE)
            self.Part.insert1({**key, "part": part})
        _testify("first", key)


@schema
class Second(dj.Computed):
    """Computes outside the transaction that stores."""

    definition = """
    -> First
    ---
    n_parts : int16
    """

    class Part(dj.Part):
        definition = """
        -> master
        part : int16
        """

    def make(self, key: dict[str, Any]) -> Generator[Any, Any, None]:
        n_parts = (First & key).fetch1("n_parts")
        result = yield n_parts
        if result is None:
            time.sleep(5 * PAUSE)
            result = n_parts + 1
            yield result
        self.insert1({**key, "n_parts": result})
        self.Part.insert({**key, "part": part} for part in range(result - 1))
        time.sleep(PAUSE)
        self.Part.insert1({**key, "part": result - 1})
        _testify("second", key)
        yield


def _testify(kind: str, key: dict[str, Any]) -> None:
    Witness.insert1({"kind": kind, "item": key["item"], "token": secrets.token_hex(16)})
