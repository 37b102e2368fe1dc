"""Timescales of stored components, of a whole field of view and of areas."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from databases import Server
from lab import Lab

pytest_plugins = ("databases",)

#: An epoch on the mesoscope, one of 1500 frames at 30 Hz, and the epoch of a single frame.
WHERE = (
    "(subject_id = 100011 AND session = 1 AND session_epoch_number = 1)"
    " OR (subject_id = 100013 AND session = 2 AND session_epoch_number = 1)"
    " OR (subject_id = 100012 AND session = 1 AND session_epoch_number = 3)"
)
TABLES = ("svd.PopulationSVD", "area_svd.AreaSVD", "timescale.*")
CHECKS = """
import numpy as np
from workflow.pipeline import area_svd, timescale

def crossing(acf, level):
    for lag in range(1, len(acf)):
        if acf[lag] < level:
            return lag - 1 + (acf[lag - 1] - level) / (acf[lag - 1] - acf[lag])
    return None

def check(table, parent):
    answer = []
    for row in (table & "skip_reason = ''").to_dicts():
        key = {name: row[name] for name in table().primary_key}
        stored = (parent & key).fetch1()
        for name in ('n_rois', 'n_frames', 'frame_rate', 'bin_width'):
            assert row[name] == stored[name], name
        courses = (parent.Component & key).to_arrays('time_course', order_by='component')
        parts = (table.Component & key).to_dicts(order_by='component')
        assert [part['component'] for part in parts] == list(range(row['n_components']))
        assert len(courses) == row['n_components'] > 0
        n_lags = (timescale.TimescaleParams & key).fetch1('n_lags')
        censored = 0
        for part, x in zip(parts, courses):
            x = x.astype(float) - x.astype(float).mean()
            T = len(x)
            acf = np.array([x[:T - lag] @ x[lag:] for lag in range(n_lags)]) / (x @ x)
            assert np.allclose(part['autocorrelation'], acf, atol=1e-12) and part['unusable'] == ''
            for name, level in (('e1', np.exp(-1)), ('e2', np.exp(-2))):
                lag, tau = crossing(acf, level), part['tau_' + name]
                assert bool(part['censored_' + name]) == (tau is None) == (lag is None)
                assert lag is None or abs(tau - lag * row['bin_width']) < 1e-9
                censored += lag is None
            fit = [part[name] for name in ('tau_fit', 'fit_amplitude', 'fit_offset', 'fit_explained')]
            assert (None in fit) == (fit == [None] * 4)
            if fit[0] is not None:
                lags = np.arange(1, n_lags)
                curve = fit[1] * (np.exp(-lags * row['bin_width'] / fit[0]) + fit[2])
                left = np.sum((acf[1:] - curve) ** 2) / np.sum((acf[1:] - acf[1:].mean()) ** 2)
                assert abs(1 - left - fit[3]) < 1e-9 and 0 <= fit[3] <= 1
        answer.append([key.get('svd_params') or key['area_svd_params'], n_lags, row['bin_width'], censored])
    return answer
answer = {
    'whole': check(timescale.ComponentTimescale, svd.PopulationSVD),
    'area': check(timescale.AreaComponentTimescale, area_svd.AreaSVD),
    'skipped': [
        row['skip_reason']
        for table in (timescale.ComponentTimescale, timescale.AreaComponentTimescale)
        for row in (table & "skip_reason <> ''").to_dicts()
    ],
    'commits': sorted({row['code_commit'] for row in timescale.ComponentTimescale.to_dicts()}),
}
"""


@pytest.fixture(scope="module")
def lab(postgresql_server: Server) -> Iterator[Lab]:
    """A laboratory with the small sample and an additional, short choice of lags."""
    laboratory = Lab(postgresql_server, f"test_{uuid.uuid4().hex[:10]}_")
    assert laboratory.workflow("sample").returncode == 0
    laboratory.execute("""
from workflow.pipeline import timescale
timescale.TimescaleParams.insert1(('5_lags', 5))
""")
    yield laboratory
    postgresql_server.drop_schemas(laboratory.prefix)


@pytest.fixture(scope="module")
def answer(lab: Lab) -> Any:
    """What the checks found after a run."""
    chosen = [word for table in TABLES for word in ("--tables", table)]
    summary = lab.json("run", *chosen, "--where", WHERE)
    assert [entry["failed"] for entry in summary["tables"]] == [0, 0, 0, 0]
    return lab.execute(CHECKS)


def test_every_component_has_the_timescale_of_its_time_course(answer: Any) -> None:
    whole, areas = answer["whole"], answer["area"]
    assert {(name, lags) for name, lags, _, _ in whole} >= {("mesoscope", 50), ("mesoscope", 5)}
    assert {(name, lags) for name, lags, _, _ in areas} >= {("mesoscope", 50), ("mesoscope_1.5s", 50)}
    widths = {name: width for name, _, width, _ in areas}
    assert widths["mesoscope_1.5s"] == pytest.approx(15 / 9.37)
    assert sum(censored for _, lags, _, censored in whole if lags == 5) > 0
    assert answer["commits"] == [""]


def test_what_cannot_be_measured_says_why(answer: Any) -> None:
    reasons = set(answer["skipped"])
    assert "too short: 50 time bin(s), needs 51" in reasons
    inherited = {reason for reason in reasons if "was skipped" in reason}
    assert inherited == {
        "PopulationSVD was skipped: too short: 1 time bin(s), needs 2",
        "AreaSVD was skipped: too short: 1 time bin(s), needs 2",
        "AreaSVD was skipped: too short: 0 time bin(s), needs 2",
    }


def test_lags_that_make_no_sense_are_refused(lab: Lab) -> None:
    refused = lab.execute("""
import datajoint as dj
from workflow.pipeline import timescale
answer = []
for n_lags in (-1, 0, 4, 2001):
    try:
        timescale.TimescaleParams.insert1(('odd', n_lags))
    except dj.DataJointError as error:
        answer.append(str(error))
""")
    start = "timescale.TimescaleParams: parameter row timescale_params='odd' refused: "
    assert refused == [
        *(f"{start}n_lags is {n_lags}, must be at least 5" for n_lags in (-1, 0, 4)),
        f"{start}n_lags is 2001, must be at most 2000",
    ]


def test_the_second_look_fetches_no_component_and_sees_any_change(lab: Lab, answer: Any) -> None:
    """In the transaction that stores, the server's hashes stand for what is stored."""
    counts, digests = lab.execute("""
import numpy as np
from workflow.pipeline import components, timescale
fetched = []
given = components.fetch_blobs
components.fetch_blobs = lambda *said: fetched.append(said[1]) or given(*said)
table = timescale.ComponentTimescale()
key = (table & {'skip_reason': '', 'timescale_params': '5_lags'}).keys(order_by='KEY', limit=1)[0]
counts, digests = [], []
def look():
    inputs = table.read(key)
    digests.append(inputs.digest)
    counts.append(len(fetched))
    return inputs
inputs = look()
table.compute(inputs)
look()
row = (svd.PopulationSVD.Component & key & 'component = 1').fetch1()
svd.PopulationSVD.Component.update1({**row, 'time_course': -row['time_course']})
look()
svd.PopulationSVD.Component.update1(row)
row = (svd.PopulationSVD & key).fetch1()
svd.PopulationSVD.update1({**row, 'singular_values': 2 * row['singular_values']})
look()
svd.PopulationSVD.update1(row)
look()
answer = [counts, digests]
""")
    assert counts == [0, 2, 2, 2, 2]
    assert digests[0] == digests[1] == digests[4]
    assert len(set(digests)) == 3


def test_a_damaged_time_course_is_one_failed_key_that_is_named(lab: Lab, answer: Any) -> None:
    lab.execute("""
import numpy as np
from workflow.pipeline import timescale
key = (svd.PopulationSVD.Component & "svd_params = 'mesoscope'").keys(order_by='KEY', limit=1)[0]
svd.PopulationSVD.Component.update1({**key, 'time_course': np.zeros((2, 2))})
row = {name: key[name] for name in svd.PopulationSVD().primary_key}
(timescale.ComponentTimescale & row).delete(prompt=False)
""")
    result = lab.workflow("run", "--tables", "timescale.ComponentTimescale", "--where", WHERE, "--json")
    assert result.returncode == 1
    assert "time_course of component 0 of {" in result.stdout
    assert "(found float64, shape (2, 2))" in result.stdout


def test_a_time_course_that_was_cut_off_is_named_too(lab: Lab, answer: Any) -> None:
    lab.execute("""
import numpy as np
from datajoint import blob
from workflow.pipeline import timescale
table = svd.PopulationSVD.Component()
key = (table & "svd_params = 'mesoscope' AND component = 1").keys(order_by='KEY DESC', limit=1)[0]
where = ' AND '.join(f"{name} = '{value}'" for name, value in key.items())
query = f"UPDATE {table.full_table_name} SET time_course = %s WHERE {where}"
table.connection.query(query, args=(blob.pack(np.zeros(9000))[:-9],))
row = {name: key[name] for name in svd.PopulationSVD().primary_key}
(timescale.ComponentTimescale & row).delete(prompt=False)
""")
    result = lab.workflow("run", "--tables", "timescale.ComponentTimescale", "--where", WHERE, "--json")
    assert result.returncode == 1
    failed = [key["reason"] for key in json.loads(result.stdout)["keys"] if key["outcome"] == "failed"]
    [reason] = {one for one in failed if "component 1 of {" in one}  # of either row of parameters
    assert "PopulationSVD: time_course of component 1" in reason
    assert reason.endswith("incomplete or truncated stream")


def test_damaged_singular_values_are_one_failed_key_that_is_named(lab: Lab, answer: Any) -> None:
    """Text, a matrix, nothing, too few, lists that are no matrix: all else is computed."""
    lab.execute("""
import numpy as np
from workflow.pipeline import area_svd, timescale
rows = (area_svd.AreaSVD & "skip_reason = ''" & 'session_epoch_number = 1').keys(order_by='KEY')
for row, value in zip(rows, ('text', np.ones((3, 4)), None, np.ones(1), [[1.0], [1.0, 2.0]])):
    area_svd.AreaSVD.update1({**row, 'singular_values': value})
(timescale.AreaComponentTimescale & "timescale_params = '5_lags'").delete(prompt=False)
""")
    chosen = ("--tables", "AreaComponentTimescale", "--where", '{"timescale_params": "5_lags"}')
    result = lab.workflow("run", *chosen, "--json")
    assert result.returncode == 1
    summary = json.loads(result.stdout)
    failed = [key for key in summary["keys"] if key["outcome"] == "failed"]
    assert len(failed) == 5
    assert summary["tables"][0]["done"] > 0
    for key in failed:
        assert "singular_values of {" in key["reason"]
        assert all(repr(value) in key["reason"] for value in key["key"].values() if value != "5_lags")
        assert "\n" not in key["reason"]
    found = {key["reason"].rpartition("(found ")[2] for key in failed}
    assert found == {
        "<U4, shape ())", "float64, shape (3, 4))", "object, shape ())", "float64, shape (1,))",
        "object, shape (2,))",
    }  # fmt: skip
