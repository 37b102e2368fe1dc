"""Turn a request to stop into an exception, except while the supervisor takes such requests itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """Somebody asked this process to stop before the end.

    A SystemExit, which no library takes for an error of its own.
    """


@contextmanager
def deaf() -> Iterator[None]:
    """Ignore SIGTERM and SIGINT for a few last statements."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def become_stoppable() -> None:
    """Turn the first SIGTERM or SIGINT into `Stopped`; what is then left to do is short and not disturbed."""
    for number in SIGNALS:
        signal.signal(number, _stop)


def become_deaf() -> None:
    """Ignore both from now on: this process is about to end by itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    become_deaf()
    raise Stopped(signal.Signals(number).name)
