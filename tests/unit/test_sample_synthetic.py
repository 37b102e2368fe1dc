"""Synthetic recordings are what they say they are."""

import hashlib
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.sample import planted
from workflow.sample.errors import SampleError
from workflow.sample.recording import BRAIN_AREAS, EPOCH_TYPES
from workflow.sample.synthetic import ODDITIES, SIZES, recordings

DIGEST = """
import hashlib
from workflow.sample.synthetic import recordings
hashed = hashlib.blake2b()
for session in recordings("small", 5):
    hashed.update(repr(session.rois).encode())
    for epoch in session.epochs:
        for trace in epoch.dff():
            hashed.update(trace.tobytes())
print(hashed.hexdigest())
"""


@pytest.fixture(scope="module")
def small():
    return recordings("small", 1)


def epochs_of(sessions):
    return [(session, epoch) for session in sessions for epoch in session.epochs]


def matrix(epoch):
    return np.array([np.asarray(trace, dtype=float).ravel() for trace in epoch.dff()])


def usable(session, epoch):
    """The traces that a computation keeps, z-scored."""
    good = ~np.array([roi.bad for roi in session.rois])
    F = matrix(epoch)[good]
    kept = F.std(axis=1) > 1e-6 * np.abs(F).max(axis=1)
    F = F[kept]
    return (F - F.mean(axis=1, keepdims=True)) / F.std(axis=1, keepdims=True)


def in_new_process(threads):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    command = [sys.executable, "-c", DIGEST]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_the_same_seed_gives_the_same_bytes_in_any_process():
    hashed = hashlib.blake2b()
    for session in recordings("small", 5):
        hashed.update(repr(session.rois).encode())
        for epoch in session.epochs:
            for trace in epoch.dff():
                hashed.update(trace.tobytes())
    assert in_new_process("1") == in_new_process("2") == hashed.hexdigest()


def test_traces_can_be_asked_for_twice(small):
    epoch = small[0].epochs[0]
    np.testing.assert_array_equal(matrix(epoch), matrix(epoch))


def test_seeds_and_sizes_have_their_own_animals_and_numbers():
    samples = [recordings(size, seed) for size in ("small", "medium") for seed in (0, 1, 9999)]
    animals = [{session.subject_id for session in sample} for sample in samples]
    assert all(len(ids) == 3 for ids in animals)
    assert len(set.union(*animals)) == 3 * len(samples)
    assert not np.allclose(matrix(samples[0][0].epochs[0]), matrix(samples[1][0].epochs[0]))


def test_epochs_of_a_sample_differ(small):
    traces = [matrix(epoch)[0, :5] for _, epoch in epochs_of(small) if epoch.n_frames > 1]
    assert len({tuple(trace) for trace in traces}) == len(traces)


@pytest.mark.parametrize("size", SIZES)
def test_three_animals_with_two_sessions_each(size):
    sessions = recordings(size, 1)
    assert [session.session for session in sessions] == [1, 2] * 3
    assert len({session.subject_id for session in sessions}) == 3
    assert [session.mesoscope for session in sessions] == [True] * 4 + [False] * 2
    for session in sessions:
        kinds = [epoch.epoch_type for epoch in session.epochs]
        assert kinds[:2] == ["spont_only", "behav_only"]
        assert set(kinds) <= set(EPOCH_TYPES)
        assert [epoch.number for epoch in session.epochs] == list(range(1, len(kinds) + 1))
        ends = [0.0] + [epoch.end_time for epoch in session.epochs]
        for epoch, earlier in zip(session.epochs, ends, strict=False):
            assert epoch.start_time >= earlier
            assert epoch.end_time - epoch.start_time == pytest.approx(epoch.n_frames / epoch.frame_rate)


def test_every_oddity_occurs_once_and_where_it_is_said_to(small):
    first = small[0].subject_id
    found = []
    for session, epoch in epochs_of(small):
        place = (session.subject_id - first + 1, session.session, epoch.number)
        F = matrix(epoch)
        found += [("photostim", place)] * (epoch.photostim or epoch.epoch_type == "spont_photo")
        found += [("somatotopy", place)] * (epoch.somatotopy is not None)
        found += [("one frame", place)] * (epoch.n_frames == 1)
        if epoch.n_frames > 1:
            found += [("nan", place)] * int(np.isnan(F).all(axis=1).sum())
            found += [("constant", place)] * int((np.ptp(F, axis=1) == 0).sum())
            spoilt = np.isnan(F).any(axis=1) | (np.ptp(F, axis=1) == 0)
            assert not any(roi.bad for roi, bad in zip(session.rois, spoilt, strict=True) if bad)
    assert Counter(name for name, _ in found) == dict.fromkeys(ODDITIES, 1)
    assert dict(found) == ODDITIES


def test_traces_come_in_every_precision_and_shape(small):
    forms = set()
    for _, epoch in epochs_of(small):
        traces = list(epoch.dff())
        assert {trace.size for trace in traces} == {epoch.n_frames}
        assert len({(trace.dtype, trace.shape) for trace in traces}) == 1
        if epoch.n_frames > 1:
            shape = tuple(length if length == 1 else "T" for length in traces[0].shape)
            forms.add((traces[0].dtype.name, shape))
    shapes = [("T",), (1, "T"), ("T", 1)]
    assert forms == {(dtype, shape) for dtype in ("float32", "float64") for shape in shapes}


@pytest.mark.parametrize(("size", "seed"), [("small", 1), ("small", 2), ("small", 77), ("medium", 1)])
def test_planted_components_are_found_by_a_plain_svd(size, seed):
    for session, epoch in epochs_of(recordings(size, seed)):
        truth = epoch.truth
        if truth is None:
            assert epoch.n_frames == 1
            continue
        Z = usable(session, epoch)
        assert Z.shape == (len(truth.loadings), truth.n_frames)
        s = np.linalg.svd(Z, compute_uv=False)
        np.testing.assert_allclose(s[: truth.latents], truth.singular_values, rtol=0.04)
        assert s[truth.latents - 1] > 1.5 * truth.noise_edge
        assert s[truth.latents] < 1.05 * truth.noise_edge


def test_truth_adds_up(small):
    for _, epoch in epochs_of(small):
        if epoch.truth:
            shared = 1 - epoch.truth.noise_variance
            np.testing.assert_allclose((epoch.truth.loadings**2).sum(axis=1), shared)
            assert epoch.truth.variances.sum() == pytest.approx(shared * len(epoch.truth.loadings))
            assert len(epoch.truth.variances) == epoch.truth.latents == len(epoch.truth.timescales)


@given(seed=st.integers(0, 2**32), n_frames=st.integers(20, 200), frame_rate=st.floats(1.0, 100.0))
def test_latents_are_centred_and_orthonormal(seed, n_frames, frame_rate):
    X = planted.latents(np.random.default_rng(seed), n_frames, frame_rate)
    np.testing.assert_allclose(X.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(X @ X.T / n_frames, np.eye(len(X)), atol=1e-9)


def test_latents_decay_as_planted():
    frame_rate, lag = 9.37, 9
    X = planted.latents(np.random.default_rng(0), 100_000, frame_rate)
    measured = (X[:, lag:] * X[:, :-lag]).mean(axis=1)
    np.testing.assert_allclose(
        measured, np.exp(-lag / (np.array(planted.TIMESCALES) * frame_rate)), atol=0.03
    )


def test_geometry(small):
    occurring = {roi.brain_area for session in small for roi in session.rois}
    assert occurring < set(BRAIN_AREAS)
    for session in small:
        rois = session.rois
        xy = np.array([(roi.x, roi.y) for roi in rois])
        assert (xy > 0).all()
        assert (xy < (session.x_size, session.y_size)).all()
        assert [roi.roi_number for roi in rois] == list(range(1, len(rois) + 1))
        assert [plane.plane_num for plane in session.planes] == ([1, 2] if session.mesoscope else [1])
        planes = [roi.plane.plane_num for roi in rois]
        assert planes == sorted(planes)
        assert 0 < sum(roi.bad for roi in rois) < len(rois) / 5
        areas = np.array([roi.brain_area for roi in rois])
        assert len(set(areas)) >= 2
        distance = np.linalg.norm(xy[:, None] - xy[None], axis=2) + np.diag(np.full(len(xy), np.inf))
        assert (areas[distance.argmin(axis=1)] == areas).mean() > 0.7, "areas are patches"


def test_frame_rate_of_the_field_of_view_is_not_that_of_its_epochs(small):
    for session, epoch in epochs_of(small):
        assert epoch.frame_rate == (9.37 if session.mesoscope else 30.0)
        assert session.nominal_frame_rate != epoch.frame_rate


def test_neurons_keep_their_unique_number(small):
    for first, second in zip(small[::2], small[1::2], strict=True):
        place = {roi.uid: (roi.x, roi.y, roi.brain_area) for roi in first.rois}
        again = {roi.uid: (roi.x, roi.y, roi.brain_area) for roi in second.rois}
        assert again.items() < place.items()
        assert any(roi.uid != roi.roi_number for roi in second.rois)


def test_large_is_as_large_as_real_recordings():
    session = recordings("large", 1)[0]
    assert len(session.rois) == 2000
    assert session.epochs[0].n_frames == 5000
    assert next(session.epochs[0].dff()).size == 5000


@pytest.mark.parametrize("size", ["", "huge", "Small", None, 3])
def test_unknown_size_is_refused(size):
    with pytest.raises(SampleError, match=r"^the sample size is .*: it must be one of small, medium, large$"):
        recordings(size, 1)


@given(seed=st.one_of(st.integers(max_value=-1), st.integers(min_value=10_000), st.floats(), st.booleans()))
def test_impossible_seed_is_refused(seed):
    with pytest.raises(SampleError, match=r"^the seed is .*: it must be a whole number from 0 to 9999$"):
        recordings("small", seed)
