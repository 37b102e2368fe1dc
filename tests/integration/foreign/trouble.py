"""Computations that misbehave, each in its own way."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import datajoint as dj

schema = dj.Schema()


@schema
class Way(dj.Manual):
    definition = """
    way : varchar(32)
    """


@schema
class Misbehaving(dj.Computed):
    definition = """
    -> Way
    ---
    result : int32
    """

    class Piece(dj.Part):
        definition = """
        -> master
        piece : int16
        """

    def make(self, key: dict[str, Any]) -> None:
        WAYS[key["way"]](self, key)


@schema
class Fickle(dj.Computed):
    """A generator that does what generators should not."""

    definition = """
    -> Way
    ---
    result : int32
    """

    def make(self, key: dict[str, Any]) -> Generator[Any, Any, None]:
        if key["way"] == "changing input":
            result = yield os.urandom(8)
        elif key["way"] == "open transaction":
            self.connection.start_transaction()
            result = yield 0
        else:
            result = yield 0
        if result is None:
            if key["way"] == "raise":
                raise LookupError("not found while it computed")
            result = 1
            yield result
        if key["way"] != "nothing":
            self.insert1({**key, "result": result})
        if key["way"] == "raise late":
            raise LookupError("after it had inserted")
        yield


def _store(table: Misbehaving, key: dict[str, Any], result: int = 1) -> None:
    table.insert1({**key, "result": result})
    table.Piece.insert({**key, "piece": i} for i in range(3))


def _raise(table: Misbehaving, key: dict[str, Any]) -> None:
    raise ValueError("two\nlines, 100% wrong: {'a': 1}")


def _raise_late(table: Misbehaving, key: dict[str, Any]) -> None:
    _store(table, key)
    raise ValueError("after it had inserted")


def _exit(table: Misbehaving, key: dict[str, Any]) -> None:
    _store(table, key)
    sys.exit(0)


def _exit_hard(table: Misbehaving, key: dict[str, Any]) -> None:
    _store(table, key)
    os._exit(7)


def _interrupt(table: Misbehaving, key: dict[str, Any]) -> None:
    raise KeyboardInterrupt


def _crash(table: Misbehaving, key: dict[str, Any]) -> None:
    ctypes.string_at(0)


def _kill(table: Misbehaving, key: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _print(table: Misbehaving, key: dict[str, Any]) -> None:
    print("noise from make")
    sys.stdout.write("noise without an end of line")
    subprocess.run(["echo", "noise from a program"], check=True)
    _store(table, key)


def _read(table: Misbehaving, key: dict[str, Any]) -> None:
    _store(table, key, len(sys.stdin.read()))


def _fork(table: Misbehaving, key: dict[str, Any]) -> None:
    """Both parent and child return."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    _store(table, key)


def _square(number: int) -> int:
    return number**2


def _pool(table: Misbehaving, key: dict[str, Any]) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        _store(table, key, sum(pool.map(_square, range(4))))


def _pool_from_scratch(table: Misbehaving, key: dict[str, Any]) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        _store(table, key, pool.apply(abs, (-14,)))


def _end_others(table: Misbehaving, key: dict[str, Any]) -> None:
    """Programs and copies of itself that it starts, it can end as politely as anywhere."""
    program = subprocess.Popen(["sleep", "1000"])
    program.terminate()
    ended = program.wait()
    for _ in range(5):  # at once, before they have done anything themselves
        copy = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
        copy.start()
        copy.terminate()
        copy.join()
        assert copy.exitcode == ended
    _store(table, key, 2 * ended)


def _nothing(table: Misbehaving, key: dict[str, Any]) -> None:
    return


def _another_key(table: Misbehaving, key: dict[str, Any]) -> None:
    """What it inserts is not what it was asked for."""
    table.insert1({"way": "fine", "result": 0}, skip_duplicates=True)


def _twice(table: Misbehaving, key: dict[str, Any]) -> None:
    _store(table, key)
    _store(table, key)


def _commit(table: Misbehaving, key: dict[str, Any]) -> None:
    """Ends the transaction that it was given."""
    _store(table, key)
    table.connection.commit_transaction()


def _roll_back(table: Misbehaving, key: dict[str, Any]) -> None:
    _store(table, key)
    table.connection.cancel_transaction()


def _disconnect(table: Misbehaving, key: dict[str, Any]) -> None:
    table.connection.close()


def _change_directory(table: Misbehaving, key: dict[str, Any]) -> None:
    os.chdir("/")
    os.environ.clear()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _store(table, key)


def _close_files(table: Misbehaving, key: dict[str, Any]) -> None:
    """Closes streams that are not its own."""
    sys.stdout.close()
    os.close(1)
    _store(table, key)


def _recurse(table: Misbehaving, key: dict[str, Any]) -> None:
    _recurse(table, key)


class _SilentError(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def _raise_unspeakable(table: Misbehaving, key: dict[str, Any]) -> None:
    raise _SilentError


def _raise_long(table: Misbehaving, key: dict[str, Any]) -> None:
    raise ValueError("x\x00é" * 3000)


WAYS: dict[str, Callable[[Misbehaving, dict[str, Any]], None]] = {
    "fine": _store,
    "raise": _raise,
    "raise late": _raise_late,
    "raise long": _raise_long,
    "raise unspeakable": _raise_unspeakable,
    "recurse": _recurse,
    "exit": _exit,
    "exit hard": _exit_hard,
    "interrupt": _interrupt,
    "crash": _crash,
    "kill": _kill,
    "print": _print,
    "read": _read,
    "fork": _fork,
    "pool": _pool,
    "pool from scratch": _pool_from_scratch,
    "end others": _end_others,
    "nothing": _nothing,
    "another key": _another_key,
    "twice": _twice,
    "commit": _commit,
    "roll back": _roll_back,
    "disconnect": _disconnect,
    "change directory": _change_directory,
    "close files": _close_files,
}
