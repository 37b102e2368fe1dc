"""A pipeline that has nothing to do with ours, for tests of the worker: it squares numbers, or misbehaves.

What ``make`` does beyond that is said by the environment: TOY_SLEEP (s) and TOY_FOLDER, where every
computation appends a line to a file named after the table.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np

from workflow.populate import machine

schema = dj.Schema()
Key = dict[str, Any]


def note(table: str, key: Key) -> None:
    """Leave a trace of a computation."""
    if folder := os.environ.get("TOY_FOLDER"):
        with (Path(folder) / table).open("a") as log:
            log.write(f"{key['number']} {os.getpid()}\n")
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))


@schema
class Number(dj.Manual):
    definition = """
    number : int32
    """


@schema
class Square(dj.Computed):
    """A simple make with a part."""

    definition = """
    -> Number
    ---
    square : int64
    """

    class Digit(dj.Part):
        definition = """
        -> master
        position : int16
        ---
        digit : int16
        """

    def make(self, key: Key) -> None:
        square = key["number"] ** 2
        self.insert1({**key, "square": square})
        self.Digit.insert({**key, "position": i, "digit": int(d)} for i, d in enumerate(str(square)))
        note("Square", key)


@schema
class Root(dj.Computed):
    """A make in three steps, downstream of the other."""

    definition = """
    -> Square
    ---
    root : float64
    """

    def make_fetch(self, key: Key) -> tuple[int]:
        return ((Square() & key).fetch1("square"),)

    def make_compute(self, key: Key, square: int) -> tuple[float]:
        note("Root", key)
        return (square**0.5,)

    def make_insert(self, key: Key, root: float) -> None:
        self.insert1({**key, "root": root})


@schema
class Trouble(dj.Computed):
    """What a make can do wrong; the rest division of the number by ten says what."""

    definition = """
    -> Number
    ---
    fine : bool
    """

    def make(self, key: Key) -> None:
        if not os.environ.get("TOY_MENDED"):
            misbehave(key["number"] % 10)
            if key["number"] % 10 == 6:
                return
        self.insert1({**key, "fine": True})


@schema
class Threads(dj.Computed):
    """How many threads a worker's linear algebra has."""

    definition = """
    -> Number
    ---
    threads : int16
    """

    def make(self, key: Key) -> None:
        maps = Path("/proc/self/maps").read_text()
        library = ctypes.CDLL(re.findall(r"(/\S+openblas\S*\.so\S*)", maps)[0])
        names = [name.replace("_set_", "_get_") for name in machine._SET_THREADS]
        count = next(getattr(library, name) for name in names if hasattr(library, name))
        self.insert1({**key, "threads": count()})


@schema
class Forking(dj.Computed):
    """Leaves a copy of its process behind, which outlives a worker that is killed."""

    definition = """
    -> Number
    """

    def make(self, key: Key) -> None:
        self.insert1(key)
        if os.fork() == 0:
            os.closerange(0, 3)  # who reads our output need not wait for this one
            time.sleep(60)
            os._exit(0)
        note("Forking", key)


@schema
class Account(dj.Manual):
    definition = """
    account : int32
    ---
    amount : int64
    """


@schema
class Transfer(dj.Computed):
    """Two of these at once lock each other out: even and odd numbers move money in opposite directions."""

    definition = """
    -> Number
    ---
    moved : int64
    """

    def make(self, key: Key) -> None:
        note("Transfer", key)
        accounts = (1, 2) if key["number"] % 2 else (2, 1)
        for account in accounts:
            Account.update1({"account": account, "amount": key["number"]})
            time.sleep(0.5)
        self.insert1({**key, "moved": key["number"]})


@schema
class Large(dj.Computed):
    """More megabytes than a server takes at once."""

    definition = """
    -> Number
    ---
    data : <blob>
    """

    def make(self, key: Key) -> None:
        note("Large", key)
        data = np.random.default_rng(0).bytes(key["number"] * 2**20)
        self.insert1({**key, "data": np.frombuffer(data, np.uint8)})


def misbehave(way: int) -> None:
    """Do something that a make should not."""
    match way:
        case 1:
            raise ValueError("this number is wrong")
        case 2:
            sys.exit(3)
        case 3:
            os._exit(7)
        case 4:
            os.kill(os.getpid(), signal.SIGKILL)
        case 5:
            ctypes.string_at(0)
        case 7:
            print("{'noise': ")
            os.system("echo noise")
        case 8:
            os.fork()
        case 9:
            raise KeyboardInterrupt
