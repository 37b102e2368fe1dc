"""Singular value decomposition of the activity of many neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from workflow.analysis.binning import bin_frames
from workflow.analysis.normalization import zscore
from workflow.analysis.svd import SVD, population_svd
from workflow.pipeline import exp2, img, stimanal
from workflow.pipeline.computing import Key, ThreeSteps, insert_chunked
from workflow.pipeline.traces import Activity, fetch_activity, trace_tables

schema = dj.Schema()

MIN_ROIS = 2
MIN_FRAMES = 2


@schema
class SVDParams(dj.Lookup):
    """How activity is prepared for the decomposition, and which recordings it applies to."""

    definition = """
    # preparation of activity for singular value decomposition
    svd_params : varchar(32)
    ---
    activity : enum('dff', 'spikes')
    recording : enum('mesoscope', 'other')  # sessions that these parameters apply to
    time_bin : float64  # s, 0 = every frame
    threshold : float64  # z-score, 0 = none
    """
    contents: ClassVar = [
        ("mesoscope", "dff", "mesoscope", 0.0, 0.0),
        ("other_0.2s", "dff", "other", 0.2, 0.0),
        ("other_0.5s", "dff", "other", 0.5, 0.0),
        ("other_1s", "dff", "other", 1.0, 0.0),
    ]


@dataclass(frozen=True)
class _Inputs:
    activity: Activity
    time_bin: float
    threshold: float

    @property
    def digest(self) -> str:
        return f"{self.activity.digest} {self.time_bin!r} {self.threshold!r}"


@dataclass(frozen=True)
class _Result:
    skip_reason: str
    bin_width: float
    frame_rate: float
    n_frames: int
    roi_keys: list[Key]
    unused: list[tuple[Key, str]]
    svd: SVD | None


@schema
class PopulationSVD(ThreeSteps, dj.Computed):
    """Z = U S Vᵀ of all good ROIs of one epoch."""

    definition = """
    # singular value decomposition of the whole field of view in one epoch
    -> exp2.SessionEpoch
    -> SVDParams
    ---
    skip_reason="" : varchar(255)  # why nothing was computed; empty = computed
    n_rois : int32  # ROIs used, N
    n_frames : int32  # time bins used, T
    frame_rate : float64  # Hz
    bin_width : float64  # s, true width of a time bin
    k90=null : int32  # components that explain nine tenths of the variance
    singular_values=null : <blob>  # all of them, descending
    code_commit="" : varchar(40)  # commit that computed this row
    """

    class ROI(dj.Part):
        """The weights of one ROI."""

        definition = """
        # weights of an ROI
        -> master
        -> img.ROI
        ---
        weights : <blob>  # row of U for the first k90 components, float32
        """

    class Component(dj.Part):
        """One component in time."""

        definition = """
        # temporal components
        -> master
        component : int16  # 0 = largest
        ---
        time_course : <blob>  # row of Vᵀ, unit norm, float32
        """

    class UnusedROI(dj.Part):
        """An ROI that could not be normalised."""

        definition = """
        # ROIs that were left out
        -> master
        -> img.ROI
        ---
        reason : varchar(64)
        """

    code_commit: ClassVar[str] = ""

    @property
    def key_source(self) -> Any:
        """Epochs of included animals with traces, each with the parameters of its recording."""
        epochs = (exp2.SessionEpoch() & stimanal.MiceIncluded) - exp2.SessionEpochSomatotopy
        mesoscope, other = SVDParams() & "recording='mesoscope'", SVDParams() & "recording='other'"
        matching = [
            exp2.Session.proj() * mesoscope.proj() & img.Mesoscope,
            exp2.Session.proj() * other.proj() - img.Mesoscope,
        ]
        recorded = [
            (exp2.SessionEpoch() & table).proj() * (SVDParams() & {"activity": name}).proj()
            for name, (table, _) in trace_tables().items()
        ]
        return epochs.proj() * SVDParams.proj() & matching & recorded

    def read(self, key: Key) -> _Inputs:
        """Fetch the traces and the parameters."""
        params = (SVDParams() & key).fetch1()
        return _Inputs(fetch_activity(key, params["activity"]), params["time_bin"], params["threshold"])

    def compute(self, inputs: _Inputs) -> _Result:
        """Bin, normalise and decompose."""
        activity = inputs.activity
        binned, bin_width = bin_frames(activity.F, inputs.time_bin, activity.frame_rate)
        normalized = zscore(binned, threshold=inputs.threshold)
        unused = [(activity.keys[i], str(reason)) for i, reason in normalized.dropped]
        n_rois, n_frames = normalized.Z.shape
        reason = ""
        if n_frames < MIN_FRAMES:
            reason = f"too short: {n_frames} time bin(s), needs {MIN_FRAMES}"
        elif n_rois < MIN_ROIS:
            reason = f"too few usable ROIs: {n_rois}, needs {MIN_ROIS}"
        return _Result(
            skip_reason=reason,
            bin_width=bin_width,
            frame_rate=activity.frame_rate,
            n_frames=n_frames,
            roi_keys=[activity.keys[i] for i in normalized.kept],
            unused=unused,
            svd=None if reason else population_svd(normalized.Z, overwrite=True),
        )

    def store(self, key: Key, result: _Result) -> None:
        """Insert the decomposition."""
        svd = result.svd
        self.insert1(
            {
                **key,
                "skip_reason": result.skip_reason,
                "n_rois": len(result.roi_keys),
                "n_frames": result.n_frames,
                "frame_rate": result.frame_rate,
                "bin_width": result.bin_width,
                "k90": svd.k90 if svd else None,
                "singular_values": svd.s if svd else None,
                "code_commit": self.code_commit,
            }
        )
        insert_chunked(self.UnusedROI, ({**key, **roi, "reason": reason} for roi, reason in result.unused))
        if svd is None:
            return
        weights = svd.U.astype(np.float32)
        insert_chunked(
            self.ROI,
            ({**key, **roi, "weights": row} for roi, row in zip(result.roi_keys, weights, strict=True)),
        )
        insert_chunked(
            self.Component,
            ({**key, "component": i, "time_course": row} for i, row in enumerate(svd.Vt.astype(np.float32))),
        )
