"""Trouble with the database while computations run."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from databases import Server, embedded_database, embedded_server
from restartable import ask, connect, cut_connections
from toy import Toy, wait_for

from workflow.pipeline.schemas import ALONE

pytest_plugins = ("databases",)


@pytest.fixture(params=["postgresql_server", "mysql_server"])
def toy(request: pytest.FixtureRequest, schemas: Callable[[Server], str], tmp_path: Path) -> Toy:
    server = request.getfixturevalue(request.param)
    return Toy(server, schemas(server), tmp_path)


def test_a_cut_connection_does_not_waste_a_computation(toy: Toy) -> None:
    """A make in three steps computes once, although its connection is cut while it does."""
    toy.insert(range(3))
    toy.run("--tables", "Square")
    with toy.running("--tables", "Root", "--processes", "3", TOY_SLEEP="2") as run:
        wait_for(lambda: len(toy.computations("Root")) == 3, run)
        assert cut_connections(toy.server) >= 4
        _, log = run.communicate()
    assert run.returncode == 0, log
    assert Counter(toy.computations("Root")) == Counter(range(3))
    assert toy.state()["roots"] == 3


def test_a_cut_connection_only_repeats_a_simple_make(toy: Toy) -> None:
    """A make of one step is inside a transaction, which is rolled back and done again."""
    toy.insert(range(8))
    with toy.running("--tables", "Square", "--processes", "2", TOY_SLEEP="0.5") as run:
        wait_for(lambda: len(toy.computations("Square")) >= 2, run)
        cut_connections(toy.server)
        _, log = run.communicate()
    assert run.returncode == 0, log
    state = toy.state()
    assert (state["squares"], state["wrong"], state["digits"]) == (8, [], 0)
    assert not any(state["jobs"].values())


def test_deadlocks_are_tried_again(toy: Toy) -> None:
    """The server ends one of two transactions that wait for each other; its key is done all the same."""
    toy.insert(range(4))
    toy.execute("Account.insert({'account': n, 'amount': 0} for n in (1, 2))")
    summary = toy.run("--tables", "Transfer", "--processes", "4")
    assert summary["tables"][0]["done"] == 4
    assert len(toy.computations("Transfer")) > 4


#: The answers to the first changes of a queue are lost; what they changed is not.
_LOST_ANSWERS = """
import datajoint as dj
from workflow.populate.attempt import Attempt, steadily
from workflow.populate.claim import Owner, Queue
from workflow.populate.clerk import Desk
dj.config["database.reconnect"] = False
queue = Queue(0, "toy_pipeline.Trouble", tables["toy_pipeline.Trouble"], [])
ask, lost = queue._query, set()
def lossy(statement, *values):
    found = ask(statement, *values)
    if statement.startswith("UPDATE") and values not in lost:
        lost.add(values)
        queue.connection._conn.close()
        raise dj.errors.LostConnectionError("cut")
    return found
ours, others = (Owner(2**50 + n, "", 0, "", "") for n in range(2))
queue.refresh()
jobs = queue.claim(3, ours)
queue._query = lossy
failed = Attempt(queue, jobs[0], ours.crew, "").run()
died = [
    steadily(queue.connection, lambda: Desk([queue], owner, retries).died(job, "it died"))
    for job, owner, retries in ((jobs[1], ours, 0), (jobs[2], ours, 2), (jobs[1], others, 0))
]
rows = {row["number"]: row["status"] for row in Trouble.jobs.to_dicts()}
answer = [failed.outcome, [death.outcome for death in died], rows, len(lost)]
"""


def test_a_failure_whose_answer_is_lost_is_a_failure_all_the_same(toy: Toy) -> None:
    """It is said again on another connection, when it is recorded already: the key is not somebody else's."""
    toy.execute("Number.insert({'number': n} for n in (1, 11, 21))")
    outcome, deaths, statuses, lost = toy.execute(_LOST_ANSWERS)
    assert outcome == "failed"
    assert deaths == ["failed", "again", "gone"]
    assert sorted(statuses.values()) == ["error", "error", "pending"]
    assert lost == 3


#: Somebody else's transaction that keeps a table to itself for some seconds.
_HOLDER = """
import threading
connection = Square.connection
name = Square.full_table_name
lock, unlock = {
    "mysql": (f"LOCK TABLES {name} WRITE", "UNLOCK TABLES"),
    "postgresql": (f"BEGIN; LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE", "COMMIT"),
}[connection.adapter.backend]
connection.query(lock)
print("locked", flush=True)
time.sleep(4)
connection.query(unlock)
"""
_IMPATIENT = """
import sys
from workflow.populate import dialect
dialect._WAITS = {
    "mysql": "SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1",
    "postgresql": "SET SESSION lock_timeout = '1s'",
}
from workflow.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_lock_of_somebody_else_is_waited_for_but_not_for_ever(toy: Toy) -> None:
    """Whoever waits too long gives up, and tries again; with a limit of 1 s here."""
    toy.insert(range(2))
    with toy.background(_HOLDER) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        arguments = ["-c", _IMPATIENT, "run", "--json", "--tables", "Square", "--processes", "2"]
        with toy._started(arguments, {}) as run:
            output, log = run.communicate()
        assert holder.wait() == 0
    assert run.returncode == 0, log
    assert '"verdict": "succeeded"' in output
    state = toy.state()
    assert (state["squares"], state["wrong"], state["digits"]) == (2, [], 0)


#: A disk that is full, as the server says it: for results, or also for failures.
_FULL = """
connection, backend = Large.connection, Large.connection.adapter.backend
where, quote = Large.database, "`" if Large.connection.adapter.backend == "mysql" else '"'
results, failures = Large.full_table_name, Large.jobs.full_table_name
if backend == "mysql":
    full = "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1021, MESSAGE_TEXT = 'Disk full (x)'"
    created = [
        f"BEFORE INSERT ON {results} FOR EACH ROW {full}",
        f"BEFORE UPDATE ON {failures} FOR EACH ROW IF NEW.status = 'error' THEN {full}; END IF",
    ]
else:
    connection.query(
        f'CREATE FUNCTION "{where}".full() RETURNS trigger LANGUAGE plpgsql AS '
        "'BEGIN RAISE EXCEPTION ''No space left on device'' USING ERRCODE = ''53100''; END'"
    )
    full = f'FOR EACH ROW {{}} EXECUTE FUNCTION "{where}".full()'
    created = [
        f"BEFORE INSERT ON {results} " + full.format(""),
        f"BEFORE UPDATE ON {failures} " + full.format("WHEN (NEW.status = 'error')"),
    ]
for number, trigger in enumerate(created[:given[0]]):
    name = f"`{where}`.full_{number}" if backend == "mysql" else f"full_{number}"
    connection.query(f"CREATE TRIGGER {name} {trigger}")
"""
_EMPTY = """
connection = Large.connection
for number, table in enumerate((Large, Large.jobs)[:given[0]]):
    if connection.adapter.backend == "mysql":
        connection.query(f"DROP TRIGGER `{Large.database}`.full_{number}")
    else:
        connection.query(f"DROP TRIGGER full_{number} ON {table.full_table_name}")
"""
_SOON_TIRED = """
import sys
from workflow.populate import attempt
attempt._TRIES[attempt.Trouble.FULL] = 2
from workflow.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("everything", [False, True])
def test_a_server_whose_disk_is_full_is_said_to_be_so(toy: Toy, everything: bool) -> None:
    """A key that cannot be stored fails after some tries; a run that cannot even say so ends, and is due."""
    toy.insert(range(1, 3))
    toy.execute("tables['toy_pipeline.Large'].jobs" + _FULL, 1 + everything)
    arguments = ["-c", _SOON_TIRED, "run", "--json", "--tables", "Large", "--processes", "1"]
    began = time.monotonic()
    with toy._started(arguments, {}) as run:
        output, log = run.communicate()
    assert time.monotonic() - began < 60, "nobody waits for space for as long as for a server"
    summary = json.loads(output)
    if everything:
        assert run.returncode == 4, log
        assert list(Counter(toy.computations("Large")).values()) == [3]
        told = summary["message"]
        assert toy.state()["jobs"]["toy_pipeline.Large"] == {"pending": 2}
    else:
        assert run.returncode == 1, log
        assert list(Counter(toy.computations("Large")).values()) == [3, 3]
        told = summary["keys"][0]["reason"]
        assert toy.state()["jobs"]["toy_pipeline.Large"] == {"error": 2}
    assert "No space left on device" in told or "Disk full" in told
    assert "the database server has no space left: free some, then retry" in told
    toy.execute(_EMPTY, 1 + everything)
    assert toy.run("--tables", "Large")["message"] == "2 of 2 keys done"


def test_waits_have_a_limit(toy: Toy) -> None:
    """What the servers do by themselves is to wait a year, or for ever."""
    limits = toy.execute("""
from workflow.populate import dialect
connection = Square.connection
dialect.limit_waits(connection)
names = {"mysql": ("lock_wait_timeout", "innodb_lock_wait_timeout"), "postgresql": ("lock_timeout",)}
sign = "@@" if connection.adapter.backend == "mysql" else "SHOW "
select = "SELECT " if sign == "@@" else ""
answer = [str(connection.query(f"{select}{sign}{name}").fetchone()[0])
          for name in names[connection.adapter.backend]]
""")
    assert limits in (["50", "50"], ["50s"])


def test_a_row_that_the_server_does_not_take_is_said_to_be_too_large(
    mysql_server: Server, schemas: Callable[[Server], str], tmp_path: Path
) -> None:
    """MySQL cuts the connection; that is not taken for trouble that would pass."""
    toy = Toy(mysql_server, schemas(mysql_server), tmp_path)
    toy.insert(range(1, 2))
    toy.insert(range(70, 71))
    summary = toy.run("--tables", "Large", "--processes", "1", code=1)
    outcomes = {key["key"]["number"]: (key["outcome"], key["reason"]) for key in summary["keys"]}
    assert outcomes[1] == ("done", "")
    assert outcomes[70][0] == "failed"
    assert "with 70 MiB of data is too large" in outcomes[70][1]
    assert "max_allowed_packet is 64 MiB" in outcomes[70][1]
    assert toy.computations("Large") == [1, 70]


def test_a_restart_of_the_server_is_waited_for(database_directory: Path, tmp_path: Path) -> None:
    assert embedded_database("start", database_directory).returncode == 0
    toy = Toy(embedded_server(database_directory), "toy_", tmp_path)
    toy.insert(range(20))
    with toy.running("--tables", "Square", "--tables", "Root", "--processes", "2", TOY_SLEEP="0.2") as run:
        wait_for(lambda: len(toy.computations("Square")) >= 5, run)
        assert embedded_database("stop", database_directory).returncode == 0
        assert embedded_database("start", database_directory).returncode == 0
        _, log = run.communicate()
    assert run.returncode == 0, log
    state = toy.state()
    assert (state["squares"], state["roots"], state["wrong"], state["digits"]) == (20, 20, [], 0)
    assert not any(state["jobs"].values())


def test_a_server_that_stays_away_ends_the_run(database_directory: Path, tmp_path: Path) -> None:
    assert embedded_database("start", database_directory).returncode == 0
    toy = Toy(embedded_server(database_directory), "toy_", tmp_path)
    toy.insert(range(20))
    arguments = ("--tables", "Square", "--processes", "2")
    with toy.running(*arguments, TOY_SLEEP="0.2", WORKFLOW_PATIENCE="1") as run:
        wait_for(lambda: len(toy.computations("Square")) >= 5, run)
        assert embedded_database("stop", database_directory).returncode == 0
        output, log = run.communicate()
    assert run.returncode == 3, log
    assert '"verdict": "unreachable"' in output
    assert "the connection to the database was lost" in output
    assert embedded_database("start", database_directory).returncode == 0
    toy.run("--tables", "Square")
    state = toy.state()
    assert (state["squares"], state["wrong"], state["digits"]) == (20, [], 0)
    assert not any(state["jobs"].values())


def test_a_server_that_goes_away_while_a_run_begins_is_waited_for(
    database_directory: Path, tmp_path: Path
) -> None:
    """Patience is for a server that was there; one that is not is said to be missing at once."""
    assert embedded_database("start", database_directory).returncode == 0
    toy = Toy(embedded_server(database_directory), "toy_", tmp_path)
    toy.insert(range(4))
    for patience, code in (("0.5", 3), ("300", 0)):
        with held_up(toy), toy.running("--tables", "Square", WORKFLOW_PATIENCE=patience) as run:
            wait_for(lambda: waiting(toy), run)
            assert embedded_database("stop", database_directory).returncode == 0
            if code == 3:
                output, log = run.communicate()
                assert "the connection to the database was lost" in output
                began = time.monotonic()
                again = toy.workflow("run")
                assert again.returncode == 3
                assert re.search(r"^unreachable: the postgresql server .* cannot be reached", again.stderr)
                assert time.monotonic() - began < 60, "not for as long as there would be patience"
            assert embedded_database("start", database_directory).returncode == 0
            if code == 0:
                _, log = run.communicate()
        assert run.returncode == code, log
        assert f"while the run begins: trying again for {patience} s" in log
    state = toy.state()
    assert (state["squares"], state["wrong"], state["digits"]) == (4, [], 0)


@pytest.mark.parametrize("ending", ["patience", "signal", "deadline"])
def test_who_declares_tables_is_not_waited_for_without_end(toy: Toy, ending: str) -> None:
    """With a limit of 1 s here, or without one until a signal or the run's deadline comes."""
    toy.insert(range(1))
    script = _DECLARING.format(patience=1 if ending == "patience" else 3600)
    arguments = ["--tables", "Square", *(["--deadline", "2s"] if ending == "deadline" else [])]
    with held_up(toy), toy._started(["-c", script, "run", *arguments], {}) as run:
        if ending == "signal":
            wait_for(lambda: waiting(toy), run)
            run.terminate()
        _, log = run.communicate(timeout=60)
    if ending == "signal":
        assert (run.returncode, "stopped by SIGTERM" in log) == (4, True), log
    elif ending == "deadline":
        assert (run.returncode, "stopped by its deadline" in log) == (4, True), log
    else:
        assert run.returncode == 2, log
        [line] = log.splitlines()
        assert "another process has been declaring tables for 1." in line
    assert toy.state()["squares"] == 0


_DECLARING = """
import sys
from workflow.pipeline import schemas
schemas.PATIENCE = {patience}
from workflow.cli import main
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def held_up(toy: Toy) -> Iterator[None]:
    """Hold the lock that a run needs before it declares its tables."""
    with closing(connect(toy.server)) as link, link.cursor() as cursor:

        def is_ours() -> bool:
            cursor.execute(ALONE[toy.server.backend][0])
            return bool(cursor.fetchone()[0])

        wait_for(is_ours)
        cursor.execute("SELECT 1")
        yield


def waiting(toy: Toy) -> bool:
    """Whether somebody asks for that lock again and again."""
    statement = ALONE[toy.server.backend][0].replace("'", "''")
    last = {
        "mysql": "SELECT COUNT(*) FROM performance_schema.events_statements_current "
        "JOIN performance_schema.threads USING (thread_id) "
        f"WHERE sql_text = '{statement}' AND processlist_user = SUBSTRING_INDEX(USER(), '@', 1)",
        "postgresql": f"SELECT COUNT(*) FROM pg_stat_activity WHERE query = '{statement}'",
    }[toy.server.backend]
    return bool(ask(toy.server, last)[0][0])
