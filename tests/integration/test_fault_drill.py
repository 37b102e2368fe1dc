"""The fault drill: whatever is killed, cut or restarted, every key is done exactly once.

Times and victims are random; ``WORKFLOW_DRILL_SEED`` repeats them as far as a machine can. Servers are this
module's own.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from clocks import wrong_clock
from drill import Drill, Seat
from drill_check import findings, in_between
from machines import Machine, destroyed_in_the_end, has_namespaces, wait_for
from restartable import Restartable, contained_mysql, cut_connections, embedded_postgresql

pytest_plugins = ("databases",)

KILLS = {"worker": 84, "container": 8, "supervisor": 7, "nursery": 3}  # 102
ITEMS = 250  # to begin with; two tables, so twice as many keys
MORE = 40  # at a time, while there is something to kill


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def restartable(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Restartable]:
    if request.param == "mysql":
        with contained_mysql(tmp_path_factory.mktemp("mysql")) as mysql:
            yield mysql
        return
    with embedded_postgresql() as postgresql:
        yield postgresql


@pytest.fixture
def drill(restartable: Restartable, tmp_path: Path) -> Iterator[Drill]:
    found = Drill(restartable.server, f"drill_{uuid.uuid4().hex[:8]}_", tmp_path)
    with destroyed_in_the_end(found.machines):
        found.declare()
        yield found
    restartable.server.drop_schemas(found.prefix)


@pytest.fixture
def rng() -> random.Random:
    seed = os.environ.get("WORKFLOW_DRILL_SEED") or secrets.token_hex(4)
    print(f"WORKFLOW_DRILL_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session", autouse=True)
def namespaces() -> None:
    if not has_namespaces():
        reason = "machines need namespaces: run this as root, or let users have them"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def check(drill: Drill) -> None:
    """All is well."""
    found = findings(drill)
    assert not found, "\n".join(found)


def test_a_hundred_kills(drill: Drill, rng: random.Random) -> None:
    """Workers, supervisors, containers are killed at random times, on two machines that share a queue."""
    seats = [Seat(drill, "", rng), Seat(drill, "container", rng)]
    todo = [what for what, count in KILLS.items() for _ in range(count)]
    rng.shuffle(todo)
    drill.add(ITEMS)
    while todo:
        for seat in seats:
            seat.sit()
        time.sleep(rng.uniform(0.0, 0.2))
        rng.shuffle(seats)
        hit = any(seat.strike(todo[-1]) for seat in seats)
        if hit:
            drill.kills[todo.pop()] += 1
        if not hit or len(todo) % 8 == 0:
            assert in_between(drill) == []
            if drill.count("item") - drill.count("__second") < 2 * MORE:
                drill.add(MORE)
    drill.finish()
    print(f"{dict(drill.kills)} killed, {drill.restarts} restarts, {2 * drill.count('item')} keys")
    assert drill.kills.total() >= 100
    assert 2 * drill.count("item") >= 500
    check(drill)


def test_stopped_at_random_times(drill: Drill, rng: random.Random) -> None:
    """SIGTERM, once or twice, to process 1 of a container or to a process: exit 4, nothing reserved."""
    drill.add(MORE)
    for number in range(6):
        name, is_early, impatient = rng.choice(["", "container"]), rng.random() < 0.2, rng.random() < 0.4
        machine = drill.start(name=name)
        if not is_early:
            wait_for("its start", lambda log=machine.log: "due" in log.read_text())  # type: ignore[misc]
        pause = rng.uniform(0, 1)
        time.sleep(pause)
        for _ in range(1 + impatient):
            machine.signal(rng.choice([signal.SIGTERM, signal.SIGINT]))
            time.sleep(rng.uniform(0, 0.1))
        code = machine.wait()
        text = machine.log.read_text()
        if "drill_pipeline" not in text and code != 4:  # it was not even ready to be told
            assert code in {-signal.SIGTERM, -signal.SIGINT, 128 + 15, 130, 0}, f"{number}: {text}"
        else:
            assert code in {0, 4}, f"{number}: exit code {code} after {pause:.2f} s: {text}"
        assert states(drill) <= {"pending"}
        assert in_between(drill) == []
        drill.add(10)
    drill.finish()
    check(drill)


def states(drill: Drill) -> set[str]:
    """Statuses in the queues."""
    return {
        str(status)
        for table in ("~~first", "~~second")
        for (status,) in drill.query(f"SELECT status FROM {drill.table(table)}")
    }


@pytest.mark.parametrize("how", ["restart", "crash", "cut connections"])
def test_the_server_goes_away(drill: Drill, restartable: Restartable, how: str) -> None:
    """Runs whose server is restarted, or crashes, or cuts their connections, go on all the same."""
    trouble: Callable[[], object] = {
        "restart": restartable.restart,
        "crash": restartable.crash,
        "cut connections": lambda: cut_connections(drill.server),
    }[how]
    note_losses(drill)
    drill.add(MORE)
    machines = [drill.start(), drill.start(name="container")]
    for machine in machines:  # one that has not begun yet says that there is no server, and ends
        wait_for("its start", lambda log=machine.log: "due" in log.read_text())  # type: ignore[misc]
    for part in (1, 2):
        wait_for("some results", lambda part=part: drill.count("__first") > 10 * part)  # type: ignore[misc]
        drill.add(MORE)
        trouble()
    for machine in machines:
        assert machine.wait() == 0, machine.tail()
    assert drill.is_done()
    assert drill.count("loss") == 0, "a living crew was taken for a dead one when the server came back"
    drill.finish()
    check(drill)


def note_losses(drill: Drill) -> None:
    """Have the server note whom somebody takes for dead: a crew that lives takes that back in the ledger."""
    worker, losses, name = drill.table("worker", "ledger"), drill.table("loss"), "note_loss"
    drill.query(f"CREATE TABLE {losses} (worker BIGINT)")
    note = f"INSERT INTO {losses} VALUES (NEW.worker)"
    when = f"AFTER UPDATE ON {worker} FOR EACH ROW"
    if drill.server.backend == "mysql":
        trigger = f"{drill.table(name, 'ledger')} {when} IF NEW.verdict LIKE 'lost%' THEN {note}; END IF"
    else:
        function = f"{drill.table(name)}()"
        body = f"'BEGIN {note}; RETURN NULL; END'"
        drill.query(f"CREATE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql AS {body}")
        trigger = f"{name} {when} WHEN (NEW.verdict LIKE 'lost%') EXECUTE FUNCTION {function}"
    drill.query(f"CREATE TRIGGER {trigger}")


def test_two_machines_share_one_queue(drill: Drill) -> None:
    """Machines with networks of their own, one with a slow clock in another time zone, do nothing twice.

    Each key of the slow one takes longer than a heart may be silent.
    """
    note_losses(drill)
    drill.add(2 * MORE)
    machines = [
        drill.start(name="east", cable=True, TZ="Asia/Tokyo"),
        drill.start(
            name="west", cable=True, TZ="US/Hawaii", DRILL_PAUSE="1.5", **wrong_clock(drill.folder, -2)
        ),
    ]
    await_results_of_both(drill, machines)
    for machine in machines:
        assert machine.wait() == 0, machine.tail()
    assert drill.is_done()
    ended = dict(drill.query(f"SELECT machine, ended FROM {drill.table('round', 'ledger')}"))
    slow = datetime.fromisoformat(ended["east"]) - datetime.fromisoformat(ended["west"])
    assert slow.total_seconds() > 7000, "its clock was slow indeed"
    assert drill.count("loss") == 0, "a long make was taken for a dead one"
    drill.finish()
    check(drill)


def await_results_of_both(drill: Drill, machines: list[Machine]) -> None:
    """Wait until each of two machines has done something; until then, the quicker always has more to do."""
    while len(done_by(drill)) < 2:
        if drill.count("item") - drill.count("__second") < MORE:
            drill.add(MORE)
        for machine in machines:
            assert machine.exit_code() is None, machine.tail()


def done_by(drill: Drill) -> set[str]:
    """Machines whose results are in the database."""
    query = (
        f"SELECT DISTINCT w.machine FROM {drill.table('worker', 'ledger')} AS w "
        f"JOIN {drill.table('__first')} AS t ON t._job_version LIKE CONCAT('%', {_hexadecimal(drill)})"
    )
    return {machine for (machine,) in drill.query(query)}


def _hexadecimal(drill: Drill) -> str:
    return "LOWER(HEX(w.worker))" if drill.server.backend == "mysql" else "to_hex(w.worker)"


def test_an_unplugged_machine_is_replaced(drill: Drill) -> None:
    """It stays silent, so another does its keys; plugged in again, it stores nothing that is not its own."""
    lost = drill.start(name="lost", cable=True, DRILL_PAUSE="0.05")
    assert lost.cable is not None
    drill.add(MORE)
    wait_for("its first results", lambda: drill.count("__first") > 3)
    lost.cable.pull()
    other = drill.start(name="other", cable=True)
    assert other.wait() == 0, other.tail()
    assert drill.is_done(), "keys of the unplugged machine were not taken over"
    drill.add(5)
    lost.cable.push()
    assert lost.wait() in {0, 4}, lost.tail()
    drill.finish()
    check(drill)


def test_stopped_while_its_database_says_nothing(drill: Drill) -> None:
    """One SIGTERM ends it all the same, soon after the grace; what it had in hand is done by others."""
    mute = drill.start(name="mute", cable=True, DRILL_PAUSE="0.05")
    assert mute.cable is not None
    drill.add(MORE)
    wait_for("its first results", lambda: drill.count("__first") > 3)
    mute.cable.pull()
    time.sleep(1)
    mute.signal(signal.SIGTERM)
    stopped = time.monotonic()
    code = mute.exit_code()
    while code is None and time.monotonic() < stopped + 60:
        time.sleep(0.1)
        code = mute.exit_code()
    mute.cable.push()
    assert code == 4, mute.tail()
    drill.cut_off += 1
    drill.finish()
    check(drill)


def test_a_network_that_comes_and_goes(drill: Drill, rng: random.Random) -> None:
    """Broken connections and short silences cost nobody a key."""
    drill.add(2 * MORE)
    machines = [drill.start(name=name, cable=True) for name in ("east", "west")]
    await_results_of_both(drill, machines)
    drill.add(2 * MORE)
    for _ in range(8):
        time.sleep(rng.uniform(0.1, 0.6))
        cable = rng.choice(machines).cable
        assert cable is not None
        cable.cut() if rng.random() < 0.6 else cable.pull()
        time.sleep(rng.uniform(0.05, 0.5))
        cable.push()
        drill.add(5)
    for machine in machines:
        assert machine.wait() == 0, machine.tail()
    assert states(drill) <= {"pending"}, "items that were added after the end, and nothing else"
    drill.finish()
    check(drill)
