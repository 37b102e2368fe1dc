"""Pipelines that are not ours: other keys, every form of make, and computations that misbehave."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from databases import Server
from foreign_lab import ForeignLab
from lab import counts, one_line

from workflow.populate import machine

pytest_plugins = ("databases",)

N_SUBJECTS, N_VISITS = 3, 2
N_SCANS = N_SUBJECTS * N_VISITS * 2

TOTALS = "answer = study.Total().to_arrays('n_events').tolist()"
FINE = {"clinic.Scan", "clinic.Spectrum", "clinic.Fit", "clinic.Event", "clinic.Change", "study.Total"}


@pytest.fixture(params=["postgresql_server", "mysql_server"])
def clinic(request: pytest.FixtureRequest, schemas: Callable[[Server], str]) -> ForeignLab:
    """A clinic with a few visits, on each kind of server."""
    server = request.getfixturevalue(request.param)
    laboratory = ForeignLab(server, schemas(server))
    laboratory.execute(f"clinic.enter({N_SUBJECTS}, {N_VISITS})")
    return laboratory


def test_every_form_of_make_is_served(clinic: ForeignLab) -> None:
    """One run carries new visits through all tables; what they hold is right; a second run does nothing."""
    summary = clinic.json("run", "--processes", "2")
    expected = {
        "clinic.Scan": N_SCANS,
        "clinic.Spectrum": N_SCANS,
        "clinic.Fit": N_SCANS * 3,
        "clinic.Event": N_SCANS,
        "clinic.Change": N_SUBJECTS * 2 * N_VISITS * (N_VISITS - 1) // 2,
        "study.Total": N_SUBJECTS,
    }
    assert {label: count for label, count in counts(summary).items() if count[0]} == {
        label: (n, n, 0, 0) for label, n in expected.items()
    }
    assert set(counts(summary)) >= FINE
    rows = clinic.execute(
        """
answer = {
    'channels': len(clinic.Scan.Channel()),
    'bands': len(clinic.Spectrum.Band()),
    'events': len(clinic.Event()),
    'fits': sorted({row['slope'] / (clinic.Spectrum & row).fetch1('power') for row in clinic.Fit().to_dicts()
                    if (clinic.Spectrum & row).fetch1('power') > 0}),
    'changes': sorted(clinic.Change().to_arrays('change').tolist()),
    'totals': study.Total().to_arrays('n_events').tolist(),
    'jobs': [table.jobs.progress()['total'] for table in tables.values()],
    'wrong': [row for row in clinic.Scan().to_dicts()
              if (row['samples'] != (clinic.Visit & row).fetch1('level')).any()],
}
"""
    )
    assert rows["channels"] == N_SCANS * 3
    assert rows["bands"] == N_SCANS * 2
    assert rows["events"] == N_SCANS * 4
    assert rows["fits"] == sorted({5.0, 11.0, 14.0})
    assert set(rows["changes"]) == {0.5}
    assert rows["totals"] == [N_VISITS * 2 * 4] * N_SUBJECTS
    assert set(rows["jobs"]) == {0}
    assert rows["wrong"] == []
    assert clinic.json("run")["message"] == "nothing was due"


def test_a_table_that_gathers_rows_waits_until_they_are_complete(clinic: ForeignLab) -> None:
    """A subject's total is due from its first event on; in a run that computes more of them it comes last."""
    date = clinic.execute("answer = str(min(clinic.Visit().to_arrays('visit_date')))")
    first = ("--where", f"visit_date = '{date}'")
    clinic.json("run", "--tables", "Scan", "--tables", "Event", *first)
    assert clinic.execute("answer = len(study.Total().key_source)") == N_SUBJECTS
    clinic.json("run", "--processes", "2")
    assert clinic.execute(TOTALS) == [N_VISITS * 2 * 4] * N_SUBJECTS


def test_what_is_gathered_counts_whether_it_is_selected_or_not(clinic: ForeignLab) -> None:
    """Tables that a run leaves out are waited for; it ends all the same and says what waits for what."""
    date = clinic.execute("answer = str(min(clinic.Visit().to_arrays('visit_date')))")
    clinic.json("run", "--tables", "Scan")
    clinic.json("run", "--tables", "Event", "--where", f"visit_date = '{date}'")
    summary = clinic.json("run", "--tables", "Total")
    assert counts(summary) == {"study.Total": (0, 0, 0, 0)}
    assert summary["tables"][0]["waits"] == {"clinic.Event": N_SUBJECTS}
    assert summary["message"].startswith("3 keys of study.Total will be due when clinic.Event is complete")
    one = clinic.execute("answer = str(min(clinic.Subject().to_arrays('subject')))")
    clinic.json("run", "--tables", "Event", "--where", json.dumps({"subject": one}))
    clinic.json("run", "--tables", "Total")
    assert clinic.execute(TOTALS) == [N_VISITS * 2 * 4]


def test_a_failed_key_holds_back_what_would_gather_it(clinic: ForeignLab) -> None:
    """Until it is done or parked, and those keys only that would gather it; pending ones too."""
    clinic.execute("""
one = clinic.Visit().to_dicts(order_by='KEY')[0]
clinic.Visit.update1({**one, 'level': -1.0})
study.Total.jobs.insert1({'subject': one['subject'], 'status': 'pending', 'priority': 5})
""")
    for _ in range(2):
        run = clinic.workflow("run", "--json")
        assert run.returncode == 1, run.stderr
        summary = json.loads(run.stdout)
        assert counts(summary)["clinic.Event"][2] == 1
        waits = {table["table"]: table["waits"] for table in summary["tables"] if table["waits"]}
        assert waits == {"study.Total": {"clinic.Event": 1}}
        assert clinic.execute(TOTALS) == [N_VISITS * 2 * 4] * (N_SUBJECTS - 1)
    assert "1 key of study.Total will be due when clinic.Event is complete" in summary["message"]
    assert re.search(r"study.Total .* 1 waiting for clinic.Event\n", clinic.workflow("status").stdout)
    clinic.json("ignore", "--tables", "Event")
    clinic.json("run")
    assert sorted(clinic.execute(TOTALS)) == [(N_VISITS * 2 - 1) * 4] + [N_VISITS * 2 * 4] * (N_SUBJECTS - 1)


def test_the_report_shows_the_tables_of_any_pipeline(clinic: ForeignLab, tmp_path: Path) -> None:
    """What the round has added to; the verb draws the same, and every table when asked to."""
    ran = clinic.workflow("run", "--tables", "Scan", "--tables", "Spectrum", "--output", tmp_path)
    assert ran.returncode == 0, ran.stderr
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "without a connection" not in html
    assert "could not be drawn" not in html
    assert shown(html) == ["clinic.Scan", "clinic.Spectrum"]
    assert f"{N_SCANS} rows in the database; {N_SCANS} computed in this round" in html
    assert "power" in html

    clinic.json("run")
    again = ("report", "--summary", tmp_path / "summary.json", "--output", tmp_path / "again.html")
    assert clinic.workflow(*again).returncode == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html
    assert clinic.workflow(*again, "--all").returncode == 0
    everything = (tmp_path / "again.html").read_text(encoding="utf-8")
    assert set(shown(everything)) >= FINE
    assert "could not be drawn" not in everything


def test_a_table_of_more_rows_than_are_drawn_is_counted_rightly(clinic: ForeignLab) -> None:
    """The round's rows come first wherever they lie; a key may have several, and text stands for any type."""
    total, new, rows, first, caption, grouped = clinic.execute("""
from workflow.report import data
from workflow.report.default import any_table
n = data.MOST_ROWS + 1000
trouble.Way.insert(({'way': f'{i:05d}'} for i in range(n)))
trouble.Misbehaving.insert(({'way': f'{i:05d}', 'result': i} for i in range(n)), allow_direct_insert=True)
done = [{'way': f'{i:05d}'} for i in range(100)]
found = data.scalars(trouble.Misbehaving(), done)
[figure] = any_table('trouble.Misbehaving', trouble.Misbehaving(), 2500, done)
scan = {'samples': [0.0], **clinic.Visit().proj().to_dicts(order_by='KEY')[0]}
clinic.Scan.insert1(scan, allow_direct_insert=True)
key = {name: str(scan[name]) for name in clinic.Visit().primary_key}
clinic.Event.insert(({**key, 'event': i, 'height': 0} for i in range(3)), allow_direct_insert=True)
events = data.scalars(clinic.Event(), [key])
answer = [found.total, found.n_new, len(found.rows), sorted(row['result'] for row in found.rows[:100]),
          figure.caption, [events.n_new, events.total]]
""")
    assert (total, new, rows, first) == (6000, 100, 5000, list(range(100)))
    assert caption.startswith("6\u202f000 rows in the database; 2\u202f500 computed in this round")
    assert "one of 5\u202f000 rows, this round's first" in caption
    assert grouped == [3, 3]


def shown(html: str) -> list[str]:
    """Labels of the tables that a report draws."""
    return re.findall(r"<h3>(\w+\.\w+)</h3>", html[html.index('id="results"') :])


def test_computed_rows_can_be_traced(clinic: ForeignLab) -> None:
    """Every row names its commit and its worker, also where one make stores several rows."""
    commit = "0123456789abcdef" * 2 + "01234567"
    done = clinic.workflow("run", "--processes", "2", WORKFLOW_COMMIT=commit)
    assert done.returncode == 0, done.stderr
    found = clinic.execute("""
from workflow.populate.ledger import Worker
workers = {f"{row['worker']:x}": row for row in Worker().to_dicts()}
answer = []
for label, table in tables.items():
    query = f"SELECT _job_version, _job_start_time, _job_duration FROM {table.full_table_name}"
    for version, started, seconds in table.connection.query(query).fetchall():
        commit, _, worker = version.partition(' ')
        row = workers[worker]
        answer.append([label, commit, row['number'], row['software'],
                       row['started'] <= started <= row['ended'], seconds])
""")
    assert {label for label, *_ in found} >= FINE
    assert {commit for _, commit, *_ in found} == {commit[:40]}
    assert {number for _, _, number, *_ in found} <= {1, 2}
    assert {software for *_, software, _, _ in found} == {machine.software()}
    assert all(within and 0 <= seconds < 600 for *_, within, seconds in found)


def test_a_selection_by_any_kind_of_key(clinic: ForeignLab) -> None:
    """Each run does what its restriction selects and the runs before it have left."""
    left = N_SCANS
    for where, selected in (
        (
            '{"visit_date": "2024-02-29", "arm": "right", "subject": "ffff0000-0000-0000-0000-000000000002"}',
            1,
        ),
        ('{"subject": "ffff0000-0000-0000-0000-000000000001"}', N_VISITS * 2),
        ("visit_date > '2024-02-28' AND arm = 'right'", 1),
        ("arm LIKE 'r%'", 2),
        ('[{"arm": "middle"}, {"arm": "left", "visit_date": "2024-02-28"}]', 2),
        ("", 2),
    ):
        done = counts(clinic.json("run", "--tables", "clinic.Sc*", "--where", where))
        assert done == {"clinic.Scan": (selected, selected, 0, 0)}, where
        left -= selected
        assert clinic.execute("answer = len(clinic.Scan())") == N_SCANS - left
    assert left == 0


def test_text_in_keys_is_only_text(clinic: ForeignLab) -> None:
    """Quotes, percent signs, braces and comment marks in a key, and in a restriction."""
    where = json.dumps({"protocol": "50% o'clock"})
    clinic.json("run", "--tables", "Scan", "--tables", "Spectrum")
    summary = clinic.json("run", "--tables", "Fit", "--where", where)
    assert counts(summary) == {"clinic.Fit": (N_SCANS, N_SCANS, 0, 0)}
    where = json.dumps({"protocol": 'say "ü"; -- {}'})
    assert counts(clinic.json("run", "--tables", "Fit", "--where", where))["clinic.Fit"][1] == N_SCANS


#: Every way to misbehave: outcome, and words of its reason.
OUTCOMES: dict[str, tuple[str, str]] = {
    "fine": ("done", ""),
    "print": ("done", ""),
    "read": ("done", ""),
    "fork": ("done", ""),
    "pool": ("done", ""),
    "pool from scratch": ("done", ""),
    "end others": ("done", ""),
    "change directory": ("done", ""),
    "close files": ("done", ""),
    "commit": ("done", ""),
    "raise": ("failed", "ValueError: two lines, 100% wrong: {'a': 1}"),
    "raise late": ("failed", "ValueError: after it had inserted"),
    "raise long": ("failed", "ValueError: x"),
    "raise unspeakable": ("failed", "_SilentError"),
    "recurse": ("failed", "RecursionError"),
    "exit": ("failed", "SystemExit"),
    "exit hard": ("failed", "exit code 7"),
    "interrupt": ("failed", "KeyboardInterrupt"),
    "crash": ("failed", "SIGSEGV"),
    "kill": ("failed", "SIGKILL"),
    "nothing": ("failed", "without inserting a row"),
    "another key": ("failed", ""),
    "twice": ("failed", "Duplicate"),
    "roll back": ("failed", ""),
    "disconnect": ("failed", ""),
}


@pytest.fixture(scope="module", params=["postgresql_server", "mysql_server"])
def misbehaved(request: pytest.FixtureRequest) -> Any:
    """What a run over all ways to misbehave says, and the database says after it."""
    server = request.getfixturevalue(request.param)
    laboratory = ForeignLab(server, f"test_foreign_{server.backend}_")
    server.drop_schemas(laboratory.prefix)
    laboratory.execute(f"trouble.Way.insert([(way,) for way in {list(OUTCOMES)!r}])")
    run = laboratory.workflow("run", "--tables", "Misbehaving", "--processes", "2", "--json")
    after = laboratory.execute("""
table = trouble.Misbehaving
answer = {
    'rows': {row['way']: len(table.Piece & row) for row in table().to_dicts()},
    'jobs': {row['way']: [row['status'], row['error_message']] for row in table.jobs.to_dicts()},
}
""")
    yield laboratory, run, after
    server.drop_schemas(laboratory.prefix)


@pytest.mark.parametrize("way", OUTCOMES)
def test_a_make_that_misbehaves(misbehaved: Any, way: str) -> None:
    """It fails, or does not, alone; the reason is told; rows are all there or none."""
    _, run, after = misbehaved
    outcome, words = OUTCOMES[way]
    [key] = [key for key in json.loads(run.stdout)["keys"] if key["key"] == {"way": way}]
    assert key["outcome"] == outcome, key
    assert words in key["reason"]
    assert "\n" not in key["reason"]
    if outcome == "done":
        assert after["rows"][way] == 3
        assert way not in after["jobs"]
    else:
        assert way not in after["rows"]
        status, message = after["jobs"][way]
        assert status == "error"
        assert words in message


def test_misbehaviour_stays_out_of_the_output(misbehaved: Any) -> None:
    """Exit 1; stdout is JSON although a make printed; stderr has the noise; nobody is still reserved."""
    _, run, after = misbehaved
    assert run.returncode == 1
    assert json.loads(run.stdout)["verdict"] == "failed"
    assert "noise from make" in run.stderr
    assert "noise from a program" in run.stderr
    assert {status for status, _ in after["jobs"].values()} == {"error"}


def test_dead_workers_were_tried_again(misbehaved: Any) -> None:
    """Deaths of workers are tried two more times; mistakes of a computation are not."""
    _, run, _ = misbehaved
    attempts = {key["key"]["way"]: key["attempts"] for key in json.loads(run.stdout)["keys"]}
    assert attempts["kill"] == attempts["crash"] == attempts["exit hard"] == 3
    assert attempts["raise"] == attempts["fine"] == 1


def test_errors_are_grouped_parked_and_retried(misbehaved: Any) -> None:
    laboratory, _, after = misbehaved
    failed = {way for way, (outcome, _) in OUTCOMES.items() if outcome == "failed"}
    listed = laboratory.json("errors", "--tables", "Misbehaving")
    assert {entry["key"]["way"] for entry in listed} == failed
    text = laboratory.workflow("errors", "--traceback").stdout
    assert "two lines" in text
    assert "string_at" in text  # where it crashed
    where = json.dumps({"way": "raise"})
    assert laboratory.json("ignore", "--where", where, "--tables", "Misbehaving") == {
        "trouble.Misbehaving": 1
    }
    assert laboratory.json("plan", "--tables", "Misbehaving")[0]["due"] == len(failed) - 1
    again = laboratory.workflow("run", "--tables", "Misbehaving", "--where", where, "--json")
    assert counts(json.loads(again.stdout))["trouble.Misbehaving"] == (0, 0, 0, 0)
    assert laboratory.json("retry", "--ignored", "--where", where, "--tables", "Misbehaving") == {
        "trouble.Misbehaving": 1
    }
    states = laboratory.execute(
        "answer = {row['way']: row['status'] for row in trouble.Misbehaving.jobs.to_dicts()}"
    )
    assert states["raise"] == "pending"
    assert set(after["jobs"]) == set(states)


def test_generators_that_misbehave(clinic: ForeignLab) -> None:
    """Each fails alone and stores nothing."""
    ways = ("fine", "changing input", "open transaction", "raise", "raise late", "nothing")
    clinic.execute(f"trouble.Way.insert([(way,) for way in {ways!r}])")
    run = clinic.workflow("run", "--tables", "Fickle", "--processes", "2", "--json")
    assert run.returncode == 1
    told = {key["key"]["way"]: key for key in json.loads(run.stdout)["keys"]}
    assert {way: key["outcome"] for way, key in told.items()} == {
        way: "done" if way == "fine" else "failed" for way in ways
    }
    assert "changed" in told["changing input"]["reason"]
    assert "transaction" in told["open transaction"]["reason"]
    assert "LookupError: not found while it computed" in told["raise"]["reason"]
    assert "LookupError: after it had inserted" in told["raise late"]["reason"]
    assert "without inserting a row" in told["nothing"]["reason"]
    assert clinic.execute("answer = [row['way'] for row in trouble.Fickle().to_dicts()]") == ["fine"]


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ("foreign.nowhere", "foreign.nowhere"),
        ("no-module", "not the name of a Python module"),
        ("json", "no module among json has a 'schema = dj.Schema("),
    ],
)
def test_modules_that_cannot_be_served(postgresql_server: Server, modules: str, words: str) -> None:
    laboratory = ForeignLab(postgresql_server, "test_nothing_")
    result = laboratory.workflow("run", WORKFLOW_MODULES=modules)
    assert result.returncode == 2
    assert words in one_line(result)


def test_other_datajoint_clients_share_the_queue(clinic: ForeignLab) -> None:
    """Stock DataJoint fills the queue with a priority and reserves a key; the worker respects both."""
    key = clinic.execute("""
table = clinic.Scan
table.jobs.refresh(delay=-1, priority=7)
urgent = (table.jobs.pending & "arm = 'left'").keys(limit=1)[0]
table.jobs.update1({**urgent, 'priority': 1})
taken = (table.jobs.pending & "arm = 'right'").keys(limit=1)[0]
assert table.jobs.reserve(taken)
later = (table.jobs.pending & "arm = 'right'").keys(limit=1)[0]
import datetime
table.jobs.update1({**later, 'scheduled_time': datetime.datetime(2999, 1, 1)})
answer = [urgent, taken, later]
""")
    summary = clinic.json("run", "--tables", "Scan", "--processes", "1")
    assert counts(summary)["clinic.Scan"][1] == N_SCANS - 2
    assert summary["keys"][0]["key"] == key[0]
    left = clinic.execute("answer = {row['status']: row for row in clinic.Scan.jobs.to_dicts()}")
    assert set(left) == {"reserved", "pending"}
    assert key[1].items() <= left["reserved"].items()
    assert key[2].items() <= left["pending"].items()
