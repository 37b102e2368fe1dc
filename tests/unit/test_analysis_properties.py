"""Invariants that hold for any recording."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workflow.analysis.binning import bin_frames, bin_width, frames_per_bin
from workflow.analysis.normalization import zscore
from workflow.analysis.svd import population_svd

shapes = st.tuples(st.integers(1, 12), st.integers(2, 30))
# Multiples of 1/64: exact in single precision, and never so flat that "constant" is a matter of rounding.
traces = shapes.flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.integers(-640, 640).map(lambda i: i / 64))
)
wild_traces = shapes.flatmap(
    lambda shape: hnp.arrays(
        np.float64, shape, elements=st.floats(allow_nan=True, allow_infinity=True, width=64)
    )
)
quick = settings(max_examples=150, deadline=None)


@quick
@given(F=wild_traces, threshold=st.sampled_from([0.0, 0.5, 3.0]))
def test_every_trace_is_either_normalised_or_dropped_with_a_reason(F: np.ndarray, threshold: float) -> None:
    result = zscore(F, threshold)
    dropped = [row for row, _ in result.dropped]
    assert sorted([*result.kept.tolist(), *dropped]) == list(range(len(F)))
    assert list(result.kept) == sorted(result.kept)
    assert result.Z.shape == (len(result.kept), F.shape[1])
    np.testing.assert_allclose(result.Z.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(result.Z.std(axis=1), 1, atol=1e-9)
    assert set(np.flatnonzero(np.isnan(F).any(axis=1))) == {
        row for row, why in result.dropped if why == "NaN"
    }


@quick
@given(F=traces)
def test_normalising_twice_changes_nothing(F: np.ndarray) -> None:
    once = zscore(F).Z
    twice = zscore(once)
    assert twice.dropped == ()
    np.testing.assert_allclose(twice.Z, once, atol=1e-9)


@quick
@given(F=traces, data=st.data())
def test_binning_keeps_the_mean_of_the_frames_it_uses(F: np.ndarray, data: st.DataObject) -> None:
    rate = data.draw(st.floats(0.5, 40))
    time_bin = data.draw(st.floats(0, 3))
    binned, width = bin_frames(F, time_bin, rate), bin_width(time_bin, rate)
    c = frames_per_bin(time_bin, rate)
    assert binned.shape == (F.shape[0], F.shape[1] // c)
    assert width >= time_bin * (1 - 1e-9)
    assert width < time_bin + 1 / rate + 1e-9 or c == 1
    used = F[:, : binned.shape[1] * c]
    if used.size:
        np.testing.assert_allclose(binned.mean(axis=1), used.mean(axis=1), atol=1e-12)


@quick
@given(F=traces)
def test_singular_values_hold_the_whole_variance_and_descend(F: np.ndarray) -> None:
    Z = zscore(F).Z
    if not len(Z):
        return
    result = population_svd(Z)
    n_rois, n_frames = Z.shape
    np.testing.assert_allclose(np.sum(result.s**2), n_rois * n_frames, rtol=1e-10)
    assert (np.diff(result.s) <= 0).all()
    explained = np.cumsum(result.s**2) / np.sum(result.s**2)
    assert explained[result.k90 - 1] >= 0.9 * (1 - 1e-9)
    assert result.k90 == 1 or explained[result.k90 - 2] < 0.9
    assert len(result.Vt) == np.count_nonzero(result.s) <= min(n_rois, n_frames - 1)
    np.testing.assert_allclose(result.U.T @ result.U, np.eye(result.k90), atol=1e-6)
    largest = np.abs(result.Vt).argmax(axis=1)
    assert (result.Vt[np.arange(len(largest)), largest] > 0).all()


@quick
@given(F=traces, data=st.data())
def test_order_gain_and_offset_of_traces_do_not_matter(F: np.ndarray, data: st.DataObject) -> None:
    n_rois = len(F)
    order = np.array(data.draw(st.permutations(range(n_rois))))
    gain = np.array(data.draw(st.lists(st.floats(0.125, 8), min_size=n_rois, max_size=n_rois)))
    offset = np.array(data.draw(st.lists(st.integers(-50, 50), min_size=n_rois, max_size=n_rois)))
    plain, changed = zscore(F), zscore((F * gain[:, None] + offset[:, None])[order])
    assert len(plain.kept) == len(changed.kept)
    if not len(plain.kept):
        return
    before, after = population_svd(plain.Z), population_svd(changed.Z)
    np.testing.assert_allclose(after.s, before.s, atol=2e-7 * before.s[0])


@quick
@given(F=traces, data=st.data())
def test_any_subset_of_traces_interlaces(F: np.ndarray, data: st.DataObject) -> None:
    Z = zscore(F).Z
    if len(Z) < 2:
        return
    rows = data.draw(st.lists(st.sampled_from(range(len(Z))), min_size=1, max_size=len(Z), unique=True))
    whole = np.zeros(len(Z))
    part = np.zeros(len(rows))
    for into, matrix in ((whole, Z), (part, Z[rows])):
        s = population_svd(matrix).s
        into[: len(s)] = s
    slack = 2e-7 * whole[0]
    assert (part <= whole[: len(rows)] + slack).all()
    assert (part >= whole[len(Z) - len(rows) :] - slack).all()
