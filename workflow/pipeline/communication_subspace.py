"""How one brain area's activity predicts another's, and through how few dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from workflow.analysis import communication_subspace as analysis
from workflow.pipeline import exp2, img, lab
from workflow.pipeline.computing import Key, ThreeSteps, insert_chunked
from workflow.pipeline.decomposition import SIZE_COLUMNS, UNUSED_ROIS, check_choice
from workflow.pipeline.epochs import area_keys
from workflow.pipeline.memory import DOUBLE, WORKER_BYTES, Sized, waiting_sizes
from workflow.pipeline.parameters import CheckedLookup, Row, at_least, at_most, problems
from workflow.pipeline.prepared import Prepared, prepare
from workflow.pipeline.seeds import seed_for
from workflow.pipeline.traces import Activity, fetch_activity

schema = dj.Schema()

IN_BOTH = "in both areas"
LEAST_RIDGE = 1e-12  # of the mean variance: what is less is lost in rounding


@schema
class CommunicationSubspaceParams(CheckedLookup):
    """Which ROIs, ranks and lags are tried, and which recordings it applies to."""

    definition = """
    # preparation of activity for the communication subspace
    communication_subspace_params : varchar(32)
    ---
    activity : enum('dff', 'spikes')
    recording : enum('mesoscope', 'other')  # sessions that these parameters apply to
    time_bin : float64  # s, 0 = every frame
    n_rois : int32  # at most so many ROIs of each area, drawn at random, so that areas compare
    max_rank : int16  # ranks 0 to this are tried
    max_lag : int16  # lags 0 to this are tried, in time bins
    folds : int16  # blocks of time for cross-validation
    gap : int16  # time bins on either side of a block that are left out of training
    ridge_min : float64  # in units of the mean variance of the source ROIs
    ridge_max : float64  # in the same units
    n_ridges : int16  # evenly spaced in their logarithm
    seed : int32  # decides which ROIs are drawn
    """
    contents: ClassVar = [("mesoscope", "dff", "mesoscope", 0.0, 80, 40, 30, 10, 50, 1e-4, 1.0, 9, 0)]

    @staticmethod
    def check(row: Row) -> str:
        """Require ranks that the ROIs allow, and enough blocks to fit, choose and test on."""
        return problems(
            check_choice(row),
            at_least(row, "n_rois", 1),
            at_least(row, "max_rank", 1),
            at_most(row, "max_rank", "n_rois"),
            at_least(row, "max_lag", 0),
            at_least(row, "folds", analysis.MIN_FOLDS),
            at_most(row, "folds", analysis.MOST_FOLDS),
            at_least(row, "gap", 0),
            at_least(row, "ridge_min", LEAST_RIDGE),
            at_least(row, "ridge_max", "ridge_min"),
            at_least(row, "n_ridges", 1),
            at_least(row, "seed", 0),
        )


@dataclass(frozen=True)
class _Side:
    """The good ROIs of one area, and the order in which they are drawn: row numbers."""

    area: str
    seed: int
    activity: Activity
    order: list[int]


@dataclass(frozen=True)
class _Inputs:
    source: _Side
    target: _Side
    in_both: list[Key]
    params: dict[str, Any]

    @property
    def digest(self) -> str:
        """A hash of everything that was read."""
        sides = [
            (side.area, side.seed, side.order, side.activity.digest) for side in (self.source, self.target)
        ]
        return repr((sides, self.in_both, sorted(self.params.items())))


@dataclass(frozen=True)
class _Result:
    columns: dict[str, Any]
    rois: list[tuple[Key, str]]  # each with its side
    unused: list[tuple[Key, str]]  # each with the reason
    subspace: analysis.CommunicationSubspace | None


@schema
class CommunicationSubspace(Sized, ThreeSteps, dj.Computed):
    """Reduced-rank regression of one area's activity on another's, at every rank and lag.

    ROIs are drawn from those that can be normalised: the seed of an area puts its good ROIs in a random
    order, the same in every pair, and the first usable ones that are not in the other area too are taken.
    """

    definition = f"""
    # reduced-rank regression of a target area on a source area in one epoch
    -> exp2.SessionEpoch
    -> lab.BrainArea.proj(source_area="brain_area")
    -> lab.BrainArea.proj(target_area="brain_area")
    -> CommunicationSubspaceParams
    ---
    {SIZE_COLUMNS}
    n_source : int32  # ROIs of the source that were used
    n_target : int32  # ROIs of the target that were used
    n_source_available : int32  # good ROIs of the source, from which they were drawn
    n_target_available : int32  # good ROIs of the target, from which they were drawn
    best_lag=null : int16  # time bins by which the source leads where it predicts best; NULL = it does not
    best_rank=null : int16  # at that lag, the smallest rank within one standard error of the best
    best_r2=null : float64  # cross-validated, at that lag and rank
    source_seed : int64  # of the draw of ROIs, the same in all pairs with this area
    target_seed : int64
    code_commit="" : varchar(40)  # commit that computed this row
    """

    class ROI(dj.Part):
        """An ROI that was used."""

        definition = """
        # ROIs and the area that they stand for
        -> master
        -> img.ROI
        ---
        side : enum('source', 'target')
        """

    class Lag(dj.Part):
        """One lag."""

        definition = """
        # lags; positive = the source leads
        -> master
        lag_bins : int16  # time bins
        ---
        lag_time : float64  # s
        best_rank : int16  # smallest rank within one standard error of the best
        best_r2 : float64  # at that rank
        r2 : <blob>  # by rank from 0; mean over the folds of 1 - squared error / deviation from the mean
        r2_standard_error : <blob>  # of these means
        ridge : float64  # geometric mean over the folds, in units of the mean variance of the source ROIs
        """

    class UnusedROI(dj.Part):
        """An ROI that was left out."""

        definition = UNUSED_ROIS

    @property
    def key_source(self) -> Any:
        """Ordered pairs of different areas that have traces in the same epoch."""
        params = CommunicationSubspaceParams()
        return area_keys(params, "source_area") * area_keys(params, "target_area") & (
            "source_area <> target_area"
        )

    @staticmethod
    def held_values(n_rois: int, n_frames: int, folds: int = analysis.MOST_FOLDS) -> int:
        """Bound the traces of both sides, so many ROIs each, and what the regression keeps of every split."""
        return 6 * n_rois * n_frames + analysis.kept_matrices(folds) * n_rois**2

    @property
    def worker_memory(self) -> int:
        """Bytes that one call of ``make`` may take, with the largest pair and parameters in the queue."""
        waiting = CommunicationSubspaceParams().restrict(self.jobs.pending.proj(), semantic_check=False)
        rows, sizes = waiting.to_dicts(), waiting_sizes(self)
        found = [
            self.held_values(min(n_rois, row["n_rois"]), n_frames, row["folds"])
            for row in rows
            for n_rois, n_frames in sizes
        ]
        return WORKER_BYTES + DOUBLE * max(found) if found else 0

    def read(self, key: Key) -> _Inputs:
        """Fetch the parameters; find the traces of both areas, and put their ROIs in order."""
        params = (CommunicationSubspaceParams() & key).fetch1()
        source, target = (
            fetch_activity(key, params["activity"], key[side]) for side in ("source_area", "target_area")
        )
        in_target = set(map(_values, target.keys))
        in_both = [roi for roi in source.keys if _values(roi) in in_target]
        return _Inputs(
            source=_side(key, key["source_area"], source, in_both, params["seed"]),
            target=_side(key, key["target_area"], target, in_both, params["seed"]),
            in_both=in_both,
            params=params,
        )

    def compute(self, inputs: _Inputs) -> _Result:
        """Draw, bin, normalise and regress."""
        params = inputs.params
        source, target = _drawn(inputs.source, params), _drawn(inputs.target, params)
        reason = _shortfall(source, target, inputs)
        subspace = None
        if not reason:
            subspace = analysis.communication_subspace(
                source.Z,
                target.Z,
                max_rank=params["max_rank"],
                max_lag=params["max_lag"],
                folds=params["folds"],
                gap=params["gap"],
                ridges=np.geomspace(params["ridge_min"], params["ridge_max"], params["n_ridges"]),
            )
        columns = {
            "skip_reason": reason,
            "n_rois": source.n_rois + target.n_rois,
            "n_frames": max(source.n_frames, target.n_frames),
            "frame_rate": source.frame_rate,
            "bin_width": source.bin_width,
            "n_source": source.n_rois,
            "n_target": target.n_rois,
            "n_source_available": len(inputs.source.activity.keys),
            "n_target_available": len(inputs.target.activity.keys),
            "source_seed": inputs.source.seed,
            "target_seed": inputs.target.seed,
        }
        return _Result(
            columns=columns | _best(subspace),
            rois=[(roi, "source") for roi in source.keys] + [(roi, "target") for roi in target.keys],
            unused=source.unused + target.unused + [(roi, IN_BOTH) for roi in inputs.in_both],
            subspace=subspace,
        )

    def store(self, key: Key, result: _Result) -> None:
        """Insert the lags."""
        self.insert1({**key, **result.columns, "code_commit": self.code_commit})
        insert_chunked(self.UnusedROI, ({**key, **roi, "reason": reason} for roi, reason in result.unused))
        if result.subspace is None:
            return
        insert_chunked(self.ROI, ({**key, **roi, "side": side} for roi, side in result.rois))
        insert_chunked(self.Lag, _lags(key, result.subspace, result.columns["bin_width"]))


def _side(key: Key, area: str, activity: Activity, in_both: list[Key], seed: int) -> _Side:
    """Put the ROIs of an area in an order that is the same in every pair.

    Those that are said to lie in the other area too are left out: they would predict themselves.
    """
    epoch = {name: key[name] for name in exp2.SessionEpoch().primary_key}
    own = seed_for({**epoch, "brain_area": area}, seed)
    order = np.random.default_rng(own).permutation(len(activity.keys)).tolist()
    left_out = set(map(_values, in_both))
    return _Side(area, own, activity, [row for row in order if _values(activity.keys[row]) not in left_out])


def _values(roi: Key) -> tuple[Any, ...]:
    return tuple(roi.values())


def _drawn(side: _Side, params: Row) -> Prepared:
    """Prepare the first usable ROIs in the order; traces that are not needed are not fetched."""
    order, parts = side.order, list[Prepared]()
    while not parts or (order and sum(part.n_rois for part in parts) < params["n_rois"]):
        missing = params["n_rois"] - sum(part.n_rois for part in parts)
        rows, order = sorted(order[:missing]), order[missing:]
        parts.append(prepare(side.activity.take(rows), params["time_bin"], overwrite=True))
    first, *others = parts
    if not others:
        return first
    return replace(
        first,
        Z=np.concatenate([part.Z for part in parts]),
        keys=[roi for part in parts for roi in part.keys],
        unused=[entry for part in parts for entry in part.unused],
    )


def _shortfall(source: Prepared, target: Prepared, inputs: _Inputs) -> str:
    params, bins = inputs.params, max(source.n_frames, target.n_frames)
    needed = analysis.shortest(params["max_lag"], params["folds"], params["gap"])
    if source.n_given + target.n_given and bins < needed:
        return f"too short: {bins} time bin(s), needs {needed}"
    if min(source.n_rois, target.n_rois) < params["max_rank"]:
        return (
            f"too few usable ROIs: {source.n_rois} in {inputs.source.area} and {target.n_rois} in "
            f"{inputs.target.area}, rank {params['max_rank']} needs {params['max_rank']} in each"
        )
    return ""


def _best(subspace: analysis.CommunicationSubspace | None) -> dict[str, Any]:
    """Columns that only a computation fills in."""
    columns: dict[str, Any] = {"best_lag": None, "best_rank": None, "best_r2": None}
    if subspace is None:
        return columns
    lag = subspace.best_lag
    rank = int(subspace.best_rank[lag])
    columns |= {"best_rank": rank, "best_r2": float(subspace.r2[lag, rank])}
    return columns | {"best_lag": lag if rank else None}


def _lags(key: Key, subspace: analysis.CommunicationSubspace, bin_width: float) -> Iterator[Key]:
    ridges = np.exp(np.log(subspace.ridge).mean(axis=1))
    for lag, rank in enumerate(subspace.best_rank.tolist()):
        yield {
            **key,
            "lag_bins": lag,
            "lag_time": lag * bin_width,
            "best_rank": rank,
            "best_r2": float(subspace.r2[lag, rank]),
            "r2": subspace.r2[lag],
            "r2_standard_error": subspace.standard_error[lag],
            "ridge": float(ridges[lag]),
        }
