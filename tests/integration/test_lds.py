"""Linear dynamical systems of stored components, of a whole field of view and of areas."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from databases import Server
from lab import Lab

pytest_plugins = ("databases",)

#: An epoch on the mesoscope, and the epoch of a single frame.
ONE_FRAME = "subject_id = 100012 AND session = 1 AND session_epoch_number = 3"
WHERE = f"(subject_id = 100011 AND session = 1 AND session_epoch_number = 1) OR ({ONE_FRAME})"
TABLES = ("svd.PopulationSVD", "area_svd.AreaSVD", "lds.*")
CHECKS = """
import numpy as np
from workflow.pipeline import area_svd, lds
from workflow.analysis.kalman import System, kalman_filter
from workflow.analysis.lds import fit_lds
from workflow.pipeline.seeds import seed_for

def check(table, parent):
    answer = []
    for row in (table & "skip_reason = ''").to_dicts():
        key = {name: row[name] for name in table().primary_key}
        params = (lds.LDSParams & key).fetch1()
        stored = (parent & key).fetch1()
        p, n = params['n_observed'], params['n_latent']
        V = np.stack((parent.Component & key).to_arrays('time_course', order_by='component')[:p])
        Y = V.astype(float) * stored['singular_values'][:p, None]
        A, C, Q, R = (row[k] for k in ('dynamics', 'loadings', 'state_noise', 'observation_noise'))
        assert (A.shape, C.shape, Q.shape, R.shape) == ((n, n), (p, n), (n, n), (p, p))
        assert row['n_frames'] == Y.shape[1] and row['n_rois'] == stored['n_rois']
        steps = row['log_likelihoods']
        assert len(steps) == params['iterations'] + 1 and (np.diff(steps) >= 0).all()
        system = System(A, C, Q, R, row['initial_mean'], row['initial_covariance'])
        centred = np.ascontiguousarray((Y - Y.mean(axis=1, keepdims=True)).T)
        assert np.isclose(kalman_filter(system, centred).log_likelihood, steps[-1], rtol=1e-12)
        assert row['seed'] == seed_for(key, params['seed'])
        again = fit_lds(Y, n, iterations=params['iterations'], seed=row['seed'])
        assert np.array_equal(again.system.A, A) and np.array_equal(again.log_likelihoods, steps)
        parts = (table.Eigenvalue & key).to_dicts(order_by='eigenvalue')
        values = np.array([part['real_part'] + 1j * part['imaginary_part'] for part in parts])
        assert np.allclose(np.sort_complex(values), np.sort_complex(np.linalg.eigvals(A)), atol=1e-10)
        assert (np.diff(np.abs(values)) <= 1e-12).all()
        for part, value in zip(parts, values):
            assert part['unstable'] == (abs(value) >= 1) == (part['time_constant'] is None)
            if not part['unstable']:
                assert np.isclose(part['time_constant'], -row['bin_width'] / np.log(abs(value)))
            assert np.isclose(part['frequency'] * 2 * np.pi * row['bin_width'], abs(np.angle(value)))
        answer.append([key['lds_params'], key.get('brain_area'), len(parts)])
    return answer
reasons = [
    [row['lds_params'], row.get('brain_area'), row['skip_reason']]
    for table in (lds.LDS, lds.AreaLDS)
    for row in (table & "skip_reason <> ''").to_dicts()
]
answer = {
    'whole': check(lds.LDS, svd.PopulationSVD),
    'area': check(lds.AreaLDS, area_svd.AreaSVD),
    'skipped': reasons,
}
"""


@pytest.fixture(scope="module")
def lab(postgresql_server: Server) -> Iterator[Lab]:
    """A laboratory with the small sample and models that suit it."""
    laboratory = Lab(postgresql_server, f"test_{uuid.uuid4().hex[:10]}_")
    assert laboratory.workflow("sample").returncode == 0
    laboratory.execute("""
from workflow.pipeline import lds
lds.LDSParams.insert1(('small', 5, 3, 6, 500, 400, 3))
lds.LDSParams.insert1(('too many', 200, 3, 2, 801, 801, 0))
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


def test_what_is_stored_is_the_system_that_was_fitted(answer: Any) -> None:
    assert answer["whole"] == [["small", None, 3]]
    assert len(answer["area"]) == 4
    assert {tuple(row[::2]) for row in answer["area"]} == {("small", 3)}


def test_what_cannot_be_fitted_says_why(answer: Any) -> None:
    whole = {(params, reason) for params, area, reason in answer["skipped"] if area is None}
    assert ("25_observed_20_latent", "too short: 900 time bin(s), needs 2500") in whole
    assert ("small", "PopulationSVD was skipped: too short: 1 time bin(s), needs 2") in whole
    [reason] = [reason for params, reason in whole if params == "too many" and "components" in reason]
    assert reason.startswith("too few components: ")
    assert reason.endswith(", needs 200")
    area = {reason for params, area, reason in answer["skipped"] if area and params == "small"}
    assert area == {
        "too short: 60 time bin(s), needs 400",
        "AreaSVD was skipped: too short: 1 time bin(s), needs 2",
        "AreaSVD was skipped: too short: 0 time bin(s), needs 2",
    }


REFUSED = {
    (4, 5, 30, 500, 500, 0): "n_latent is 5, must be at most n_observed, which is 4",
    (4, 0, 30, 500, 500, 0): "n_latent is 0, must be at least 1",
    (4, 2, 0, 500, 500, 0): "iterations is 0, must be at least 1",
    (4, 2, 3, 500, 500, -1): "seed is -1, must be at least 0",
    (4, 2, 3, 16, 500, 0): "min_frames is 16, must be at least 17",
    (4, 2, 3, 500, 2, 0): "min_frames_area is 2, must be at least 17",
}


def test_models_that_make_no_sense_are_refused(lab: Lab) -> None:
    refused = lab.execute(f"""
import datajoint as dj
from workflow.pipeline import lds
answer = []
for row in {list(REFUSED)}:
    try:
        lds.LDSParams.insert1(('odd', *row))
    except dj.DataJointError as error:
        answer.append(str(error))
""")
    start = "lds.LDSParams: parameter row lds_params='odd' refused: "
    assert refused == [start + reason for reason in REFUSED.values()]
