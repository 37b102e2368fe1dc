"""Traces made ready for a computation: which ROI is which, and how much memory it takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from workflow.pipeline import shared_variance
from workflow.pipeline.communication_subspace import _drawn, _Side
from workflow.pipeline.prepared import Prepared, prepare
from workflow.pipeline.seeds import seed_for
from workflow.pipeline.traces import Activity, Key


def activity(F: np.ndarray, frame_rate: float = 10.0) -> Activity:
    return Activity(F, [{"roi_number": 10 + i} for i in range(len(F))], frame_rate, "stored")


def traces(n_rois: int, n_frames: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n_rois, n_frames), dtype=np.float64).astype(dtype)


@pytest.mark.parametrize("time_bin", [0.0, 0.3])
def test_each_row_keeps_its_roi_and_each_dropped_one_its_reason(time_bin: float) -> None:
    F = traces(6, 40)
    F[0], F[2, 5], F[4, 1] = 0.1, np.nan, -np.inf
    prepared = prepare(activity(F), time_bin)
    assert [key["roi_number"] for key in prepared.keys] == [11, 13, 15]
    reasons = [(key["roi_number"], reason) for key, reason in prepared.unused]
    assert reasons == [(10, "constant"), (12, "NaN"), (14, "infinite")]
    assert prepared.bin_width == pytest.approx(time_bin or 0.1)
    assert prepared.frame_rate == 10.0
    assert (prepared.n_rois, prepared.n_frames) == prepared.Z.shape == (3, 40 if not time_bin else 13)
    expected = F[1, :39].reshape(13, 3).mean(axis=1) if time_bin else F[1]
    np.testing.assert_allclose(prepared.Z[0], (expected - expected.mean()) / expected.std(), atol=1e-12)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("time_bin", [0.0, 0.3])
def test_precision_and_overwriting_do_not_change_the_result(
    dtype: type, overwrite: bool, time_bin: float
) -> None:
    F = traces(5, 60, np.float32).astype(dtype)
    before = F.copy()
    prepared = prepare(activity(F), time_bin, 0.5, overwrite=overwrite)
    expected = prepare(activity(before.astype(np.float64)), time_bin, 0.5)
    np.testing.assert_array_equal(prepared.Z, expected.Z)
    assert prepared.Z.dtype == np.float64
    if not overwrite:
        np.testing.assert_array_equal(F, before)


@pytest.mark.parametrize("time_bin", [0.0, 0.3])
@pytest.mark.parametrize(("wanted", "n_drawn"), [(40, 40), (80, 45)])
def test_rois_are_drawn_from_those_that_can_be_used(time_bin: float, wanted: int, n_drawn: int) -> None:
    """The first usable ones in the order, whatever else there is; the others are not even fetched."""
    F = traces(100, 60)
    F[:30], F[60:85, 7] = 1.0, np.nan
    fetched: list[int] = []

    def fetch(keys: list[Key]) -> np.ndarray:
        fetched.extend(key["roi_number"] for key in keys)
        return F[[key["roi_number"] for key in keys]]

    order = np.random.default_rng(5).permutation(100).tolist()
    keys = [{"roi_number": row} for row in range(100)]
    side = _Side("MOs", 5, Activity(fetch, keys, 10.0, "stored"), order)
    prepared = _drawn(side, {"n_rois": wanted, "time_bin": time_bin})
    usable = [row for row in order if 30 <= row < 60 or row >= 85]
    assert {key["roi_number"] for key in prepared.keys} == set(usable[:n_drawn])
    last = order.index(usable[wanted - 1]) + 1 if wanted < len(usable) else 100
    assert set(fetched) == set(order[:last])
    assert len(prepared.unused) == last - n_drawn
    [z] = prepare(activity(F[[prepared.keys[-1]["roi_number"]]]), time_bin).Z
    np.testing.assert_array_equal(prepared.Z[-1], z)


@pytest.mark.parametrize("normalization", ["centred", "zscored"])
def test_a_trace_too_large_to_square_does_not_fail_the_others(normalization: str) -> None:
    """It is unused with a reason; to a z-score it makes no difference how large a trace is."""
    F = traces(60, 240)
    F[7] *= 1e160
    x, y = np.random.default_rng(1).uniform(0, 400, (2, 60))
    params = {
        "time_bin": 0.0, "normalization": normalization, "tile": 100.0, "guard": 0.0, "block": 60,
        "max_components": 10,
    }  # fmt: skip
    inputs = shared_variance._Inputs(activity(F), np.stack([x, y]), params, 0)
    result = shared_variance.SharedVariance.compute(shared_variance.SharedVariance(), inputs)
    assert result.unused == [({"roi_number": 17}, "too large to square")]
    assert result.columns["skip_reason"] == ""
    assert result.columns["n_rois"] == 59
    assert prepare(activity(F), 0.0).n_rois == 60


def test_what_cannot_be_computed_is_said_in_words() -> None:
    flat = prepare(activity(np.ones((3, 50))), 0)
    assert flat.n_rois == 0
    assert len(flat.unused) == 3
    assert flat.shortfall(2, 2) == "too few usable ROIs: 0, needs 2"
    assert prepare(activity(traces(3, 50)), 3).shortfall(2, 2) == "too short: 1 time bin(s), needs 2"
    assert prepare(activity(traces(3, 50)), 9).shortfall(2, 2) == "too short: 0 time bin(s), needs 2"
    assert prepare(activity(np.empty((0, 0))), 0).shortfall(2, 2) == "too few usable ROIs: 0, needs 2"
    assert prepare(activity(traces(1, 50)), 0).shortfall(2, 2) == "too few usable ROIs: 1, needs 2"
    assert prepare(activity(traces(2, 2)), 0).shortfall(2, 2) == ""


def test_some_of_the_rois_can_be_taken() -> None:
    prepared = prepare(activity(traces(5, 30)), 0)
    taken = prepared.take(np.array([1, 4]))
    assert [key["roi_number"] for key in taken.keys] == [11, 14]
    np.testing.assert_array_equal(taken.Z, prepared.Z[[1, 4]])
    assert taken.unused == prepared.unused


def test_a_part_of_the_frames_is_a_view() -> None:
    whole = activity(traces(3, 20))
    part = whole.between(5, 12)
    assert np.shares_memory(part.F, whole.F)
    np.testing.assert_array_equal(part.F, whole.F[:, 5:12])
    assert part.keys == whole.keys
    assert part.digest != whole.digest


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        held = work()
        del held
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("dtype", "overwrite", "copies"), [(np.float32, False, 1), (np.float64, False, 1), (np.float64, True, 0)]
)
def test_a_large_epoch_is_cast_once(dtype: type, overwrite: bool, copies: int) -> None:
    """Beside the stored traces there is one matrix of doubles, or none; blocks of rows are the rest."""
    given = activity(traces(500, 20_000, dtype))
    doubles = given.F.size * 8
    peak = peak_of(lambda: prepare(given, 0, overwrite=overwrite))
    assert peak < (copies + 0.4) * doubles


def test_the_digest_sees_every_change_and_fetches_nothing() -> None:
    """The traces are known by what the server says of them."""

    def fetch(keys: list[Key]) -> np.ndarray:
        raise AssertionError(f"{len(keys)} traces were fetched")

    keys = [{"roi_number": number} for number in range(3)]
    first = Activity(fetch, keys, 10.0, "stored").digest
    assert Activity(fetch, keys, 10.0, "stored").digest == first
    assert Activity(fetch, keys, 10.0, "changed").digest != first
    assert Activity(fetch, keys, 11.0, "stored").digest != first
    assert Activity(fetch, keys[::-1], 10.0, "stored").digest != first
    whole = activity(traces(3, 40))
    assert len({whole.digest, whole.between(0, 20).digest, whole.between(20, 40).digest}) == 3


def test_a_seed_depends_on_the_key_and_can_be_recomputed() -> None:
    """The number was worked out with sha256sum on the text that the docstring describes."""
    key = {"session": 1, "brain_area": "MOs"}
    assert seed_for(key, 0) == 0xA9883E61
    assert seed_for({"brain_area": "MOs", "session": np.int64(1)}, 0) == seed_for(key, 0)
    others = [seed_for(key, 1), seed_for({**key, "session": 2}, 0), seed_for({**key, "brain_area": "MOp"}, 0)]
    assert len({seed_for(key, 0), *others}) == 4
    assert all(0 <= seed < 2**32 for seed in others)


def test_prepared_is_what_others_import() -> None:
    assert {"Z", "keys", "unused", "frame_rate", "bin_width"} == set(Prepared.__dataclass_fields__)
