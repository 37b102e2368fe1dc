"""What the decompositions of a whole field of view, of an area and of a part of it have in common."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from workflow.analysis.binning import bin_width, frames_per_bin
from workflow.analysis.svd import SVD, population_svd
from workflow.pipeline.computing import Key, ThreeSteps, insert_chunked
from workflow.pipeline.memory import Sized, decomposition_values
from workflow.pipeline.parameters import Row, at_least, at_most, one_of, problems
from workflow.pipeline.prepared import Prepared, prepare, shortfall
from workflow.pipeline.seeds import seed_for
from workflow.pipeline.traces import Activity, fetch_activity

MIN_ROIS = 2
MIN_FRAMES = 2
MOST_TIME_COURSES = 1000
MOST_COMPONENTS = 2**15 - 1  # the column `component` is an int16
LONGEST_BIN = 1e6  # s, more than any recording

#: What every Lookup table of these computations begins with; see `prepare` and `epochs`.
PREPARATION_COLUMNS = """
    activity : enum('dff', 'spikes')
    recording : enum('mesoscope', 'other')  # sessions that these parameters apply to
    time_bin : float64  # s, 0 = every frame
    threshold : float64  # z-score, 0 = none
"""
#: Definitions that several tables share; a table's own columns go between the two.
SIZE_COLUMNS = """
    skip_reason="" : varchar(255)  # why nothing was computed; empty = computed
    n_rois : int32  # ROIs used, N
    n_frames : int32  # time bins used, T
    frame_rate : float64  # Hz
    bin_width : float64  # s, true width of a time bin
"""
RESULT_COLUMNS = """
    k90=null : int32  # components that explain nine tenths of the variance
    singular_values=null : <blob>  # all of them, descending
    code_commit="" : varchar(40)  # commit that computed this row
"""
ROI_WEIGHTS = """
    # weights of an ROI
    -> master
    -> img.ROI
    ---
    weights : <blob>  # row of U for the first k90 components, float32
"""
TIME_COURSES = """
    # temporal components
    -> master
    component : int16  # 0 = largest
    ---
    time_course : <blob>  # row of Vᵀ, unit norm, float32
"""
UNUSED_ROIS = """
    # ROIs that were left out
    -> master
    -> img.ROI
    ---
    reason : varchar(64)
"""


#: `RESULT_COLUMNS` where nothing was computed.
NO_RESULT = {"k90": None, "singular_values": None}


@dataclass(frozen=True)
class Inputs:
    """Traces and the row of parameters that says what to do with them."""

    activity: Activity
    params: dict[str, Any]
    seed: int = 0

    @property
    def digest(self) -> str:
        """A hash of everything that was read."""
        return f"{self.activity.digest} {sorted(self.params.items())!r} {self.seed}"


@dataclass(frozen=True)
class Result:
    """A decomposition, or the reason why there is none.

    Attributes
    ----------
    columns : dict
        The master's row but for its primary key.
    roi_keys : list of dict
        ROIs that were used, in the order of the rows of U.
    unused : list of (dict, str)
        ROIs that were left out, each with its reason.
    svd : SVD or None
    """

    columns: dict[str, Any]
    roi_keys: list[Key] = field(default_factory=list)
    unused: list[tuple[Key, str]] = field(default_factory=list)
    svd: SVD | None = None


def check_choice(row: Row) -> str:
    """Require kinds of activity and of recording that exist, and a time bin that one can be.

    A server's own refusal names no remedy.
    """
    return problems(
        one_of(row, "activity", "dff", "spikes"),
        one_of(row, "recording", "mesoscope", "other"),
        at_least(row, "time_bin", 0),
        at_most(row, "time_bin", LONGEST_BIN),
    )


def check_preparation(row: Row) -> str:
    """Require what `check_choice` does, and a threshold that is a number, not negative."""
    return problems(check_choice(row), at_least(row, "threshold", 0))


def fetch_inputs(key: Key, lookup: Any) -> Inputs:
    """Fetch one row of parameters; find the traces that it asks for, all or those of the area in the key."""
    params = (lookup & key).fetch1()
    seed = seed_for(key, params["seed"]) if "seed" in params else 0
    return Inputs(fetch_activity(key, params["activity"], key.get("brain_area")), params, seed)


def size_columns(prepared: Prepared, skip_reason: str) -> dict[str, Any]:
    """Fill in `SIZE_COLUMNS`."""
    return {
        "skip_reason": skip_reason,
        "n_rois": prepared.n_rois,
        "n_frames": prepared.n_frames,
        "frame_rate": prepared.frame_rate,
        "bin_width": prepared.bin_width,
    }


class Decomposition(Sized, ThreeSteps):
    """Mixin for Computed tables that hold one decomposition per key.

    Their parts are called ROI, Component and UnusedROI, and ``params`` is their Lookup table, which begins
    with `PREPARATION_COLUMNS`. Where the key names a brain area, the ROIs of that area are decomposed, else
    all.
    """

    params: ClassVar[Any]
    held_values = staticmethod(decomposition_values)

    def read(self, key: Key) -> Inputs:
        """Find the traces and fetch the parameters."""
        return fetch_inputs(key, self.params())

    def compute(self, inputs: Inputs) -> Result:
        """Bin, normalise and decompose."""
        params = inputs.params
        prepared = prepare(inputs.activity, params["time_bin"], params["threshold"], overwrite=True)
        return decompose(prepared, prepared.shortfall(MIN_ROIS, MIN_FRAMES))

    def store(self: Any, key: Key, result: Result) -> None:
        """Insert the decomposition."""
        insert_chunked(self, [{**key, **result.columns, "code_commit": self.code_commit}])
        store_parts(self, key, result)


def too_small(activity: Activity, params: Row, min_rois: int, min_frames: int) -> dict[str, Any]:
    """Fill in `SIZE_COLUMNS` for an epoch or area that is too small whatever its traces hold; else empty.

    It is worth asking before the traces are used, since that is when they are fetched.
    """
    c = frames_per_bin(params["time_bin"], activity.frame_rate)
    n_rois, n_bins = len(activity.keys), activity.n_frames // c
    if n_rois >= min_rois and n_bins >= min_frames:
        return {}
    return {
        "skip_reason": shortfall(n_rois, n_bins, min_rois, min_frames, n_given=n_rois),
        "n_rois": n_rois,
        "n_frames": n_bins,
        "frame_rate": activity.frame_rate,
        "bin_width": bin_width(params["time_bin"], activity.frame_rate),
    }


def decompose(prepared: Prepared, skip_reason: str, n_components: int | None = None) -> Result:
    """Decompose normalised traces, whose matrix is used up, unless there is a reason not to.

    Without a number of components, the weights of the first k90 and the time courses of the first 1000 are
    kept; with one, at most that number of either.
    """
    columns = size_columns(prepared, skip_reason)
    if skip_reason:
        return Result({**columns, **NO_RESULT}, unused=prepared.unused)
    svd = population_svd(prepared.Z, max_components=n_components or MOST_TIME_COURSES, overwrite=True)
    svd = replace(svd, U=svd.U[:, :n_components])
    columns |= {"k90": svd.k90, "singular_values": svd.s}
    return Result(columns, prepared.keys, prepared.unused, svd)


def store_parts(table: Any, key: Key, result: Result) -> None:
    """Insert what became of each ROI, and weights and time courses in single precision.

    Parameters
    ----------
    table : datajoint.Table
        Has the parts ROI, Component and UnusedROI.
    key : dict
        The parts' primary key, but for ROI and component.
    result : Result
    """
    insert_chunked(table.UnusedROI, ({**key, **roi, "reason": reason} for roi, reason in result.unused))
    if result.svd is None:
        return
    weights = (row.astype(np.float32) for row in result.svd.U)
    insert_chunked(
        table.ROI, ({**key, **roi, "weights": row} for roi, row in zip(result.roi_keys, weights, strict=True))
    )
    time_courses = (row.astype(np.float32) for row in result.svd.Vt)
    insert_chunked(
        table.Component,
        ({**key, "component": i, "time_course": row} for i, row in enumerate(time_courses)),
    )
