"""Whoever dies or is stopped, and whenever: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import Server
from toy import Toy, children, kill, wait_for, workers_of

from workflow.populate import machine

pytest_plugins = ("databases",)

SQUARES = ("--tables", "Square")


@pytest.fixture(params=["postgresql_server", "mysql_server"])
def toy(request: pytest.FixtureRequest, schemas: Callable[[Server], str], tmp_path: Path) -> Toy:
    server = request.getfixturevalue(request.param)
    return Toy(server, schemas(server), tmp_path)


def all_squares(toy: Toy, count: int) -> None:
    """Every number has its square once, with all of its parts, and nothing else is left."""
    state = toy.state()
    assert (state["squares"], state["wrong"], state["digits"]) == (count, [], 0)
    assert not any(state["jobs"].values())
    assert state["alive"] == 0


def test_killed_workers_are_replaced(toy: Toy) -> None:
    """kill -9 again and again: the supervisor tries the keys again, and ends with everything done."""
    toy.insert(range(60))
    with toy.running(*SQUARES, "--processes", "3", "--retries", "50", TOY_SLEEP="0.1") as run:
        chance = random.Random(1)
        for kills in range(1, 9):
            done = len(wait_for(lambda: toy.computations("Square"), run))
            kill(chance.choice(wait_for(lambda: workers_of(run.pid), run)))
            wait_for(lambda done=done, kills=kills: len(toy.computations("Square")) > done + kills, run)
        output, log = run.communicate()
    assert run.returncode == 0, log
    assert log.count("was killed (SIGKILL)") >= 4  # some were idle
    summary = json.loads(output)
    assert max(key["attempts"] for key in summary["keys"]) >= 2
    assert Counter(key["key"]["number"] for key in summary["keys"]) == Counter(range(60))
    all_squares(toy, 60)


def test_a_death_is_noticed_within_seconds(toy: Toy) -> None:
    """The key is tried again at once, although a copy of the dead worker that make() left lives on."""
    toy.insert(range(1))
    with toy.running("--tables", "Forking", "--processes", "1", TOY_SLEEP="3600", WORKFLOW_GRACE="0") as run:
        wait_for(lambda: toy.computations("Forking"), run)
        [worker] = workers_of(run.pid)
        [copy] = children(worker)
        kill(worker)
        killed = time.monotonic()
        wait_for(lambda: len(toy.computations("Forking")) == 2, run)
        assert time.monotonic() - killed < 5
        wait_for(lambda: not machine.started(copy))
        run.terminate()
        _, log = run.communicate()
    assert run.returncode == 4, log
    assert "was killed (SIGKILL)" in log


def test_a_killed_supervisor_takes_its_workers_along(toy: Toy) -> None:
    """kill -9 of the supervisor: no process stays behind, and the next run takes over at once."""
    toy.insert(range(40))
    for _ in range(3):
        with toy.running(*SQUARES, "--processes", "2", TOY_SLEEP="0.1") as run:
            before = len(toy.computations("Square"))
            wait_for(lambda before=before: len(toy.computations("Square")) > before + 3, run)
            everybody = [*children(run.pid), *workers_of(run.pid)]
            kill(run.pid)
            run.wait()
        wait_for(lambda everybody=everybody: not any(Path(f"/proc/{pid}").exists() for pid in everybody))
    summary = toy.run(*SQUARES, "--processes", "2", "--retries", "0")
    assert summary["verdict"] == "succeeded"
    all_squares(toy, 40)


def test_a_killed_nursery_ends_the_run(toy: Toy) -> None:
    """Workers cannot be started any more: the run says so, and leaves everything due."""
    toy.insert(range(20))
    with toy.running(*SQUARES, "--processes", "2", TOY_SLEEP="0.2") as run:
        wait_for(lambda: toy.computations("Square"), run)
        kill(children(run.pid)[0])
        output, log = run.communicate()
    assert run.returncode == 4, log
    assert "the process that starts workers was killed" in json.loads(output)["message"]
    assert "reserved" not in toy.state()["jobs"]["toy_pipeline.Square"]
    toy.run(*SQUARES)
    all_squares(toy, 20)


def test_two_runs_share_a_queue(toy: Toy) -> None:
    """As on two machines: each key is computed by one of them, and both end well."""
    toy.insert(range(60))
    with (
        toy.running(*SQUARES, "--processes", "2", TOY_SLEEP="0.1") as first,
        toy.running(*SQUARES, "--processes", "2", TOY_SLEEP="0.1") as second,
    ):
        summaries = [json.loads(run.communicate()[0]) for run in (first, second)]
    assert [summary["verdict"] for summary in summaries] == ["succeeded", "succeeded"]
    assert Counter(toy.computations("Square")) == Counter(range(60))
    assert sum(summary["tables"][0]["done"] for summary in summaries) == 60
    all_squares(toy, 60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_finishes_what_it_has_in_hand(toy: Toy, number: signal.Signals) -> None:
    """Within the grace period keys end; the others are due again at once, and nothing is an error."""
    toy.insert(range(30))
    with toy.running(*SQUARES, "--processes", "2", TOY_SLEEP="0.5") as run:
        wait_for(lambda: len(toy.computations("Square")) >= 4, run)
        run.send_signal(number)
        output, log = run.communicate()
    assert run.returncode == 4, log
    summary = json.loads(output)
    state = toy.state()
    done = len(toy.computations("Square"))
    assert summary["tables"][0]["done"] == state["squares"] == done < 30
    assert summary["tables"][0]["due"] == 30
    assert summary["message"] == f"stopped by {number.name} before the end: {30 - done} key(s) are due again"
    assert state["jobs"]["toy_pipeline.Square"] == {"pending": 30 - done}
    assert state["alive"] == 0


@pytest.mark.parametrize("how", ["grace", "second signal", "deadline"])
def test_what_does_not_end_in_time_is_rolled_back(toy: Toy, how: str) -> None:
    """A key that takes an hour is killed after the grace, or at once after a second signal."""
    toy.insert(range(3))
    grace = "3600" if how == "second signal" else "0.5"
    more = ("--deadline", "4s") if how == "deadline" else ()
    arguments = (*SQUARES, "--processes", "2", *more)
    with toy.running(*arguments, TOY_SLEEP="3600", WORKFLOW_GRACE=grace) as run:
        wait_for(lambda: len(toy.computations("Square")) == 2, run)
        if how != "deadline":
            run.send_signal(signal.SIGTERM)
        if how == "second signal":
            assert run.stderr is not None
            wait_for(lambda: "stopping" in run.stderr.readline(), run)
            run.send_signal(signal.SIGTERM)
        output, log = run.communicate()
    assert run.returncode == 4, log
    assert f"stopped by {'its deadline' if how == 'deadline' else 'SIGTERM'}" in json.loads(output)["message"]
    state = toy.state()
    assert (state["squares"], state["digits"]) == (0, 0)
    assert state["jobs"]["toy_pipeline.Square"] == {"pending": 3}


def test_silent_crews_lose_their_keys_and_beating_ones_do_not(toy: Toy) -> None:
    """Of two other machines that hold keys, one is unplugged and one is only slow."""
    toy.insert(range(12))
    toy.execute("""
Square.jobs.refresh(delay=-1)
ledger.Round.insert1({'round': 'other', 'machine': 'm', 'started': ''})
for crew, numbers in ((2**41, (0, 1)), (2**42, (2, 3))):
    ledger.Worker.insert1({'worker': crew, 'round': 'other', 'machine': 'm', 'crew': crew, 'number': 0,
                           'pid': 1, 'place': 'elsewhere'})
    for number in numbers:
        Square.jobs.update1({'number': number, 'status': 'reserved', 'connection_id': crew, 'pid': 0})
""")
    with toy.background(_BEAT) as slow:
        assert slow.stdout is not None
        assert slow.stdout.readline() == "beating\n"
        toy.run(*SQUARES)
    assert sorted(toy.computations("Square")) == [0, 1, *range(4, 12)]
    state = toy.state()
    assert state["jobs"]["toy_pipeline.Square"] == {"reserved": 2}
    verdicts = toy.execute(
        "answer = {row['worker']: row['verdict'] for row in (ledger.Worker & {'machine': 'm'}).to_dicts()}"
    )
    assert verdicts == {str(2**41): "lost: its heart stopped beating", str(2**42): ""}


def test_a_key_that_kills_its_machine_is_given_up(toy: Toy) -> None:
    """The first loss of a crew only makes its keys suspect; then every attempt counts."""
    toy.insert(range(1))
    messages = []
    for _ in range(4):
        with toy.running(*SQUARES, "--retries", "2", TOY_SLEEP="3600") as run:
            before = len(toy.computations("Square"))
            wait_for(lambda before=before: len(toy.computations("Square")) > before, run)
            kill(run.pid)
            run.wait()
        toy.execute("""
from workflow.populate import crew, clerk, claim
queues = [claim.Queue(0, 'Square', tables['toy_pipeline.Square'], [])]
clerk.Desk(queues, claim.Owner(2**50, '', 0, '', ''), 2).look()
from workflow.populate.liveness import Watch
clerk.Desk(queues, claim.Owner(2**50, '', 0, '', ''), 2).look(
    Watch(queues[0].connection, 2**50, 0.5).look().dead)
""")
        messages += toy.execute(
            "answer = [(r['status'], r['error_message'][:10]) for r in Square.jobs.to_dicts()]"
        )
    assert messages == [
        ["pending", "put back: "],
        ["pending", "attempt 1:"],
        ["pending", "attempt 2:"],
        ["error", "attempt 3:"],
    ]


_BEAT = """
while True:
    ledger.beat(ledger.schema.connection, 2**42, [])
    print('beating', flush=True)
    time.sleep(0.1)
"""
