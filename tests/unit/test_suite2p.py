"""Reading suite2p output folders, sound ones and all others."""

import contextlib
import datetime
import io
import os
import pathlib
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workflow.sample.dff import baseline, relative_fluorescence
from workflow.sample.errors import SampleError
from workflow.sample.pickles import load_guarded
from workflow.sample.suite2p import read_suite2p

N, T = 6, 240
FILES = ("F.npy", "Fneu.npy", "iscell.npy", "stat.npy", "ops.npy", "spks.npy")
ARRAYS = ("F.npy", "Fneu.npy", "iscell.npy", "spks.npy")
in_one_folder = settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def stat_of(count, rng):
    entries = np.empty(count, dtype=object)
    for i in range(count):
        pixels = {
            "xpix": rng.integers(0, 512, 30),
            "ypix": rng.integers(0, 400, 30),
            "lam": rng.random(30, "f4"),
        }
        med = (int(np.median(pixels["ypix"])), int(np.median(pixels["xpix"])))
        entries[i] = {**pixels, "med": med, "radius": np.float64(5.5), "npix": 30, "footprint": 1.0}
    return entries


def write_folder(folder, *, seed=0, n_frames=T, **changes):
    """Write what suite2p writes; ``changes`` replaces entries of ops.npy."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    F = 500 + 50 * rng.random((N, n_frames), dtype=np.float32)
    F[:, n_frames // 2 : n_frames // 2 + 3] += 200
    np.save(folder / "F.npy", F)
    np.save(folder / "Fneu.npy", 100 + 5 * rng.random((N, n_frames), dtype=np.float32))
    np.save(folder / "spks.npy", rng.random((N, n_frames), dtype=np.float32))
    np.save(folder / "iscell.npy", np.column_stack([np.arange(N) != 2, rng.random(N)]))
    np.save(folder / "stat.npy", stat_of(N, rng))
    ops = {
        "fs": 8.0,
        "neucoeff": 0.7,
        "Lx": 512,
        "Ly": 400,
        "win_baseline": 10.0,
        "sig_baseline": 3.0,
        "meanImg": rng.random((400, 512), dtype=np.float32),
        "data_path": [pathlib.PurePosixPath("/data/mouse")],
        "save_path": pathlib.PosixPath("/data"),
        "date_proc": datetime.datetime(2024, 5, 4, 3, 2, 1),
        "timing": {"registration": np.float64(1.5), "total": 3},
        "xrange": np.array([0, 511]),
        "classes": {1, 2},
    }
    np.save(folder / "ops.npy", {**ops, **changes})
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "plane0")


def change(path, function):
    """Replace the array in a file by a function of it."""
    array = np.load(path, allow_pickle=True)
    np.save(path, function(array))


def change_ops(folder, **changes):
    ops = np.load(folder / "ops.npy", allow_pickle=True).item()
    kept = {key: value for key, value in {**ops, **changes}.items() if value is not None}
    np.save(folder / "ops.npy", kept)


def refusal(folder, frame_rate=None):
    with pytest.raises(SampleError) as caught:
        read_suite2p(folder, frame_rate)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


# --- dF/F -----------------------------------------------------------------------------------------


def slow_baseline(trace, size, sigma):
    """The definition, frame by frame, with mirrored edges."""
    count = len(trace)

    def at(values, i):
        i %= 2 * count
        return values[i if i < count else 2 * count - 1 - i]

    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    smooth = [sum(k * at(trace, i + j - radius) for j, k in enumerate(kernel)) for i in range(count)]
    left, right = size // 2, size - size // 2
    lowest = [min(at(smooth, j) for j in range(i - left, i + right)) for i in range(count)]
    return np.array([max(at(lowest, j) for j in range(i - left, i + right)) for i in range(count)])


@given(
    trace=hnp.arrays(float, st.integers(2, 40), elements=st.floats(-100, 1000)),
    size=st.integers(1, 30),
    sigma=st.floats(0.3, 4.0),
)
@settings(deadline=None, max_examples=50)
def test_baseline_is_the_maximum_of_the_minimum_of_the_smoothed_trace(trace, size, sigma):
    expected = slow_baseline(trace, size, sigma)
    np.testing.assert_allclose(baseline(trace[None], 1.0, window=size, sigma=sigma)[0], expected, atol=1e-9)


def test_dff_against_its_definition():
    rng = np.random.default_rng(1)
    F, Fneu = 300 + 100 * rng.random((3, 90)), 50 + rng.random((3, 90))
    got = relative_fluorescence(F, Fneu, 4.0, coefficient=0.6, window=5.2, sigma=2.0)
    for row in range(3):
        corrected = F[row] - 0.6 * Fneu[row]
        low = slow_baseline(corrected, 20, 2.0)  # 5.2 s at 4 Hz, rounded down
        np.testing.assert_allclose(got[row], (corrected - low) / low, rtol=1e-5, atol=1e-7)
    assert got.dtype == np.float32


def test_dff_does_not_depend_on_the_gain_of_the_detector_nor_on_the_number_of_rois():
    rng = np.random.default_rng(2)
    F, Fneu = 300 + 100 * rng.random((130, 60)), 50 + rng.random((130, 60))
    whole = relative_fluorescence(F, Fneu, 4.0)
    np.testing.assert_allclose(relative_fluorescence(7 * F, 7 * Fneu, 4.0), whole, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(relative_fluorescence(F[100:101], Fneu[100:101], 4.0), whole[100:101])


def test_dff_is_undefined_where_the_baseline_is_not_positive_or_the_trace_not_finite():
    F = np.full((6, 50), 100.0)
    Fneu = np.zeros((6, 50))
    Fneu[1] = 200.0  # negative once corrected
    Fneu[2] = 100.0 / 0.7  # zero, but for rounding
    F[2] = 0.7 * Fneu[2]
    F[3, 7] = np.nan
    Fneu[4, 7] = np.inf
    F[5] = 1e308
    Fneu[5] = -1e308  # overflows
    dff = relative_fluorescence(F, Fneu, 5.0)
    np.testing.assert_array_equal(dff[0], 0)
    assert np.isnan(dff[1:]).all()


@pytest.mark.parametrize("sigma", [0.0, 5e-324, 1e-160, 0.12])
def test_smoothing_over_less_than_a_frame_is_none(sigma):
    F = 100 + np.random.default_rng(4).random((2, 30))
    np.testing.assert_array_equal(
        baseline(F, 1.0, window=5, sigma=sigma), baseline(F, 1.0, window=5, sigma=0)
    )


def test_a_window_longer_than_any_recording_is_the_whole_recording():
    F = 100 + np.random.default_rng(3).random((2, 30))
    np.testing.assert_array_equal(baseline(F, 1e6, window=1e6), baseline(F, 1.0, window=60.0))


# --- sound folders ----------------------------------------------------------------------------------


def test_everything_is_read(folder):
    recording = read_suite2p(folder)
    F, Fneu, spikes = (np.load(folder / name) for name in ("F.npy", "Fneu.npy", "spks.npy"))
    stat = np.load(folder / "stat.npy", allow_pickle=True)
    assert recording.frame_rate == 8.0
    assert (recording.x_size, recording.y_size) == (512, 400)
    expected = relative_fluorescence(F, Fneu, 8.0, coefficient=0.7, window=10.0, sigma=3.0)
    np.testing.assert_array_equal(recording.dff, expected)
    assert np.isfinite(recording.dff).all()
    np.testing.assert_array_equal(recording.spikes, spikes)
    assert [roi.roi_number for roi in recording.rois] == list(range(1, N + 1))
    assert [roi.bad for roi in recording.rois] == [i == 2 for i in range(N)]
    for roi, entry, trace in zip(recording.rois, stat, F, strict=True):
        assert (roi.y, roi.x) == entry["med"]
        assert roi.radius == 5.5
        np.testing.assert_array_equal(roi.x_pix, entry["xpix"])
        np.testing.assert_array_equal(roi.y_pix, entry["ypix"])
        np.testing.assert_array_equal(roi.weight, entry["lam"])
        assert roi.f_mean == pytest.approx(trace.mean(), rel=1e-5)
        assert roi.f_median == pytest.approx(np.median(trace), rel=1e-5)
    image = np.load(folder / "ops.npy", allow_pickle=True).item()["meanImg"]
    np.testing.assert_array_equal(recording.rois[0].plane.mean_img, image)
    assert recording.notes == ()


def test_neuropil_coefficient_of_ops_counts(folder):
    before = read_suite2p(folder).dff
    change_ops(folder, neucoeff=0.1)
    assert not np.allclose(read_suite2p(folder).dff, before)


def test_defaults_where_ops_says_nothing(folder):
    stated = dict.fromkeys(("neucoeff", "win_baseline", "sig_baseline", "Lx", "Ly", "meanImg"))
    change_ops(folder, **stated)
    recording = read_suite2p(folder)
    F, Fneu = np.load(folder / "F.npy"), np.load(folder / "Fneu.npy")
    expected = relative_fluorescence(F, Fneu, 8.0, coefficient=0.7, window=60.0, sigma=10.0)
    np.testing.assert_array_equal(recording.dff, expected)
    assert recording.x_size > max(roi.x for roi in recording.rois)
    assert recording.rois[0].plane.mean_img is None


def test_given_frame_rate_wins(folder):
    assert read_suite2p(folder, 30.0).frame_rate == 30.0
    change_ops(folder, fs=None)
    assert read_suite2p(folder, 30.0).frame_rate == 30.0


def test_spikes_are_optional(folder):
    (folder / "spks.npy").unlink()
    assert read_suite2p(folder).spikes is None


@pytest.mark.parametrize("dtype", [">f4", "f8", "i2", "u2"])
def test_other_precisions_and_orders_mean_the_same(folder, dtype):
    for name in ("F.npy", "Fneu.npy"):
        change(folder / name, np.round)
    before = read_suite2p(folder)
    for name in ("F.npy", "Fneu.npy", "spks.npy"):
        change(
            folder / name,
            lambda array, n=name: np.asfortranarray(array, dtype=None if n == "spks.npy" else dtype),
        )
    after = read_suite2p(folder)
    np.testing.assert_array_equal(after.dff, before.dff)
    np.testing.assert_array_equal(after.spikes, before.spikes)
    assert after.dff.flags.c_contiguous


def test_iscell_may_be_one_column(folder):
    change(folder / "iscell.npy", lambda array: array[:, 0].astype(bool).astype(np.uint8))
    assert [roi.bad for roi in read_suite2p(folder).rois] == [i == 2 for i in range(N)]


def test_cells_without_a_baseline_stay_without_dff_and_are_counted(folder):
    change(folder / "F.npy", lambda F: np.where(np.arange(N)[:, None] == 4, 0, F))
    recording = read_suite2p(folder)
    assert np.isnan(recording.dff[4]).all()
    assert np.isfinite(np.delete(recording.dff, 4, axis=0)).all()
    assert recording.notes[0].startswith("1 of 5 cells have no finite fluorescence")


def test_planes_are_joined(tmp_path):
    parent = tmp_path / "suite2p"
    for plane, n_frames in ((0, T), (1, T - 1), (10, T)):
        write_folder(parent / f"plane{plane}", seed=plane, n_frames=n_frames)
    (parent / "combined").mkdir()
    recording = read_suite2p(parent)
    assert recording.dff.shape == recording.spikes.shape == (3 * N, T - 1)
    assert [roi.plane.plane_num for roi in recording.rois] == [1] * N + [2] * N + [11] * N
    assert [roi.roi_number for roi in recording.rois] == list(range(1, 3 * N + 1))
    alone = read_suite2p(parent / "plane1")
    np.testing.assert_array_equal(recording.dff[N : 2 * N], alone.dff)


def test_fingerprint_is_that_of_the_files(tmp_path):
    first = read_suite2p(write_folder(tmp_path / "a")).fingerprint
    assert read_suite2p(write_folder(tmp_path / "b")).fingerprint == first
    for name in ("F.npy", "Fneu.npy", "spks.npy"):
        other = write_folder(tmp_path / name)
        change(other / name, lambda array: array + 1)
        assert read_suite2p(other).fingerprint != first


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_pickles_of_both_numpy_generations(protocol, core):
    value = {
        "float": np.float32(1.5),
        "text": np.str_("Größe"),
        "big": np.arange(6, dtype=">i2").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "objects": np.array([{"a": np.arange(3)}, None], dtype=object),
        "flag": np.array([True, False]),
        "complex": 1 + 2j,
    }
    if protocol == 2:  # writes bytes as text through a codec, which no version of suite2p has done
        value = {"text": "Größe", "list": [1, 2.5, None, (True,)]}
    data = pickle.dumps(value, protocol=protocol)
    if core == b"numpy.core":
        short = [b"\x8c" + bytes([len(b"numpy._core.") + n]) for n in (10, 7)]
        for n, prefix in zip((10, 7), short, strict=True):
            data = data.replace(
                prefix + b"numpy._core.", b"\x8c" + bytes([len(b"numpy.core.") + n]) + b"numpy.core."
            )
        data = data.replace(b"numpy._core.", b"numpy.core.")
        if protocol >= 4:  # frames hold their length; without them the same opcodes follow
            data = data[:2] + data[11:]
    loaded = load_guarded(io.BytesIO(data))
    assert loaded.keys() == value.keys()
    for key, expected in value.items():
        got = loaded[key]
        assert type(got) is type(expected)
        if isinstance(expected, np.ndarray) and expected.dtype != object:
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
        elif isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(got[0]["a"], expected[0]["a"])
            assert got[1] is None
        else:
            assert got == expected


# --- unsound folders --------------------------------------------------------------------------------


def test_missing_folder(tmp_path):
    assert refusal(tmp_path / "none").startswith(f"{tmp_path / 'none'}: there is no such folder: give")
    assert f"{tmp_path / 'F.npy'}: there is no such file" in refusal(tmp_path)


@pytest.mark.parametrize("name", [name for name in FILES if name != "spks.npy"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    assert refusal(folder).startswith(f"{folder / name}: there is no such file: give")
    (folder / name).mkdir()
    assert refusal(folder).startswith(f"{folder / name}: there is no such file: give")


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@in_one_folder
def test_truncated_file(tmp_path, name, data):
    path = write_folder(tmp_path / "plane0") / name
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    message = refusal(path.parent)
    assert message.startswith(f"{path}: ")
    assert "truncated" in message


@pytest.mark.parametrize("name", ARRAYS)
def test_file_with_a_tail(folder, name):
    with (folder / name).open("ab") as file:
        file.write(b"more")
    assert f"{folder / name}: it is too long" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@in_one_folder
def test_damaged_file_is_refused_or_read_but_never_a_traceback(tmp_path, name, data):
    path = write_folder(tmp_path / "plane0") / name
    damaged = bytearray(path.read_bytes())
    where = data.draw(st.one_of(st.integers(0, min(600, len(damaged) - 1)), st.integers(0, len(damaged) - 1)))
    damaged[where] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        read_suite2p(path.parent)
    except SampleError as error:
        refused = str(error)
    else:
        refused = ""
    assert "\n" not in refused


@pytest.mark.parametrize("name", ARRAYS)
def test_pickled_content_where_numbers_are_expected(folder, name):
    np.save(folder / name, np.array([{"a": 1}] * N, dtype=object))
    assert f"{folder / name}: it holds pickled objects where an array of numbers is expected" in refusal(
        folder
    )


@pytest.mark.parametrize("name", ["stat.npy", "ops.npy"])
def test_numbers_where_pickled_content_is_expected(folder, name):
    np.save(folder / name, np.zeros(N))
    assert f"{folder / name}: it holds float64 where pickled dictionaries are expected" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 zip", b"hello", b"\x93NUMPY\x01\x00\x05\x00{'a'}"])
@pytest.mark.parametrize("name", FILES)
def test_something_else_entirely(folder, name, content):
    (folder / name).write_bytes(content)
    assert f"{folder / name}: it is no .npy file, or truncated" in refusal(folder)


@pytest.mark.parametrize("name", ["F.npy", "Fneu.npy", "spks.npy"])
@pytest.mark.parametrize(
    "function",
    [
        lambda a: a[0],
        lambda a: a[None],
        lambda a: a.astype(complex),
        lambda a: a.astype("U8"),
        lambda a: a > 0,
    ],
)
def test_wrong_shape_or_type(folder, name, function):
    change(folder / name, function)
    assert refusal(folder).startswith(f"{folder / name}: it")


@pytest.mark.parametrize("name", ["Fneu.npy", "spks.npy", "iscell.npy", "stat.npy"])
def test_another_number_of_rois(folder, name):
    change(folder / name, lambda array: array[:-1])
    message = refusal(folder)
    assert message.startswith(f"{folder / name}: it")
    assert "F.npy" in message
    assert message.endswith("all files must come from one run of suite2p")


@pytest.mark.parametrize("name", ["Fneu.npy", "spks.npy"])
def test_another_number_of_frames(folder, name):
    change(folder / name, lambda array: array[:, :-1])
    assert f"{folder / name}: its shape is ({N}, {T - 1}) but that of F.npy is ({N}, {T})" in refusal(folder)


@pytest.mark.parametrize("shape", [(0, T), (N, 0), (0, 0)])
def test_empty_arrays(folder, shape):
    np.save(folder / "F.npy", np.zeros(shape))
    assert f"{folder / 'F.npy'}: it is empty" in refusal(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -5.0])
def test_nothing_usable_at_all(folder, value):
    change(folder / "F.npy", lambda F: np.full_like(F, value))
    assert f"{folder / 'F.npy'}: no cell has a finite fluorescence" in refusal(folder)


def test_iscell_that_is_no_classification(folder):
    change(folder / "iscell.npy", np.zeros_like)
    assert f"{folder / 'iscell.npy'}: no ROI is a cell" in refusal(folder)
    change(folder / "iscell.npy", lambda array: array + 0.5)
    assert f"{folder / 'iscell.npy'}: its first column holds other values" in refusal(folder)


@pytest.mark.parametrize(
    "value", [0, -1, 1e-300, np.nan, np.inf, "9.37", None, True, [9.37], 1e9, np.array(9.37)]
)
def test_impossible_frame_rate(folder, value):
    ops = np.load(folder / "ops.npy", allow_pickle=True).item()
    np.save(folder / "ops.npy", {**ops, "fs": value})
    assert refusal(folder).startswith(f"{folder / 'ops.npy'}: 'fs' is ")


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_impossible_given_frame_rate(folder, value):
    assert refusal(folder, value).startswith("the frame rate is ")


def test_no_frame_rate(folder):
    change_ops(folder, fs=None)
    assert refusal(folder) == f"{folder / 'ops.npy'}: it has no frame rate ('fs'): give the frame rate"


@pytest.mark.parametrize("name", ["neucoeff", "win_baseline", "sig_baseline", "Lx", "Ly"])
@pytest.mark.parametrize("value", [-1, np.nan, "much", 1e7])
def test_impossible_options(folder, name, value):
    change_ops(folder, **{name: value})
    assert refusal(folder).startswith(f"{folder / 'ops.npy'}: {name!r} is ")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (None, "has no 'med'"),
        ({}, "has no 'med'"),
        ({"med": (1, 2, 3)}, "'med' is not a pair"),
        ({"med": "ab"}, "'med' is not a list of finite numbers"),
        ({"med": (np.nan, 1.0)}, "'med' is not a list of finite numbers"),
        ({"med": ([1], [1, 2])}, "'med' is not a list of finite numbers"),
        ({"med": (1, 2), "radius": np.inf}, "'radius' is not a list of finite numbers"),
        ({"med": (1, 2), "xpix": np.arange(3), "ypix": np.arange(4)}, "differ in length"),
        ({"med": (1, 2), "lam": np.zeros((2, 2))}, "'lam' is not a list of finite numbers"),
    ],
)
def test_unsound_roi(folder, entry, said):
    stat = np.load(folder / "stat.npy", allow_pickle=True)
    stat[3] = entry
    np.save(folder / "stat.npy", stat)
    message = refusal(folder)
    assert message.startswith(f"{folder / 'stat.npy'}: ROI 3")
    assert said in message


@pytest.mark.parametrize("content", [{"a": 1}, 5, None])
def test_ops_that_is_no_dictionary(folder, content):
    held = np.empty(2, object)
    held[:] = content
    np.save(folder / "ops.npy", held)
    assert f"{folder / 'ops.npy'}: it does not hold one dictionary" in refusal(folder)


def test_planes_that_do_not_belong_together(tmp_path):
    write_folder(tmp_path / "plane0")
    other = write_folder(tmp_path / "plane1", fs=9.0)
    assert "its planes differ in frame rate ([8.0, 9.0] Hz): give the frame rate" in refusal(tmp_path)
    assert read_suite2p(tmp_path, 8.5).frame_rate == 8.5
    write_folder(other, n_frames=T - 2)
    assert f"its planes differ in length ({T - 2} to {T} frames)" in refusal(tmp_path)
    (write_folder(other) / "spks.npy").unlink()
    assert "only some of its planes have spks.npy" in refusal(tmp_path)


# --- pickles that mean harm -------------------------------------------------------------------------


class Calls:
    """Pickles into a call."""

    def __init__(self, function, *arguments):
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("name", ["stat.npy", "ops.npy"])
@pytest.mark.parametrize(
    "harm",
    [
        lambda mark: Calls(os.mkdir, str(mark)),
        lambda mark: Calls(eval, f"open({str(mark)!r}, 'w').close()"),
        lambda mark: Calls(pathlib.Path.mkdir, pathlib.Path(mark)),
        lambda mark: {"med": Calls(os.makedirs, str(mark))},
    ],
)
def test_a_pickle_runs_nothing(folder, tmp_path, name, harm):
    mark = tmp_path / "harm"
    held = np.empty((), object)
    held[()] = {"fs": 8.0, "harm": harm(mark)}
    np.save(folder / name, held)
    message = refusal(folder)
    assert message.startswith(f"{folder / name}: its pickle asks for ")
    assert "nothing of it was run, do not trust this file" in message
    assert not mark.exists()
    np.load(folder / name, allow_pickle=True)
    assert mark.exists(), "the pickle would have done harm"


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cnumpy\nload\n.",
        b"cnumpy._core.multiarray\nfromfile\n.",
        b"(S'true'\nios\nsystem\n.",
        b"cos.path\nos.system\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    ],
)
def test_names_that_plain_data_never_needs(code):
    with pytest.raises(SampleError, match="its pickle asks for"):
        load_guarded(io.BytesIO(code))


class Forged:
    """Pickles into an array whose dtype or contents are not what NumPy would write."""

    def __init__(self, spec, state):
        self._spec, self._state = spec, state

    def __reduce__(self):
        rebuild, arguments, _ = np.zeros(1).__reduce__()
        return rebuild, arguments, (1, (1,), Calls(np.dtype, self._spec, False, True), False, self._state)


@pytest.mark.parametrize(
    ("spec", "content"),
    [
        ("O8", b"\x01" * 8),
        ("V8", b"\x01" * 8),
        ("i4,O", b"\x01" * 12),
        ("f8", b"\x01"),
        ("O8", "text"),
        ("f8", None),
    ],
)
def test_forged_arrays_never_become_pointers(spec, content):
    with pytest.raises((SampleError, ValueError, TypeError)):
        load_guarded(io.BytesIO(pickle.dumps(Forged(spec, content))))


@pytest.mark.parametrize("name", [b"numpy\ndtype", b"numpy._core.multiarray\nscalar", b"datetime\ndate"])
@pytest.mark.parametrize(
    "state", [b"}S'__call__'\nI1\ns", b"(N}S'__call__'\nI1\nst", b"(cbuiltins\nset\n)}Nt", b"(I1\nS'<'\nt"]
)
def test_pickle_cannot_change_what_later_ones_are_given(name, state):
    with contextlib.suppress(SampleError, TypeError, ValueError, AttributeError, pickle.UnpicklingError):
        load_guarded(io.BytesIO(b"c" + name + b"\n" + state + b"b."))
    value = {"day": datetime.date(2024, 1, 1), "number": np.float32(2), "array": np.arange(3)}
    loaded = load_guarded(io.BytesIO(pickle.dumps(value)))
    assert loaded["day"] == value["day"]
    assert loaded["number"] == value["number"]
    np.testing.assert_array_equal(loaded["array"], value["array"])


def test_small_pickle_that_unfolds_to_a_huge_one_stays_small():
    value = [1]
    for _ in range(40):
        value = [value, value]
    loaded = load_guarded(io.BytesIO(pickle.dumps(value)))
    assert loaded[0] is loaded[1]


def test_endless_nesting_is_refused():
    value = []
    value.append(value)
    with pytest.raises(ValueError, match="nested too deeply"):
        load_guarded(io.BytesIO(pickle.dumps(value)))
