"""The parts of the worker that need neither a database nor processes."""

from __future__ import annotations

import argparse
import datetime
import decimal
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pandas as pd
import psycopg2.errors
import pymysql
import pytest

from workflow.cli import _deadline, make_parser
from workflow.populate import machine
from workflow.populate.crew import staffing
from workflow.populate.deaths import cause_of_death
from workflow.populate.digest import digest
from workflow.populate.errors import cause
from workflow.populate.jobs_table import attempts_of
from workflow.populate.summary import MOST_KEYS, KeyOutcome, Summary
from workflow.populate.troubles import Trouble, classify, one_line, pause

# ---- digest

SAME = [
    lambda: np.arange(6.0).reshape(2, 3),
    lambda: (np.zeros(0), {"a": [1, 2.5, None, True]}),
    lambda: [uuid.UUID(int=7), decimal.Decimal("1.50"), datetime.date(2026, 1, 2), b"x", "x"],
    lambda: pd.DataFrame({"a": [1, 2], "b": ["x", "".join(["y", "z"])]}),
    lambda: np.array(["text", None, (1, 2)], dtype=object),
    lambda: {frozenset({"no", "simple", "type"}): {1, 2}},
]


@pytest.mark.parametrize("make", SAME)
def test_equal_readings_have_equal_digests(make: Any) -> None:
    assert digest(make()) == digest(make())


def test_different_readings_have_different_digests() -> None:
    changed: list[Any] = [make() for make in SAME]
    changed += [
        np.arange(6.0).reshape(3, 2),
        np.arange(6).reshape(2, 3),
        np.float64(1),
        1.0,
        1,
        True,
        "1",
        b"1",
    ]
    changed += [
        ["ab", "c"],
        ["a", "bc"],
        ["abc"],
        [["a"], "bc"],
        [],
        {},
        None,
        np.float32(1),
        [1, [2]],
        [[1], 2],
    ]
    assert len({digest(value) for value in changed}) == len(changed)


# ---- troubles


def of_postgresql(code: str) -> psycopg2.Error:
    """An error with the code that a server has given it."""
    error: psycopg2.Error = psycopg2.errors.lookup(code)("said the server")
    error.__setstate__({"pgcode": code})  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (dj.errors.LostConnectionError("gone"), Trouble.LOST),
        (ConnectionResetError(), Trouble.LOST),
        (pymysql.err.OperationalError(2013, "Lost connection"), Trouble.LOST),
        (pymysql.err.OperationalError(1213, "Deadlock found"), Trouble.BUSY),
        (pymysql.err.OperationalError(1205, "Lock wait timeout exceeded"), Trouble.BUSY),
        (pymysql.err.OperationalError(1114, "The table is full"), Trouble.FULL),
        (pymysql.err.OperationalError(1021, "Disk full"), Trouble.FULL),
        (of_postgresql("53100"), Trouble.FULL),
        (of_postgresql("40P01"), Trouble.BUSY),
        (of_postgresql("23505"), None),
        (pymysql.err.ProgrammingError(1064, "syntax"), None),
        (pymysql.err.DataError(1406, "Data too long"), None),
        (psycopg2.OperationalError("server closed the connection unexpectedly"), Trouble.LOST),
        (psycopg2.InterfaceError("connection already closed"), Trouble.LOST),
        (dj.errors.DuplicateError("twice"), None),
        (ValueError("wrong"), None),
    ],
)
def test_trouble_with_the_server_is_told_from_mistakes(error: Exception, trouble: Trouble | None) -> None:
    assert classify(error) is trouble
    wrapped = RuntimeError("while storing")
    wrapped.__cause__ = error
    assert classify(wrapped) is trouble


def test_pauses_grow_up_to_a_limit() -> None:
    assert all(0 < pause(tries) <= 5 for tries in range(40))
    assert max(pause(1) for _ in range(50)) < min(pause(5) for _ in range(50))


def test_errors_become_one_line() -> None:
    assert one_line(ValueError("a\n b")) == "ValueError: a b"
    assert one_line(dj.DataJointError("a", "b")) == "DataJointError: a b"
    assert one_line(ValueError()) == "ValueError"


# ---- deaths


@pytest.mark.parametrize(
    ("script", "out_of_memory", "words"),
    [
        ("raise SystemExit(7)", False, "ended with exit code 7"),
        ("pass", False, "ended"),
        ("import os; os.kill(os.getpid(), 9)", False, "was killed (SIGKILL), by somebody or by the kernel"),
        ("import os; os.kill(os.getpid(), 9)", True, "by the kernel, which was out of memory; it had 2 GiB"),
        ("import os; os.abort()", False, "crashed (SIGABRT) in compiled code"),
        ("import os; os.kill(os.getpid(), 15)", False, "was ended by a signal (SIGTERM)"),
        ("import os; os.kill(os.getpid(), 40)", False, "was ended by a signal (signal 40)"),
    ],
)
def test_the_cause_of_a_death(script: str, out_of_memory: bool, words: str) -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", script], stderr=subprocess.DEVNULL)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = status
    assert words in cause_of_death(status, 2 * 2**30, out_of_memory)


def test_attempts_are_read_from_the_message() -> None:
    assert [attempts_of(text) for text in ("", "attempt 2: x", "attempt 12: y", "no attempt 3: z")] == [
        0,
        2,
        12,
        0,
    ]


# ---- errors by cause


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ValueError: number 11 is odd", "ValueError: number 3 is odd"),
        ("KeyError: 'a'", "KeyError: 'b'"),
        ("X: trace of ROI {'n': 1, 'd': (2, 3)} is bad", "X: trace of ROI {'n': 4, 'd': (5, 6)} is bad"),
        ("attempt 2: the worker crashed (SIGSEGV)", "attempt 3: the worker crashed (SIGBUS)"),
        ("X: -1.5e-7 < 0", "X: -2.25 < 0"),
    ],
)
def test_messages_that_differ_by_keys_have_one_cause(first: str, second: str) -> None:
    assert cause(first) == cause(second)
    assert cause(first) != cause("TypeError: something else")


# ---- summary


def test_a_summary_of_many_keys_stays_small_and_covers_the_whole_time() -> None:
    summary = Summary("r", "", "0", "u", "m", "")
    for i in range(20_000):
        outcome = "failed" if i % 1000 == 0 else "done"
        summary.record(KeyOutcome("t.T", {"i": i}, outcome, f"2026-01-01T{i:06d}", 0.1))
    kept = [key.key["i"] for key in summary.keys if key.outcome == "done"]
    failed = [key.key["i"] for key in summary.keys if key.outcome == "failed"]
    assert failed == list(range(0, 20_000, 1000))
    assert MOST_KEYS / 2 <= len(kept) <= MOST_KEYS
    assert summary.keys_left_out == {"done": 20_000 - 20 - len(kept)}
    gaps = np.diff(kept)
    assert gaps.max() <= 2 * gaps.min()
    assert kept[-1] > 19_900


# ---- machine


def test_staffing_follows_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Big:
        worker_memory = 10

    class Small:
        pass

    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "free_memory", lambda: 35)
    assert staffing([Small()], None) == (8, 1)
    assert staffing([Small(), Big()], None) == (3, 2)
    assert staffing([Small(), Big()], 2) == (2, 4)
    assert staffing([Small()], 64) == (64, 1)
    monkeypatch.setattr(machine, "free_memory", lambda: 5)
    assert staffing([Big()], None) == (1, 8)


@pytest.mark.parametrize(
    ("prefix", "limit", "usage", "inactive"),
    [
        ("/sys/fs/cgroup/memory.", "max", "current", "inactive_file"),
        ("/sys/fs/cgroup/memory/memory.", "limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
    ],
)
def test_files_that_can_be_dropped_from_memory_are_free(
    monkeypatch: pytest.MonkeyPatch, prefix: str, limit: str, usage: str, inactive: str
) -> None:
    """Whatever else the statistics of the control group begin or end with the same words."""
    files = {
        "/proc/meminfo": "MemAvailable:    9000 kB\n",
        f"{prefix}{limit}": "1000\n",
        f"{prefix}{usage}": "900\n",
        f"{prefix}stat": f"anon 1\n{inactive} 700\nx_{inactive} 5\n{inactive}_x 6\n",
    }
    monkeypatch.setattr(machine, "_text", lambda path: files.get(path, ""))
    assert machine.free_memory() == 800
    del files[f"{prefix}stat"]
    assert machine.free_memory() == 100


def test_what_this_machine_has() -> None:
    assert 1 <= machine.cores() <= len(os.sched_getaffinity(0))
    assert machine.free_memory() > 2**20
    assert machine.started(os.getpid()) > 0
    assert machine.started(2**22 + 1) == 0
    assert machine.place() == machine.place()


def test_blas_threads_can_be_set_after_numpy_was_loaded() -> None:
    """In a fresh interpreter, whose environment says nothing."""
    script = f"""
import ctypes, re, numpy
from pathlib import Path
from workflow.populate import machine
machine.set_blas_threads(3)
path = re.search(r'(/\\S+openblas\\S*)', Path('/proc/self/maps').read_text()).group(1)
library = ctypes.CDLL(path)
names = {[name.replace("set", "get") for name in machine._SET_THREADS]!r}
print(next(getattr(library, name)() for name in names if hasattr(library, name)))
"""
    environment = {name: value for name, value in os.environ.items() if name not in machine.THREAD_VARIABLES}
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "3"


def test_a_child_dies_with_its_parent() -> None:
    script = """
import os, time
from workflow.populate import machine
parent = os.getpid()
if os.fork() == 0:
    machine.die_with_parent(parent)
    os.write(1, str(os.getpid()).encode())
    time.sleep(600)
time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    child = int(process.stdout.read1())
    assert machine.started(child)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    while machine.started(child):  # pytest's time limit applies
        pass


# ---- the command line


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("90m", 5400), ("1.5h", 5400), ("1d", 86400)])
def test_deadlines_from_now(text: str, seconds: float) -> None:
    assert _deadline(text) == seconds


def test_deadlines_by_the_calendar() -> None:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)
    for text in (moment.isoformat(), moment.replace(tzinfo=None).isoformat()):
        assert 7100 < _deadline(text) <= 7200


@pytest.mark.parametrize("text", ["", "soon", "90", "-5m", "2020-01-01", "1h30m"])
def test_deadlines_that_make_no_sense(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        _deadline(text)


def test_watching_has_a_default_interval() -> None:
    parse = make_parser().parse_args
    assert parse(["status"]).watch is None
    assert parse(["status", "--watch"]).watch == 2
    assert parse(["status", "--watch", "10"]).watch == 10
