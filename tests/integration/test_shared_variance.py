"""Shared variance on the small sample: what is stored, what is left out and why, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from databases import Server
from lab import Lab, counts

pytest_plugins = ("databases",)

TABLE = "shared_variance.SharedVariance"
PROLOGUE = """
import numpy as np
from workflow.pipeline import shared_variance as sv
from workflow.pipeline.seeds import seed_for
from workflow.pipeline.traces import fetch_activity
rows = sv.SharedVariance.to_dicts()
done = [row for row in rows if not row['skip_reason']]
keys = [{name: row[name] for name in sv.SharedVariance().primary_key} for row in done]
"""


@pytest.fixture(scope="module")
def lab(postgresql_server: Server) -> Iterator[Lab]:
    """A laboratory with the small sample, one parameter row more, and an ROI without a centroid."""
    laboratory = Lab(postgresql_server, f"test_{uuid.uuid4().hex[:10]}_")
    assert laboratory.workflow("sample").returncode == 0
    laboratory.execute("""
from workflow.pipeline import shared_variance as sv
sv.SharedVarianceParams.insert1({
    'shared_variance_params': 'fine', 'activity': 'dff', 'recording': 'mesoscope', 'time_bin': 0.5,
    'normalization': 'zscored', 'tile': 200, 'guard': 10, 'block': 20, 'max_components': 5, 'seed': 7})
roi = ((img.ROIdeltaF & img.Mesoscope) - img.ROIBad).keys(limit=1)[0]
img.ROI.update1({name: roi[name] for name in img.ROI().primary_key} | {'roi_centroid_x': None})
""")
    yield laboratory
    postgresql_server.drop_schemas(laboratory.prefix)


@pytest.fixture(scope="module")
def run(lab: Lab) -> Any:
    """The summary of the one run that the tests look at."""
    return lab.json("run", "--tables", TABLE)


def test_every_mesoscope_epoch_is_computed_or_skipped_with_a_reason(lab: Lab, run: Any) -> None:
    assert counts(run) == {TABLE: (20, 18, 0, 2)}
    skipped = {key["reason"] for key in run["keys"] if key["outcome"] == "skipped"}
    assert skipped == {
        "too short: 1 time bin(s), needs 120 (a training and a test block)",
        "too short: 0 time bin(s), needs 40 (a training and a test block)",
    }
    assert lab.json("plan", "--tables", TABLE)[0]["due"] == 0


@pytest.mark.usefixtures("run")
def test_what_is_stored_follows_from_the_traces(lab: Lab) -> None:
    """Transcribed from the definition, by the halves that are stored."""
    answer = lab.execute(
        PROLOGUE
        + """
checked = []
for key, row in zip(keys, done):
    params = (sv.SharedVarianceParams & key).fetch1()
    activity = fetch_activity(key, 'dff')
    c = max(int(np.ceil(params['time_bin'] * row['frame_rate'])), 1)
    F = activity.F.astype(float)
    F = F[:, :F.shape[1] // c * c].reshape(len(F), -1, c).mean(2)
    assert F.shape[1] == row['n_frames'] and abs(row['bin_width'] - c / row['frame_rate']) < 1e-12
    halves = {r['roi_number']: r['half'] for r in (sv.SharedVariance.ROI & key).to_dicts()}
    train = np.arange(F.shape[1]) // params['block'] % 2 == 0
    parts = []
    for half in ('first', 'second'):
        G = F[[i for i, k in enumerate(activity.keys) if halves.get(k['roi_number']) == half]]
        a, b = (G[:, m] - G[:, m].mean(1, keepdims=True) for m in (train, ~train))
        if params['normalization'] == 'zscored':
            b = b / a.std(1, keepdims=True)
            a = a / a.std(1, keepdims=True)
        parts.append((a, b))
    (a1, b1), (a2, b2) = parts
    assert (row['n_first'], row['n_second'], row['n_rois']) == (len(a1), len(a2), len(a1) + len(a2))
    assert (row['n_train'], row['n_test']) == (a1.shape[1], b1.shape[1])
    U, s, Vt = np.linalg.svd(a1 @ a2.T, full_matrices=False)
    m = min(len(s), params['max_components'])
    s1, s2 = U.T[:m] @ b1, Vt[:m] @ b2
    shared, total = (s1 * s2).sum(1), (s1**2 + s2**2).sum(1) / 2
    stored = (sv.SharedVariance.Component & key).to_dicts(order_by='component')
    assert row['n_components'] == len(stored) == m
    assert np.allclose([r['shared'] for r in stored], shared)
    assert np.allclose([r['total'] for r in stored], total)
    assert np.allclose([r['reliable'] for r in stored], shared / total)
    fraction = shared.sum() / ((b1**2).sum() + (b2**2).sum()) * 2
    assert np.isclose(row['reliable_fraction'], fraction)
    assert row['seed'] == seed_for(key, params['seed'])
    checked.append([row['shared_variance_params'], stored[0]['reliable']])
answer = checked
"""
    )
    assert {name for name, _ in answer} == {"mesoscope", "fine"}
    assert min(reliable for _, reliable in answer) > 0.5  # the first of the planted latents


@pytest.mark.usefixtures("run")
def test_every_good_roi_is_in_a_half_or_left_out_with_a_reason(lab: Lab) -> None:
    reasons = lab.execute(
        PROLOGUE
        + """
reasons = set()
for key, row in zip(keys, done):
    places = {r['roi_number']: r for r in (img.ROI & key).to_dicts()}
    used = {r['roi_number']: r['half'] for r in (sv.SharedVariance.ROI & key).to_dicts()}
    unused = {r['roi_number']: r['reason'] for r in (sv.SharedVariance.UnusedROI & key).to_dicts()}
    good = {k['roi_number'] for k in fetch_activity(key, 'dff').keys}
    assert set(used) | set(unused) == good and not set(used) & set(unused)
    assert sum(reason == 'in the gap between the halves' for reason in unused.values()) == row['n_gap']
    params = (sv.SharedVarianceParams & key).fetch1()
    place = lambda half: np.array([(places[n]['roi_centroid_x'], places[n]['roi_centroid_y'])
                                   for n in used if used[n] == half])
    apart = np.linalg.norm(place('first')[:, None] - place('second'), axis=2)
    assert apart.min() >= params['guard']
    reasons |= set(unused.values())
answer = sorted(reasons)
"""
    )
    assert reasons == ["constant", "in the gap between the halves", "no centroid"]


@pytest.mark.usefixtures("run")
def test_the_same_seed_gives_the_same_row(lab: Lab) -> None:
    answer = lab.execute(
        PROLOGUE
        + """
key = keys[0]
before = (sv.SharedVariance.Component & key).to_dicts(order_by='component')
halves = (sv.SharedVariance.ROI & key).to_dicts(order_by='KEY')
(sv.SharedVariance & key).delete()
sv.SharedVariance.populate(key)
assert (sv.SharedVariance.Component & key).to_dicts(order_by='component') == before
assert (sv.SharedVariance.ROI & key).to_dicts(order_by='KEY') == halves
answer = len(before)
"""
    )
    assert answer > 1


def test_parameters_that_make_no_sense_are_refused(lab: Lab) -> None:
    changes: list[dict[str, Any]] = [
        {"guard": 200},
        {"tile": 0, "guard": 0},
        {"block": 0},
        {"time_bin": -1},
        {"max_components": 0},
        {"seed": -1},
        {"normalization": "scaled", "activity": "dF/F"},
        {"recording": "two-photon"},
    ]
    refusals = lab.execute(f"""
import datajoint as dj
from workflow.pipeline import shared_variance as sv
row = (sv.SharedVarianceParams & {{'shared_variance_params': 'fine'}}).fetch1()
answer = []
for change in {changes!r}:
    try:
        sv.SharedVarianceParams.insert1(row | {{'shared_variance_params': 'bad'}} | change)
    except dj.DataJointError as error:
        answer.append(str(error).partition('refused: ')[2])
assert not len(sv.SharedVarianceParams & {{'shared_variance_params': 'bad'}})
""")
    assert refusals == [
        "guard is 200, must be below tile, which is 200.0",
        "tile is 0, must be above 0; guard is 0, must be below tile, which is 0",
        "block is 0, must be at least 1",
        "time_bin is -1, must be at least 0",
        "max_components is 0, must be at least 1",
        "seed is -1, must be at least 0",
        "activity is 'dF/F', must be one of dff, spikes; "
        "normalization is 'scaled', must be one of centred, zscored",
        "recording is 'two-photon', must be one of mesoscope, other",
    ]
