"""The worker on a pipeline that is not ours, when all goes well and when computations misbehave."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import Server
from lab import counts, one_line
from toy import COMMIT, Toy, wait_for

pytest_plugins = ("databases",)


@pytest.fixture(params=["postgresql_server", "mysql_server"])
def toy(request: pytest.FixtureRequest, schemas: Callable[[Server], str], tmp_path: Path) -> Toy:
    server = request.getfixturevalue(request.param)
    return Toy(server, schemas(server), tmp_path)


def test_one_run_carries_new_numbers_through_all_tables(toy: Toy) -> None:
    """Tables are computed in their order, each key once; rows and the ledger say who did it."""
    toy.insert(range(40))
    summary = toy.run("--tables", "Square", "--tables", "Root", "--processes", "3")
    assert counts(summary) == {"toy_pipeline.Square": (40, 40, 0, 0), "toy_pipeline.Root": (40, 40, 0, 0)}
    assert {key["worker"] for key in summary["keys"]} <= {1, 2, 3}
    assert {key["attempts"] for key in summary["keys"]} == {1}
    state = toy.state()
    assert (state["squares"], state["roots"], state["wrong"], state["digits"]) == (40, 40, [], 0)
    assert not any(state["jobs"].values())
    assert state["alive"] == 0
    assert sorted(toy.computations("Square")) == sorted(toy.computations("Root")) == list(range(40))

    made = toy.execute("""
connection = ledger.schema.connection
rows = []
for table in (Square, Root):
    rows += connection.query(
        f'SELECT _job_version, _job_duration, _job_start_time FROM {table.full_table_name}').fetchall()
workers = {row['worker']: row for row in ledger.Worker.to_dicts()}
answer = [(v.split()[0], workers[int(v.split()[1], 16)]['number'], d >= 0, t is not None) for v, d, t in rows]
""")
    assert len(made) == 80
    assert {(commit, known, timed) for commit, _, known, timed in made} == {(COMMIT, True, True)}
    assert {number for _, number, _, _ in made} == {key["worker"] for key in summary["keys"]}
    rows = toy.execute("answer = ledger.Worker.to_dicts(order_by='number')")
    assert sum(row["n_done"] for row in rows if row["number"]) == rows[0]["n_done"] == 80
    assert all(row["peak_memory"] > 0 for row in rows if row["n_done"] and row["number"])

    again = toy.run("--tables", "Square", "--tables", "Root")
    assert again["message"] == "nothing was due"


def test_every_way_to_misbehave_is_told_and_the_rest_is_done(toy: Toy) -> None:
    """A make that raises, exits, dies, prints, forks or stores nothing; then errors, ignore and retry."""
    toy.insert(range(10))
    summary = toy.run("--tables", "Trouble", "--processes", "2", code=1)
    reasons = {key["key"]["number"]: key["reason"] for key in summary["keys"]}
    attempts = {key["key"]["number"]: key["attempts"] for key in summary["keys"]}
    assert [number for number, reason in sorted(reasons.items()) if not reason] == [0, 7, 8]
    assert reasons[1] == "ValueError: this number is wrong"
    assert reasons[2] == "SystemExit: the computation called exit(3)"
    assert "attempt 3: the worker ended with exit code 7" in reasons[3]
    assert "attempt 3: the worker was killed (SIGKILL)" in reasons[4]
    assert "attempt 3: the worker crashed (SIGSEGV)" in reasons[5]
    assert "make() ended without inserting a row" in reasons[6]
    assert reasons[9].startswith("KeyboardInterrupt")
    assert [attempts[number] for number in range(10)] == [1, 1, 1, 3, 3, 3, 1, 1, 1, 1]
    assert toy.state()["jobs"]["toy_pipeline.Trouble"] == {"error": 7}

    listed = json.loads(toy.workflow("errors", "--json", "--traceback").stdout)
    found = {failure["key"]["number"]: failure for failure in listed}
    assert {number: failure["message"] for number, failure in found.items()} == {
        number: reason for number, reason in reasons.items() if reason
    }
    assert "misbehave" in found[1]["traceback"]
    assert "string_at" in found[5]["traceback"]
    assert {failure["commit"] for failure in listed} == {COMMIT}
    assert all(failure["worker"] for failure in listed)
    text = toy.workflow("errors").stdout
    assert "toy_pipeline.Trouble: 1 key: ValueError: this number is wrong" in text

    parked = toy.workflow("ignore", "--where", "number = 1")
    assert "toy_pipeline.Trouble: 1 parked" in parked.stdout
    mended = toy.run("--tables", "Trouble", TOY_MENDED="yes")
    assert counts(mended) == {"toy_pipeline.Trouble": (6, 6, 0, 0)}
    assert toy.state()["jobs"]["toy_pipeline.Trouble"] == {"ignore": 1}
    assert json.loads(toy.workflow("plan", "--tables", "Trouble", "--json").stdout)[0]["due"] == 0
    assert "1 put back" in toy.workflow("retry", "--ignored").stdout
    assert counts(toy.run("--tables", "Trouble", TOY_MENDED="yes")) == {"toy_pipeline.Trouble": (1, 1, 0, 0)}
    assert toy.workflow("errors", "--ignored").stdout == "no key has failed\n"


def test_the_status_is_live(toy: Toy) -> None:
    """While two workers are at it: who does what, how fast, how long yet, and what fails above all else."""
    toy.insert(range(60))
    toy.run("--tables", "Trouble", "--where", "number = 1", code=1)
    with toy.running("--tables", "Square", "--processes", "2", TOY_SLEEP="0.5") as run:
        wait_for(lambda: len(toy.computations("Square")) > 6, run)
        seen = json.loads(toy.workflow("status", "--json").stdout)
        with toy._started(["-m", "workflow", "status", "--watch", "1"], {}) as watch:
            assert watch.stdout is not None
            text = "".join(itertools.takewhile(lambda line: " keys/s" not in line, watch.stdout))
            lines = list(itertools.takewhile(lambda line: " keys/s" not in line, watch.stdout))
            time.sleep(0.2)  # it rests between two looks
            watch.terminate()
            assert watch.wait() == 0
        run.terminate()
        run.communicate()
    captain, *workers = seen["workers"]
    assert (captain["number"], [worker["number"] for worker in workers]) == (0, [1, 2])
    assert all(re.match(r"toy_pipeline\.Square \{'number': \d+\}", worker["doing"]) for worker in workers)
    assert all(worker["silent"] < 5 for worker in workers)
    assert 0 < seen["rate"] < 4, "two workers, half a second per key"
    assert seen["seconds_left"] == pytest.approx(sum(each["due"] for each in seen["tables"]) / seen["rate"])
    tables = {each["label"]: each for each in seen["tables"]}
    assert tables["toy_pipeline.Trouble"]["failed"] == 1
    assert 4 <= tables["toy_pipeline.Square"]["done"] < 60

    failing, computing = [line for line in text.splitlines() if line.startswith("toy_pipeline.")][:2]
    assert re.match(r"toy_pipeline\.Trouble +\[\.+\]  0 of 60 done, 1 failed, 59 due", failing)
    square = r"toy_pipeline\.Square +\[#*\.+\]  (\d+) of 60 done, \d in work, \d+ due"
    found = re.match(square, computing)
    assert found, computing
    again = next(filter(None, (re.match(square, line) for line in lines)))
    assert int(again[1]) > int(found[1]), "the second look is a second later"
    assert re.search(
        r"^  worker 2 \(\d+ done.*\): toy_pipeline\.Square \{'number': \d+\}$", text, re.MULTILINE
    )


def test_errors_disappear_when_somebody_else_does_their_keys(toy: Toy) -> None:
    """A user's own populate does not touch the queue."""
    toy.insert(range(4))
    toy.execute("""
Square.jobs.refresh(delay=-1)
for number, status in enumerate(("error", "error", "ignore", "ignore")):
    Square.jobs.update1({"number": number, "status": status, "error_message": "wrong"})
Square.populate("number in (0, 2)")
""")
    [planned] = json.loads(toy.workflow("plan", "--tables", "Square", "--json").stdout)
    assert (planned["due"], planned["done"], planned["failed"]) == (1, 2, 1)
    listed = json.loads(toy.workflow("errors", "--ignored", "--json").stdout)
    assert sorted(failure["key"]["number"] for failure in listed) == [1, 3]
    assert json.loads(toy.workflow("retry", "--json", "--tables", "Square").stdout) == {
        "toy_pipeline.Square": 1
    }


def test_what_waits_is_told_and_can_be_freed(toy: Toy) -> None:
    """Keys of other DataJoint clients, keys for later, keys that were done until somebody deleted them."""
    toy.insert(range(7))
    toy.execute("""
Square.jobs.refresh(delay=-1)
for number in (0, 1):
    Square.jobs.reserve({"number": number})
Square.jobs.update1({"number": 2, "scheduled_time": "2099-01-01 00:00:00"})
for number, status in ((3, "success"), (4, "success")):
    Square.jobs.update1({"number": number, "status": status})
for number, status in ((5, "reserved"), (6, "reserved")):
    Square.jobs.update1({"number": number, "status": status, "connection_id": 2**41 + number})
Square.populate("number = 4")
ledger.Round.insert1({"round": "other", "machine": "m", "started": ""})
ledger.Worker.insert1({"worker": 2**41 + 5, "round": "other", "machine": "m", "crew": 2**41 + 5, "number": 0,
                       "pid": 1, "place": "elsewhere"})
""")
    only = ("--tables", "Square")
    with toy.background(_BEAT) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == "beating\n"
        first = toy.run(*only)
        assert counts(first) == {"toy_pipeline.Square": (2, 2, 0, 0)}
        assert (first["tables"][0]["held"], first["tables"][0]["later"]) == (2, 1)
        assert sorted(toy.computations("Square")) == [3, 4, 6]
        assert re.fullmatch(
            r"2 of 2 keys done; 2 keys are reserved by other DataJoint clients \(.*\); "
            "1 key is scheduled for later",
            first["message"],
        )
        again = toy.workflow("run", *only)
        assert again.returncode == 0
        assert "nothing was due" not in again.stdout
        assert "succeeded: 2 keys are reserved by other DataJoint clients" in again.stdout
        assert "no key has failed" in toy.workflow("retry", *only).stdout
        assert "2 put back" in toy.workflow("retry", "--reserved", *only).stdout
        assert counts(toy.run(*only)) == {"toy_pipeline.Square": (2, 2, 0, 0)}
        assert toy.state()["jobs"]["toy_pipeline.Square"] == {"pending": 1, "reserved": 1, "success": 1}


_BEAT = """
while True:
    ledger.beat(ledger.schema.connection, 2**41 + 5, [])
    print('beating', flush=True)
    time.sleep(0.1)
"""


def test_a_run_can_be_limited(toy: Toy) -> None:
    toy.insert(range(30))
    where = ["--tables", "Square", "--where", "number >= 10"]
    planned = json.loads(toy.workflow("run", "--dry-run", "--json", *where).stdout)
    assert [(entry["due"], entry["done"]) for entry in planned] == [(20, 0)]
    assert toy.state()["squares"] == 0
    few = toy.run(*where, "--max-calls", "7", "--processes", "3")
    assert counts(few) == {"toy_pipeline.Square": (7, 7, 0, 0)}
    assert counts(toy.run(*where, "--processes", "2")) == {"toy_pipeline.Square": (13, 13, 0, 0)}
    assert min(toy.computations("Square")) == 10
    urgent = toy.execute("""
Square.jobs.refresh()
for number in (5, 3):
    Square.jobs.update1({'number': number, 'priority': 1})
Square.jobs.update1({'number': 7, 'scheduled_time': '2099-01-01 00:00:00'})
""")
    assert urgent is None
    last = toy.run("--tables", "Square", "--processes", "1")
    assert counts(last) == {"toy_pipeline.Square": (9, 9, 0, 0)}
    assert last["message"] == "9 of 9 keys done; 1 key is scheduled for later"
    order = toy.computations("Square")[20:]
    assert sorted(order[:2]) == [3, 5]
    assert 7 not in order


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--processes", "0"], "'0' is not a whole number above 0"),
        (["--retries", "-1"], "'-1' is not a whole number from 0"),
        (["--deadline", "soon"], "neither a time from now"),
        (["--deadline", "2020-01-01T00:00"], "is in the past"),
    ],
)
def test_bad_options_are_refused(
    postgresql_server: Server, tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = Toy(postgresql_server, "unused_", tmp_path).workflow("run", *arguments)
    assert result.returncode == 2
    assert words in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"WORKFLOW_MODULES": "no_such_pipeline"}, "WORKFLOW_MODULES: the module no_such_pipeline cannot be"),
        ({"WORKFLOW_MODULES": "json"}, "has a 'schema = dj.Schema"),
        ({"WORKFLOW_MODULES": "a-b"}, "'a-b' is not the name of a Python module"),
        ({"WORKFLOW_HEARTBEAT": "often"}, "WORKFLOW_HEARTBEAT is 'often'"),
    ],
)
def test_bad_settings_are_refused(
    postgresql_server: Server,
    schemas: Callable[[Server], str],
    tmp_path: Path,
    changes: dict[str, str],
    words: str,
) -> None:
    result = Toy(postgresql_server, schemas(postgresql_server), tmp_path).workflow("run", **changes)
    assert result.returncode == 2, result.stderr
    assert words in one_line(result)


def test_statements_per_key(mysql_server: Server, schemas: Callable[[Server], str], tmp_path: Path) -> None:
    """The server counts them: they hardly grow with the number of workers."""
    toy = Toy(mysql_server, schemas(mysql_server), tmp_path)
    for processes, most, first in ((1, 8, 0), (16, 9, 400)):
        toy.insert(range(first, first + 400))
        toy.execute("tables['toy_pipeline.Square'].jobs")
        before = toy.execute(_QUESTIONS)
        summary = toy.run("--tables", "Square", "--processes", str(processes))
        after = toy.execute(_QUESTIONS)
        assert counts(summary) == {"toy_pipeline.Square": (400, 400, 0, 0)}
        overhead = toy.execute(_QUESTIONS) - after  # of looking
        assert 4 <= (after - before - overhead) / 400 <= most


_QUESTIONS = """
answer = int(ledger.schema.connection.query("SELECT variable_value FROM performance_schema.status_by_user "
    "WHERE user = SUBSTRING_INDEX(USER(), '@', 1) AND variable_name = 'Questions'").fetchone()[0])
"""
