"""The communication subspace on the small sample: pairs, what is stored, what is left out and refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from databases import Server
from lab import Lab, counts

pytest_plugins = ("databases",)

TABLE = "communication_subspace.CommunicationSubspace"
PROLOGUE = """
import numpy as np
from workflow.pipeline import communication_subspace as cs
from workflow.pipeline.traces import fetch_activity
rows = cs.CommunicationSubspace.to_dicts()
fine = [r for r in rows if r['communication_subspace_params'] == 'fine' and not r['skip_reason']]
def key_of(row):
    return {name: row[name] for name in cs.CommunicationSubspace().primary_key}
"""


@pytest.fixture(scope="module")
def lab(postgresql_server: Server) -> Iterator[Lab]:
    """A laboratory with the small sample, whose areas have twenty ROIs, and parameters for areas so small.

    One ROI is said to lie in two areas, and another area has a single ROI.
    """
    laboratory = Lab(postgresql_server, f"test_{uuid.uuid4().hex[:10]}_")
    assert laboratory.workflow("sample").returncode == 0
    laboratory.execute("""
from workflow.pipeline import communication_subspace as cs
cs.CommunicationSubspaceParams.insert1({
    'communication_subspace_params': 'fine', 'activity': 'dff', 'recording': 'mesoscope', 'time_bin': 0.2,
    'n_rois': 8, 'max_rank': 5, 'max_lag': 3, 'folds': 5, 'gap': 4, 'ridge_min': 0.001, 'ridge_max': 1,
    'n_ridges': 4, 'seed': 3})
first = {'subject_id': 100011, 'session': 1}
good = ((img.ROI() & first) - img.ROIBad) * img.ROIBrainArea.proj()
twice = (good & {'brain_area': 'MOs'}).keys(limit=1)[0]
alone = (good & {'brain_area': 'MOp'}).keys(limit=1)[0]
img.ROIBrainArea.insert([twice | {'brain_area': 'SSp-ul'}, alone | {'brain_area': 'VISp'}])
""")
    yield laboratory
    postgresql_server.drop_schemas(laboratory.prefix)


@pytest.fixture(scope="module")
def run(lab: Lab) -> Any:
    """The summary of the one run that the tests look at."""
    where = '{"session": 1, "communication_subspace_params": "fine"}'
    return lab.json("run", "--tables", TABLE, "--where", where)


def test_every_ordered_pair_is_computed_or_skipped_with_a_reason(run: Any) -> None:
    """Three epochs with five areas, of which one has a single ROI; three with four, one of a single frame."""
    keys = [key["key"] for key in run["keys"]]
    assert counts(run) == {TABLE: (3 * 20 + 3 * 12, 3 * 12 + 2 * 12, 0, 3 * 8 + 12)}
    assert all(key["source_area"] != key["target_area"] for key in keys)
    reasons = {key["reason"] for key in run["keys"] if key["outcome"] == "skipped"}
    short = {reason for reason in reasons if reason.startswith("too short")}
    assert short == {"too short: 0 time bin(s), needs 43"}
    assert all("0 in VISp" in reason or "1 in VISp" in reason for reason in reasons - short)
    assert all(reason.endswith("rank 5 needs 5 in each") for reason in reasons - short)


def test_areas_without_enough_rois_for_the_usual_ranks_are_skipped(lab: Lab) -> None:
    where = {"subject_id": 100012, "session": 2, "session_epoch_number": 2, "source_area": "MOp"}
    only = json.dumps(where | {"communication_subspace_params": "mesoscope"})
    usual = lab.json("run", "--tables", TABLE, "--where", only)
    assert counts(usual) == {TABLE: (3, 0, 0, 3)}
    assert all(key["reason"].endswith("rank 40 needs 40 in each") for key in usual["keys"])
    again = lab.json("run", "--tables", TABLE, "--where", only)
    assert counts(again) == {TABLE: (0, 0, 0, 0)}


@pytest.mark.usefixtures("run")
def test_what_is_stored_follows_from_the_traces(lab: Lab) -> None:
    """By the ROIs that are stored for either side; source and target are not exchanged."""
    answer = lab.execute(
        PROLOGUE
        + """
from workflow.analysis.communication_subspace import communication_subspace
checked, asymmetric, subsets = 0, 0, 0
for row in fine[::5]:
    key = key_of(row)
    sides = []
    for side, area in (('source', row['source_area']), ('target', row['target_area'])):
        activity = fetch_activity(key, 'dff')
        drawn = {r['roi_number'] for r in (cs.CommunicationSubspace.ROI & key & {'side': side}).to_dicts()}
        placed = {r['roi_number'] for r in (img.ROIBrainArea & key & {'brain_area': area}).to_dicts()}
        assert drawn <= placed and 5 <= len(drawn) == row[f'n_{side}'] <= min(8, row[f'n_{side}_available'])
        subsets += len(drawn) == 8 < row[f'n_{side}_available']
        F = activity.F[[i for i, k in enumerate(activity.keys) if k['roi_number'] in drawn]].astype(float)
        F = F[:, :F.shape[1] // 2 * 2].reshape(len(F), -1, 2).mean(2)
        sides.append((F - F.mean(1, keepdims=True)) / F.std(1, keepdims=True))
    assert row['n_frames'] == sides[0].shape[1] and np.isclose(row['bin_width'], 2 / 9.37)
    options = dict(max_rank=5, max_lag=3, folds=5, gap=4, ridges=[.001, .01, .1, 1])
    expected = communication_subspace(*sides, **options)
    lags = (cs.CommunicationSubspace.Lag & key).to_dicts(order_by='lag_bins')
    r2 = np.stack([r['r2'] for r in lags])
    assert np.allclose(r2, expected.r2, atol=1e-9)
    errors = np.stack([r['r2_standard_error'] for r in lags])
    assert np.allclose(errors, expected.standard_error, atol=1e-9)
    asymmetric += not np.allclose(r2, communication_subspace(*sides[::-1], **options).r2, atol=1e-3)
    assert [r['lag_bins'] for r in lags] == [0, 1, 2, 3]
    assert [r['best_r2'] for r in lags] == [r['r2'][r['best_rank']] for r in lags]
    assert [r['best_rank'] for r in lags] == expected.best_rank.tolist()
    assert np.allclose([r['lag_time'] for r in lags], np.arange(4) * 2 / 9.37)
    assert np.allclose(np.log([r['ridge'] for r in lags]), np.log(expected.ridge).mean(1))
    assert row['best_rank'] == expected.best_rank[expected.best_lag]
    assert np.isclose(row['best_r2'], r2[expected.best_lag, row['best_rank']])
    assert row['best_lag'] == (expected.best_lag if row['best_rank'] else None)
    checked += 1
answer = [checked, asymmetric, subsets, max(r['best_r2'] for r in fine)]
"""
    )
    checked, asymmetric, subsets, best = answer
    assert checked == 12
    assert asymmetric > 6
    assert subsets > 12  # of the two sides of each; the smallest area has fewer than nine good ROIs
    assert best > 0.2  # the areas of the sample share latents


@pytest.mark.usefixtures("run")
def test_an_area_is_represented_by_the_same_rois_in_every_pair(lab: Lab) -> None:
    answer = lab.execute(
        PROLOGUE
        + """
def drawn(row, side):
    part = cs.CommunicationSubspace.ROI & key_of(row) & {'side': side}
    return tuple(r['roi_number'] for r in part.to_dicts(order_by='KEY'))
epoch = [r for r in fine if (r['subject_id'], r['session'], r['session_epoch_number']) == (100012, 1, 1)]
sets = {(side, r[f'{side}_area'], drawn(r, side), r[f'{side}_seed'])
        for r in epoch for side in ('source', 'target')}
answer = [len(epoch), len(sets), len({rest for _, *rest in map(list, sets) for rest in [tuple(rest)]})]
"""
    )
    assert answer == [12, 8, 4]


@pytest.mark.usefixtures("run")
def test_only_the_drawn_rois_are_read_and_only_to_compute(lab: Lab) -> None:
    """The second look, in the transaction that stores, fetches no trace and yet sees any change."""
    before, after, areas, damaged, message, same = lab.execute(
        PROLOGUE
        + """
import datajoint as dj
from workflow.pipeline import traces
fetched = []
given = traces._fetch
traces._fetch = lambda *said: fetched.append(len(said[-1])) or given(*said)
table = cs.CommunicationSubspace()
key = next(key_of(row) for row in fine if row['n_source'] == row['n_target'] == 8)
first = table.read(key)
same = [table.read(key).digest == first.digest]
before = list(fetched)
table.compute(first)
after = list(fetched)
areas = [len(side.activity.keys) for side in (first.source, first.target)]

epoch = {name: key[name] for name in exp2.SessionEpoch().primary_key}
damaged = first.source.activity.keys[first.source.order[0]]
row = (img.ROIdeltaF & epoch & damaged).fetch1()
img.ROIdeltaF.update1({**row, 'dff_trace': np.zeros(17)})
again = table.read(key)
same.append(again.digest == first.digest)
try:
    table.compute(again)
except dj.DataJointError as error:
    message = str(error)
img.ROIdeltaF.update1(row)
same.append(table.read(key).digest == first.digest)
answer = [before, after, areas, damaged['roi_number'], message, same]
"""
    )
    assert before == []
    assert sum(after) < sum(areas)
    assert after[0] == 8
    assert same == [True, False, True]
    assert f"'roi_number': {damaged}" in message
    assert "has 17 frames, the ROIs before it have" in message


@pytest.mark.usefixtures("run")
def test_an_roi_in_both_areas_is_left_out_of_both(lab: Lab) -> None:
    answer = lab.execute(
        PROLOGUE
        + """
unused = cs.CommunicationSubspace.UnusedROI & {'reason': 'in both areas'}
answer = [len(unused), sorted({(r['source_area'], r['target_area'])
          for r in (unused & "communication_subspace_params='fine'").to_dicts()})]
assert not len(cs.CommunicationSubspace.ROI.proj() & unused.proj())
"""
    )
    assert answer[0] > 0
    assert {tuple(pair) for pair in answer[1]} == {
        ("MOs", "SSp-ul"),
        ("SSp-ul", "MOs"),
        ("MOp", "VISp"),
        ("VISp", "MOp"),
    }


def test_the_memory_that_it_announces_is_that_of_the_largest_pair_that_waits(lab: Lab) -> None:
    """By the parameters that wait: of the ROIs of an area, no more than they ask for."""
    empty, announced, few, many = lab.execute("""
from workflow.pipeline import communication_subspace as cs
from workflow.pipeline.memory import DOUBLE, WORKER_BYTES, waiting_sizes
table = cs.CommunicationSubspace()
empty = table.worker_memory
one = {'subject_id': 100012, 'session': 2, 'session_epoch_number': 1}
table.jobs.refresh({**one, 'communication_subspace_params': 'fine'})
[(n_rois, n_frames)] = waiting_sizes(table)
found = [table.worker_memory]
table.jobs.refresh(one)
found += [table.worker_memory]
answer = [empty, [(one - WORKER_BYTES) / DOUBLE for one in found],
          table.held_values(8, n_frames, 5), table.held_values(n_rois, n_frames, 10)]
table.jobs.delete()
""")
    assert empty == 0
    assert announced == [few, many]
    assert many > 2 * few


def test_parameters_that_make_no_sense_are_refused(lab: Lab) -> None:
    changes: list[dict[str, Any]] = [
        {"max_rank": 9},
        {"max_rank": -1},
        {"n_rois": 0, "max_rank": 0},
        {"folds": 2},
        {"folds": 51},
        {"max_lag": -1, "gap": -1},
        {"time_bin": -0.5},
        {"ridge_min": 0},
        {"ridge_max": 0.0001},
        {"n_ridges": 0},
    ]
    refusals = lab.execute(f"""
import datajoint as dj
from workflow.pipeline import communication_subspace as cs
row = (cs.CommunicationSubspaceParams & {{'communication_subspace_params': 'fine'}}).fetch1()
answer = []
for change in {changes!r}:
    try:
        cs.CommunicationSubspaceParams.insert1(row | {{'communication_subspace_params': 'bad'}} | change)
    except dj.DataJointError as error:
        answer.append(str(error).partition('refused: ')[2])
assert not len(cs.CommunicationSubspaceParams & {{'communication_subspace_params': 'bad'}})
""")
    assert refusals == [
        "max_rank is 9, must be at most n_rois, which is 8",
        "max_rank is -1, must be at least 1",
        "n_rois is 0, must be at least 1; max_rank is 0, must be at least 1",
        "folds is 2, must be at least 4",
        "folds is 51, must be at most 50",
        "max_lag is -1, must be at least 0; gap is -1, must be at least 0",
        "time_bin is -0.5, must be at least 0",
        "ridge_min is 0, must be at least 1e-12",
        "ridge_max is 0.0001, must be at least ridge_min, which is 0.001",
        "n_ridges is 0, must be at least 1",
    ]
