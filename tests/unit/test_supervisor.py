"""The supervisor's loop, with a database that is away or silent."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest

from workflow.populate import supervisor
from workflow.populate.clerk import Census, Clerk
from workflow.populate.liveness import Others
from workflow.populate.stopping import SIGNALS
from workflow.populate.supervisor import Orders, Supervisor


class Desk:
    """What the clerk asks; the first search meets whatever a test wants."""

    def __init__(self, first: Callable[[], None], seconds: float = 0.0) -> None:
        self._first, self.searches, self._seconds = first, 0, seconds

    def refresh(self, dead: Any) -> Census:
        if not self.searches:
            self._first()
        self.searches += 1
        return Census([0], set(), [0], [0], seconds=self._seconds)

    look = refresh

    def release_all(self) -> Census:
        return Census([0], set(), [0], [0])


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A run that was stopped ignores signals from then on; here that is this process, and all it starts."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def nursery() -> Iterator[SimpleNamespace]:
    silent, other = os.pipe()
    yield SimpleNamespace(pid=1, fileno=lambda: silent)
    os.close(silent)
    os.close(other)


def crew(desk: Desk, nursery: Any, deadline: float = math.inf) -> Supervisor:
    """A supervisor without workers, and one table in which nothing is due."""
    connection = SimpleNamespace(
        _in_transaction=False,
        _is_closed=False,
        _conn=None,
        cancel_transaction=lambda: None,
        adapter=SimpleNamespace(ping=lambda _: True),
    )
    queue: Any = SimpleNamespace(index=0, label="t.T", connection=connection)
    clerk = Clerk([queue], SimpleNamespace(crew=1), 2, 300.0)  # type: ignore[arg-type]
    clerk._desk = desk  # type: ignore[assignment]
    heart: Any = SimpleNamespace(others=Others(), trouble=lambda: None)
    tally: Any = SimpleNamespace(
        due=lambda *_: None, wait=lambda *_: None, tick=lambda: None, say=lambda _: None
    )
    orders = Orders(0, deadline=deadline, grace=0.1)
    return Supervisor([queue], orders, clerk, nursery, heart, tally, lambda _: pytest.fail("nobody is hired"))


def test_an_outage_does_not_put_off_the_next_search(nursery: Any) -> None:
    """A search that waited for the database says nothing about how dear searches are."""
    began = time.monotonic()

    def away() -> None:
        run._news = True  # a worker stores a result on its own connection
        if time.monotonic() < began + 1.5:
            raise pymysql.err.OperationalError(2013, "Lost connection")

    run = crew(desk := Desk(away), nursery)
    assert run.run(Census([0], set(), [0], [0], is_filled=False)) == ""
    assert desk.searches >= 2
    assert time.monotonic() - began < 8, "it would have been 15 s and more"


def test_a_dear_search_is_not_waited_for_when_nobody_works(nursery: Any) -> None:
    """The last one, which finds nothing, ends the run."""
    began = time.monotonic()

    def news() -> None:
        run._news = True

    run = crew(desk := Desk(news, seconds=1.0), nursery)
    assert run.run(Census([0], set(), [0], [0], is_filled=False)) == ""
    assert desk.searches == 2
    assert time.monotonic() - began < 5, "it would have been 10 s"


def test_a_deadline_ends_a_run_whose_database_says_nothing(
    nursery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clerk waits for an answer that does not come; the supervisor does not."""
    monkeypatch.setattr(supervisor, "PARTING", 0.5)
    answer = threading.Event()
    run = crew(Desk(lambda: bool(answer.wait(60))), nursery, deadline=time.monotonic() + 0.5)  # type: ignore[arg-type, return-value]
    began = time.monotonic()
    assert run.run(Census([0], set(), [0], [0], is_filled=False)) == "its deadline"
    answer.set()
    assert time.monotonic() - began < 10
