"""A deadline counts from the start, also while a run waits for its database."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest

from workflow.populate import crew, rounds
from workflow.populate.clerk import Census
from workflow.populate.crew import Terms
from workflow.populate.progress import Progress
from workflow.populate.summary import Summary


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A connection on which nothing happens, as DataJoint's own."""
    answers = SimpleNamespace(
        _in_transaction=False,
        _is_closed=False,
        _conn=None,
        cancel_transaction=lambda: None,
        get_user=lambda: "",
        query=lambda statement: None,
        adapter=SimpleNamespace(backend="mysql", ping=lambda _: True),
    )
    for module in (crew, rounds):
        monkeypatch.setattr(module, "dj", SimpleNamespace(conn=lambda: answers, config={}))
    return answers


def is_away(*_: Any) -> Any:
    raise pymysql.err.OperationalError(2013, "Lost connection")


def queue(index: int, label: str) -> SimpleNamespace:
    return SimpleNamespace(index=index, label=label, connection=None)


def populate(monkeypatch: pytest.MonkeyPatch, fill: Any) -> tuple[str, Summary]:
    """Begin a run of one table whose deadline is near, and whose patience is long."""
    monkeypatch.setattr(crew, "Queue", lambda index, label, *_: queue(index, label))
    monkeypatch.setattr(crew, "_fill", fill)
    monkeypatch.setattr(crew, "Nursery", lambda _: pytest.fail("there is no time left"))
    summary = Summary("r", "", "0", "u", "m", "")
    terms = Terms(deadline=time.monotonic() + 0.3, patience=300)
    return crew.populate({"t.T": None}, [], summary, Progress(), terms, {}), summary


@pytest.mark.usefixtures("connection")
def test_a_database_that_goes_away_as_a_run_begins_is_waited_for_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    with pytest.raises(pymysql.MySQLError):
        rounds.patiently(is_away, Terms(deadline=began + 0.3, patience=300).patience_left)
    with pytest.raises(pymysql.MySQLError):
        populate(monkeypatch, is_away)
    assert time.monotonic() - began < 10
    assert "trying again for 0.3 s" in capsys.readouterr().err


@pytest.mark.usefixtures("connection")
def test_nobody_is_hired_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filling the queues took too long; what is due is told all the same."""

    def fill(*_: Any) -> tuple[Census, frozenset[int]]:
        time.sleep(0.4)
        return Census([7], set(), [0], [0]), frozenset()

    stopped, summary = populate(monkeypatch, fill)
    assert stopped == "its deadline"
    assert summary.total("due") == 7
