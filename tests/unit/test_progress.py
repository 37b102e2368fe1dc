"""Progress as people see it: in a terminal, which is a real one here, and in a log."""

from __future__ import annotations

import io
import os
import pty
import re
import termios
from collections.abc import Callable
from contextlib import redirect_stderr

import pytest

from workflow.populate.progress import Progress
from workflow.populate.summary import KeyOutcome


def in_a_terminal(work: Callable[[Progress], None], columns: int = 0) -> str:
    """Give all that a terminal is sent while this is done, with its line ends as a program writes them."""
    here, there = pty.openpty()
    termios.tcsetwinsize(there, (columns and 24, columns))
    with os.fdopen(there, "w") as stream, redirect_stderr(stream):
        progress = Progress(stream)
        work(progress)
        progress.end()
        stream.write("end")
        stream.flush()
        text = b""
        while not text.endswith(b"end"):
            text += os.read(here, 65536)
    os.close(here)
    return text.decode().removesuffix("end").replace("\r\n", "\n")


def in_a_log(work: Callable[[Progress], None]) -> str:
    """Give the log's lines, without the time."""
    stream = io.StringIO()
    progress = Progress(stream)
    work(progress)
    progress.end()
    return re.sub(r"(?m)^\d\d:\d\d:\d\d ", "", stream.getvalue())


def key(outcome: str = "done") -> KeyOutcome:
    return KeyOutcome("svd.PopulationSVD", {"session": 1}, outcome, "2025-01-01T00:00:00", 1.0, "no good")


def compute(progress: Progress) -> None:
    progress.begin("svd.PopulationSVD", 2)
    progress.begin("lds.LDS", 0)
    progress.advance(key())
    progress.advance(key("failed"))


def load(progress: Progress) -> None:
    for done in (10, 20, 30):
        progress.note(done, 30, "traces")


def test_a_terminal_shows_one_bar_and_failures_above_it() -> None:
    text = in_a_terminal(compute)
    assert text.count("\n") == 2, "the failure's line, and the bar that stays"
    failure, bar = (line.rpartition("\r")[2] for line in text.removesuffix("\n").split("\n"))
    assert failure == "svd.PopulationSVD: failed {'session': 1}: no good"
    assert re.fullmatch(r"svd\.PopulationSVD: 100%\|█+\| 2/2 \[.*key.*\]", bar.strip()), bar
    assert " due" not in text


@pytest.mark.parametrize(("columns", "width"), [(0, 79), (60, 59)])
def test_a_terminal_shows_what_is_loaded_as_a_bar(columns: int, width: int) -> None:
    """It fills the line; a terminal need not know how wide it is."""
    text = in_a_terminal(load, columns)
    assert text.count("\n") == 1
    bar = text.rpartition("\r")[2].removesuffix("\n")
    assert re.fullmatch(r"100%\|█+\| 30/30 \[.* traces/s.*\]", bar)
    assert len(bar) == width


def test_a_terminal_shows_no_bar_where_nothing_is_due() -> None:
    assert in_a_terminal(lambda progress: progress.begin("lds.LDS", 0)) == ""


def test_a_log_gets_plain_lines() -> None:
    assert in_a_log(compute).splitlines() == [
        "svd.PopulationSVD: 2 due",
        "lds.LDS: nothing due",
        "svd.PopulationSVD: failed {'session': 1}: no good",
        "svd.PopulationSVD: 2 of 2, 1 failed",
    ]
    assert in_a_log(load).splitlines() == ["traces: 10 of 30", "traces: 20 of 30", "traces: 30 of 30"]
