"""Variance that two interleaved halves of a population share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import datajoint as dj
import numpy as np
from numpy.typing import NDArray

from workflow.analysis import shared_variance as svca
from workflow.analysis.arrays import Floats
from workflow.analysis.binning import bin_frames, bin_width, frames_per_bin
from workflow.analysis.normalization import unusable
from workflow.pipeline import exp2, img
from workflow.pipeline.computing import Key, ThreeSteps, insert_chunked
from workflow.pipeline.decomposition import SIZE_COLUMNS, UNUSED_ROIS, check_choice
from workflow.pipeline.epochs import with_traces
from workflow.pipeline.memory import Sized
from workflow.pipeline.parameters import CheckedLookup, Row, above, at_least, below, one_of, problems
from workflow.pipeline.seeds import seed_for
from workflow.pipeline.traces import Activity, Traces, fetch_activity

schema = dj.Schema()

#: In each half.
MIN_ROIS = 2
HALVES = {svca.FIRST: "first", svca.SECOND: "second"}
NO_CENTROID = "no centroid"
IN_GAP = "in the gap between the halves"


@schema
class SharedVarianceParams(CheckedLookup):
    """How ROIs and time are split, and which recordings it applies to."""

    definition = """
    # preparation of activity for shared variance component analysis
    shared_variance_params : varchar(32)
    ---
    activity : enum('dff', 'spikes')
    recording : enum('mesoscope', 'other')  # sessions that these parameters apply to
    time_bin : float64  # s, 0 = every frame
    normalization : enum('centred', 'zscored')  # zscored = every ROI counts alike
    tile : float64  # pixels, side of the squares of the checkerboard that splits the ROIs
    guard : float64  # pixels, gap between the squares; ROIs in it are left out
    block : int32  # bins, length of the training and test blocks
    max_components : int16
    seed : int32  # decides where the checkerboard lies
    """
    contents: ClassVar = [("mesoscope", "dff", "mesoscope", 0.0, "centred", 100.0, 15.0, 60, 1000, 0)]

    @staticmethod
    def check(row: Row) -> str:
        """Require a split that leaves ROIs in the squares, and blocks that are not empty."""
        return problems(
            check_choice(row),
            one_of(row, "normalization", "centred", "zscored"),
            above(row, "tile", 0),
            at_least(row, "guard", 0),
            below(row, "guard", "tile"),
            at_least(row, "block", 1),
            at_least(row, "max_components", 1),
            at_least(row, "seed", 0),
        )


@dataclass(frozen=True)
class _Inputs:
    activity: Activity
    centroids: Floats  # x and y of each ROI, NaN where there is none
    params: dict[str, Any]
    seed: int

    @property
    def digest(self) -> str:
        """A hash of everything that was read."""
        places = self.centroids.tolist()
        return f"{self.activity.digest} {places!r} {sorted(self.params.items())!r} {self.seed}"


@dataclass(frozen=True)
class _Result:
    columns: dict[str, Any]
    rois: list[tuple[Key, str]]  # each with its half
    unused: list[tuple[Key, str]]  # each with the reason
    shared: svca.SharedVariance | None


@schema
class SharedVariance(Sized, ThreeSteps, dj.Computed):
    """What two halves of the population of one epoch share, component by component."""

    definition = f"""
    # shared variance components of the whole field of view in one epoch
    -> exp2.SessionEpoch
    -> SharedVarianceParams
    ---
    {SIZE_COLUMNS}
    n_first : int32  # ROIs of the first half
    n_second : int32  # ROIs of the second half
    n_gap : int32  # usable ROIs that were left out because they lie between the halves
    n_train : int32  # time bins in the training blocks
    n_test : int32  # time bins in the test blocks
    n_components : int32
    reliable_fraction=null : float64  # shared variance of all components / variance of all ROIs, in the test
    seed : int64  # of the place of the checkerboard
    code_commit="" : varchar(40)  # commit that computed this row
    """

    class ROI(dj.Part):
        """An ROI that was used."""

        definition = """
        # ROIs and the half that they are in
        -> master
        -> img.ROI
        ---
        half : enum('first', 'second')
        """

    class Component(dj.Part):
        """One shared component."""

        definition = """
        # shared components
        -> master
        component : int16  # 0 = largest covariance in the training blocks
        ---
        shared : float64  # sum over the test bins of the product of the two projections
        total : float64  # half the sum over the test bins of their squares
        reliable=null : float64  # shared / total; NULL where the test is silent
        """

    class UnusedROI(dj.Part):
        """An ROI that was left out."""

        definition = UNUSED_ROIS

    @property
    def key_source(self) -> Any:
        """Epochs of included animals with traces, each with the parameters of its recording."""
        return with_traces(SharedVarianceParams())

    @staticmethod
    def held_values(n_rois: int, n_frames: int) -> int:
        """Traces and the two halves; the decomposition of their covariance."""
        return 2 * n_rois * n_frames + 2 * n_rois**2

    def read(self, key: Key) -> _Inputs:
        """Find the traces; fetch the centroids and the parameters."""
        params = (SharedVarianceParams() & key).fetch1()
        activity = fetch_activity(key, params["activity"])
        session = {name: key[name] for name in exp2.Session().primary_key}
        names = img.ROI().primary_key
        rows = (img.ROI() & session).proj("roi_centroid_x", "roi_centroid_y").to_dicts()
        places = {
            tuple(row[name] for name in names): (row["roi_centroid_x"], row["roi_centroid_y"]) for row in rows
        }
        found = [places[tuple(roi[name] for name in names)] for roi in activity.keys]
        centroids = np.array(found, dtype=np.float64).reshape(-1, 2).T  # None becomes NaN
        return _Inputs(activity, centroids, params, seed_for(key, params["seed"]))

    def compute(self, inputs: _Inputs) -> _Result:
        """Bin, split and measure."""
        activity, params = inputs.activity, inputs.params
        c = frames_per_bin(params["time_bin"], activity.frame_rate)
        binned: Traces = activity.F  # in the precision of the database, where nothing is averaged
        if c > 1:
            binned = bin_frames(activity.F, params["time_bin"], activity.frame_rate)
        activity.forget()  # the name `binned` is what still holds them
        halves, unused = _split(inputs, {row: str(reason) for row, reason in unusable(binned).items()})
        first, second = np.flatnonzero(halves == svca.FIRST), np.flatnonzero(halves == svca.SECOND)
        columns = {
            "n_rois": first.size + second.size,
            "n_frames": binned.shape[1],
            "frame_rate": activity.frame_rate,
            "bin_width": bin_width(params["time_bin"], activity.frame_rate),
            "n_first": first.size,
            "n_second": second.size,
            "n_gap": sum(reason == IN_GAP for reason in unused.values()),
            "seed": inputs.seed,
        }
        columns["skip_reason"] = _shortfall(columns, params, n_given=len(activity.keys))
        shared = None
        if not columns["skip_reason"]:
            F1, F2 = binned[first], binned[second]
            del binned
            shared = svca.shared_variance(
                F1,
                F2,
                block=params["block"],
                max_components=params["max_components"],
                zscored=params["normalization"] == "zscored",
            )
        return _Result(
            columns=columns | _summary(shared),
            rois=[(activity.keys[row], HALVES[int(halves[row])]) for row in np.flatnonzero(halves)],
            unused=[(activity.keys[row], reason) for row, reason in sorted(unused.items())],
            shared=shared,
        )

    def store(self, key: Key, result: _Result) -> None:
        """Insert the components."""
        self.insert1({**key, **result.columns, "code_commit": self.code_commit})
        insert_chunked(self.UnusedROI, ({**key, **roi, "reason": reason} for roi, reason in result.unused))
        if result.shared is None:
            return
        insert_chunked(self.ROI, ({**key, **roi, "half": half} for roi, half in result.rois))
        shared, total = result.shared.shared, result.shared.total
        reliable = [None if np.isnan(value) else float(value) for value in result.shared.reliable]
        rows = zip(shared.tolist(), total.tolist(), reliable, strict=True)
        insert_chunked(
            self.Component,
            (
                {**key, "component": i, "shared": both, "total": each, "reliable": ratio}
                for i, (both, each, ratio) in enumerate(rows)
            ),
        )


def _split(inputs: _Inputs, unusable: dict[int, str]) -> tuple[NDArray[np.int8], dict[int, str]]:
    """Put the usable ROIs into halves; give the others, by row, with the reason why they are in neither."""
    placed = np.isfinite(inputs.centroids.sum(axis=0))
    unused = {int(row): NO_CENTROID for row in np.flatnonzero(~placed)} | unusable
    usable = np.array([row for row in range(len(placed)) if row not in unused], dtype=np.int64)
    params = inputs.params
    x, y = inputs.centroids[:, usable]
    board = svca.checkerboard(x, y, tile=params["tile"], guard=params["guard"], seed=inputs.seed)
    halves = np.full(len(placed), svca.GUARD, np.int8)
    halves[usable] = board
    return halves, unused | {int(row): IN_GAP for row in usable[board == svca.GUARD]}


def _shortfall(columns: dict[str, Any], params: dict[str, Any], n_given: int) -> str:
    bins, needed = columns["n_frames"], 2 * params["block"]
    if n_given and bins < needed:
        return f"too short: {bins} time bin(s), needs {needed} (a training and a test block)"
    if min(columns["n_first"], columns["n_second"]) < MIN_ROIS:
        sizes = f"{columns['n_first']} and {columns['n_second']} in the two halves"
        return f"too few usable ROIs: {sizes}, needs {MIN_ROIS} in each"
    return ""


def _summary(shared: svca.SharedVariance | None) -> dict[str, Any]:
    """Columns that only a computation fills in."""
    if shared is None:
        return {"n_train": 0, "n_test": 0, "n_components": 0, "reliable_fraction": None}
    return {
        "n_train": shared.n_train,
        "n_test": shared.n_test,
        "n_components": len(shared.shared),
        "reliable_fraction": float(shared.shared.sum()) / shared.variance if shared.variance > 0 else None,
    }
