"""run_workflow from an empty database to results, and everything that can go wrong on the way."""

from __future__ import annotations

import json
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from databases import ROOT, Server
from lab import Lab, counts, one_line

from workflow.populate import machine

pytest_plugins = ("databases",)

TABLE = "svd.PopulationSVD"
#: What does not depend on the table is tried on this one.
ONLY = ("--tables", TABLE)
#: What the recipe for tracing a row supposes.
KEY_OF_A_ROW = """
from workflow.populate import ledger
key = svd.PopulationSVD().keys(limit=1)[0]
"""


@pytest.fixture(params=["postgresql_server", "mysql_server"])
def lab(request: pytest.FixtureRequest, schemas: Callable[[Server], str]) -> Lab:
    """A laboratory with the small sample, on each kind of server."""
    server = request.getfixturevalue(request.param)
    laboratory = Lab(server, schemas(server))
    loaded = laboratory.workflow("sample")
    assert loaded.returncode == 0, loaded.stderr
    return laboratory


@pytest.fixture
def small_lab(postgresql_server: Server, schemas: Callable[[Server], str]) -> Lab:
    """A laboratory with the small sample, for what does not depend on the server."""
    laboratory = Lab(postgresql_server, schemas(postgresql_server))
    assert laboratory.workflow("sample").returncode == 0
    return laboratory


def test_plan_run_and_run_again(lab: Lab, tmp_path: Path) -> None:
    """What is due in any table is planned, computed once, reported, and never computed again."""
    planned = {entry["label"]: entry for entry in lab.json("plan")}
    assert planned[TABLE]["due"] == 22
    assert all(entry["done"] == entry["failed"] == 0 for entry in planned.values())

    summary = lab.json("run", "--output", tmp_path)
    found = counts(summary)
    assert found[TABLE] == (22, 21, 0, 1)
    assert list(found) == list(planned)
    for table, (due, done, failed, skipped) in found.items():
        assert due == done + skipped > 0, table
        assert due >= planned[table]["due"], table  # more, where it had to wait for its parents
        assert failed == 0, table
    assert summary["verdict"] == "succeeded"
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (tmp_path / "report.html").stat().st_size > 10_000
    skipped_keys = [key for key in summary["keys"] if key["outcome"] == "skipped"]
    assert len(skipped_keys) == sum(skipped for _, _, _, skipped in found.values())
    assert all(key["reason"] for key in skipped_keys)
    [population] = [key for key in skipped_keys if key["table"] == TABLE]
    assert population["reason"].startswith("too short: 1 time bin")

    again = lab.json("run")
    assert set(counts(again).values()) == {(0, 0, 0, 0)}
    assert again["message"] == "nothing was due"
    status = lab.json("status")
    assert status["tables"] == [
        {"label": table, "due": 0, "done": due, "failed": 0} for table, (due, *_) in found.items()
    ]
    assert [entry["n_done"] for entry in status["rounds"]] == [
        0,
        sum(done for _, done, _, _ in found.values()),
    ]
    assert lab.execute("answer = [len(table.jobs) for table in tables.values()]") == [0] * len(found)
    page = (ROOT / "docs" / "analyses.md").read_text(encoding="utf-8")
    [recipe] = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert lab.execute(KEY_OF_A_ROW + recipe + "answer = software") == machine.software()


def test_what_is_stored_is_what_was_planted(small_lab: Lab) -> None:
    """The stored decomposition reconstructs the traces, ROI by ROI, and recovers the planted latents."""
    small_lab.json("run", *ONLY)
    answer = small_lab.execute("""
import numpy as np
from workflow.pipeline.traces import fetch_activity
from workflow.sample.synthetic import recordings
checked = []
sessions = {(s.subject_id, s.session): s for s in recordings('small', 1)}
for row in (svd.PopulationSVD & "skip_reason = ''").to_dicts():
    if row['svd_params'] != 'mesoscope':
        continue
    key = {name: row[name] for name in svd.PopulationSVD().primary_key}
    activity = fetch_activity(key, 'dff')
    unused = {r['roi_number'] for r in (svd.PopulationSVD.UnusedROI & key).to_dicts()}
    order = ['fov_num', 'plane_num', 'channel_num', 'roi_number']
    stored = (svd.PopulationSVD.ROI & key).to_dicts(order_by=order)
    keep = [i for i, k in enumerate(activity.keys) if k['roi_number'] not in unused]
    Z = activity.F[keep].astype(float)
    Z = (Z - Z.mean(1, keepdims=True)) / Z.std(1, keepdims=True)
    assert [r['roi_number'] for r in stored] == [activity.keys[i]['roi_number'] for i in keep]
    U = np.stack([r['weights'] for r in stored])
    components = (svd.PopulationSVD.Component & key).to_dicts(order_by='component')
    Vt = np.stack([r['time_course'] for r in components])
    s = row['singular_values']
    assert row['n_rois'] == len(keep) and row['n_frames'] == Z.shape[1]
    assert abs((s**2).sum() / Z.size - 1) < 1e-9
    assert np.allclose(s, np.linalg.svd(Z, compute_uv=False), atol=1e-9 * s[0])
    k = row['k90']
    assert (s[:k] ** 2).sum() >= 0.9 * Z.size > (s[:k - 1] ** 2).sum()
    assert np.allclose(Z @ Vt[:k].T, U * s[:k], atol=1e-4 * s[0])
    checked.append(k)
answer = checked
""")
    assert len(answer) >= 5


def test_bad_and_excluded_things_are_left_out(small_lab: Lab) -> None:
    """Bad ROIs, ROIs without a variance, and epochs of sensory mapping never take part."""
    small_lab.json("run", *ONLY)
    answer = small_lab.execute("""
answer = {
    'bad': len(svd.PopulationSVD.ROI.proj() & img.ROIBad.proj()),
    'somatotopy': len(svd.PopulationSVD & exp2.SessionEpochSomatotopy.proj()),
    'somatotopy_epochs': len(exp2.SessionEpochSomatotopy()),
    'bad_rois': len(img.ROIBad()),
    'reasons': sorted({row['reason'] for row in svd.PopulationSVD.UnusedROI.to_dicts()}),
    'mesoscope': sorted({row['svd_params'] for row in (svd.PopulationSVD & img.Mesoscope.proj()).to_dicts()}),
    'other': sorted({row['svd_params'] for row in (svd.PopulationSVD - img.Mesoscope.proj()).to_dicts()}),
}
""")
    assert answer["bad"] == answer["somatotopy"] == 0
    assert answer["bad_rois"] > 0
    assert answer["somatotopy_epochs"] > 0
    assert len(answer["reasons"]) >= 2
    assert answer["mesoscope"] == ["mesoscope"]
    assert answer["other"] == ["other_0.2s", "other_0.5s", "other_1s"]


def test_a_key_that_fails_is_reported_and_the_rest_is_done(lab: Lab) -> None:
    """Exit 1; the error is kept in the database; mended, the key is computed in the next round."""
    lab.execute("""
row = (img.ROIdeltaF - img.ROIBad).to_dicts(limit=1)[0]
img.ROIdeltaF.update1({**row, 'dff_trace': {'not': 'an array'}})
""")
    failed = lab.workflow("run", "--json", *ONLY)
    assert failed.returncode == 1, failed.stderr
    summary = json.loads(failed.stdout)
    assert counts(summary) == {TABLE: (22, 20, 1, 1)}
    [key] = [key for key in summary["keys"] if key["outcome"] == "failed"]
    assert "dff_trace of ROI" in key["reason"]
    assert "not a vector of numbers" in key["reason"]
    assert lab.json("plan", *ONLY) == [{"label": TABLE, "due": 1, "done": 21, "failed": 1}]
    kept = lab.execute(
        "answer = [row['error_message'] for row in tables['svd.PopulationSVD'].jobs.errors.to_dicts()]"
    )
    assert kept == [key["reason"]]

    lab.execute("""
import numpy as np
for row in img.ROIdeltaF.to_dicts():
    if isinstance(row['dff_trace'], dict):
        epoch = {name: row[name] for name in exp2.SessionEpoch().primary_key}
        n = max(np.size(r['dff_trace']) for r in (img.ROIdeltaF & epoch).to_dicts(limit=5))
        img.ROIdeltaF.update1({**row, 'dff_trace': np.random.default_rng(1).standard_normal(n)})
""")
    assert counts(lab.json("run", *ONLY)) == {TABLE: (1, 1, 0, 0)}
    assert lab.json("plan", *ONLY)[0]["failed"] == 0


def test_a_selection_computes_only_what_it_names(small_lab: Lab) -> None:
    where = '{"session": 1, "svd_params": "mesoscope"}'
    planned = small_lab.json("plan", "--tables", "svd.*", "--where", where)[0]["due"]
    assert 0 < planned < 22
    found = counts(small_lab.json("run", "--tables", "svd.*", "--where", where))
    assert list(found) == [TABLE]
    assert found[TABLE][0] == planned
    sql = small_lab.json("run", "--tables", "PopulationSVD", "--where", "session = 2", "--max-calls", "1")
    assert counts(sql) == {TABLE: (1, 1, 0, 0)}
    assert small_lab.json("plan", *ONLY)[0]["due"] == 22 - planned - 1


@pytest.fixture(scope="module")
def untouched_lab(postgresql_server: Server) -> Iterator[Lab]:
    """A laboratory that only refused commands are tried on; in the end, nothing has changed."""
    laboratory = Lab(postgresql_server, f"test_{uuid.uuid4().hex[:10]}_")
    assert laboratory.workflow("sample").returncode == 0
    before = laboratory.json("status")
    yield laboratory
    assert laboratory.json("status") == before
    postgresql_server.drop_schemas(laboratory.prefix)


@pytest.mark.parametrize(
    ("arguments", "changes", "code", "words"),
    [
        (
            ["run", "--tables", "svd.Nothing"],
            {},
            2,
            "--tables svd.Nothing: no such table; there are: ",
        ),
        (
            ["run", *ONLY, "--where", "nonsense ="],
            {},
            2,
            "--where 'nonsense =': not a condition on svd.PopulationSVD",
        ),
        (["run", "--where", '{"animal": 1}'], {}, 2, "no key attribute 'animal'"),
        (["plan", "--where", "{"], {}, 2, "not JSON"),
        (["run"], {"DJ_PASS": "wrong"}, 2, "check DJ_USER and DJ_PASS"),
        (["run"], {"DJ_PORT": "1"}, 3, "cannot be reached"),
        (["run"], {"DJ_HOST": "no.such.host.invalid"}, 3, "check DJ_HOST"),
        (["run"], {"DJ_BACKEND": "oracle"}, 2, "DJ_BACKEND is 'oracle'"),
        (["sample"], {"WORKFLOW_UPSTREAM": "read"}, 2, "WORKFLOW_UPSTREAM=declare"),
        (["run"], {"WORKFLOW_UPSTREAM": "read", "WORKFLOW_SCHEMA_IMG": "nowhere"}, 2, "WORKFLOW_SCHEMA_IMG"),
        (["sample", "--suite2p", "/nowhere"], {}, 2, "/nowhere"),
        (["report", "--summary", "/nowhere.json"], {}, 2, "--summary /nowhere.json"),
        (["run", "--output", "/proc/nowhere"], {}, 2, "--output /proc/nowhere: cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    untouched_lab: Lab, arguments: list[str], changes: dict[str, str], code: int, words: str
) -> None:
    result = untouched_lab.workflow(*arguments, **changes)
    assert result.returncode == code, result.stderr
    line = one_line(result)
    assert words in line
    assert untouched_lab.server.password not in line


def test_upstream_tables_of_a_laboratory_are_read_and_never_changed(lab: Lab) -> None:
    """Where the upstream tables are somebody else's, the same is due, and the same results come out."""
    read = lab.workflow("plan", "--json", WORKFLOW_UPSTREAM="read")
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout) == lab.json("plan")
    summary = lab.workflow("run", "--json", *ONLY, "--max-calls", "3", WORKFLOW_UPSTREAM="read")
    assert summary.returncode == 0, summary.stderr
    assert counts(json.loads(summary.stdout)) == {TABLE: (3, 3, 0, 0)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_everything_due(small_lab: Lab, number: signal.Signals, tmp_path: Path) -> None:
    """Exit 4; the key in hand is neither lost nor marked as an error."""
    process = small_lab.start("run", *ONLY, "--output", str(tmp_path))
    assert process.stderr is not None
    for line in process.stderr:
        if "22 due" in line:
            break
    process.send_signal(number)
    _, _ = process.communicate(timeout=60)
    assert process.returncode == 4
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["verdict"] == "stopped"
    states = small_lab.execute("answer = tables['svd.PopulationSVD'].jobs.progress()")
    assert states["reserved"] == states["error"] == 0
    done = counts(summary)[TABLE][1]
    assert small_lab.json("plan", *ONLY)[0]["due"] == 22 - done - counts(summary)[TABLE][3]


def test_a_killed_run_loses_nothing(small_lab: Lab) -> None:
    """kill -9: the next run takes over what the dead one had reserved, and does nothing twice."""
    process = small_lab.start("run", *ONLY)
    assert process.stderr is not None
    for line in process.stderr:
        if "22 due" in line:
            break
    time.sleep(0.3)  # somewhere in the middle; every point must be safe
    process.kill()
    process.communicate(timeout=60)
    before = small_lab.json("plan", *ONLY)[0]
    assert before["due"] + before["done"] == 22
    after = small_lab.json("run", *ONLY)
    assert counts(after)[TABLE][0] == before["due"]
    assert counts(after)[TABLE][2] == 0
    assert small_lab.json("plan", *ONLY)[0] == {"label": TABLE, "due": 0, "done": 22, "failed": 0}
    parts = small_lab.execute("""
computed = svd.PopulationSVD & "skip_reason = ''"
answer = [len(svd.PopulationSVD.ROI()), int(sum(computed.to_arrays('n_rois')))]
""")
    assert parts[0] == parts[1] > 0
