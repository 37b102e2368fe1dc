"""Activity made ready for a computation: binned, normalised, and said of every ROI what became of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from workflow.analysis.arrays import Floats, Indices
from workflow.analysis.binning import bin_frames, bin_width, frames_per_bin
from workflow.analysis.normalization import zscore
from workflow.pipeline.traces import Activity, Key


@dataclass(frozen=True, eq=False)
class Prepared:
    """Normalised traces of one epoch or area.

    Attributes
    ----------
    Z : (N, T) float64 array, C order
        Rows of mean 0 and standard deviation 1; one column per time bin.
    keys : list of dict
        Primary key of the ROI that each row of ``Z`` belongs to.
    unused : list of (dict, str)
        The other ROIs, each with the reason why it could not be normalised.
    frame_rate : float
        Frames per second (Hz) of the recording.
    bin_width : float
        True width of a time bin (s).
    """

    Z: Floats
    keys: list[Key]
    unused: list[tuple[Key, str]]
    frame_rate: float
    bin_width: float

    @property
    def n_rois(self) -> int:
        """ROIs that are used, N."""
        return len(self.Z)

    @property
    def n_frames(self) -> int:
        """Time bins, T."""
        return int(self.Z.shape[1])

    @property
    def n_given(self) -> int:
        """ROIs that there were traces of, whether they can be used or not."""
        return len(self.keys) + len(self.unused)

    def take(self, rows: Indices) -> Prepared:
        """Only some of the ROIs, in a matrix of their own."""
        return replace(self, Z=self.Z[rows], keys=[self.keys[row] for row in rows])

    def shortfall(self, min_rois: int, min_frames: int) -> str:
        """Say why there is too little to compute anything, in words for ``skip_reason``; ``""`` if not."""
        return shortfall(self.n_rois, self.n_frames, min_rois, min_frames, n_given=self.n_given)


def shortfall(n_rois: int, n_frames: int, min_rois: int, min_frames: int, *, n_given: int) -> str:
    """Say why so many ROIs and time bins are too few, in words for ``skip_reason``, or else nothing.

    Of ``n_given`` ROIs there were traces. Without any, it is not known how long the epoch is.
    """
    if n_given and n_frames < min_frames:
        return f"too short: {n_frames} time bin(s), needs {min_frames}"
    if n_rois < min_rois:
        return f"too few usable ROIs: {n_rois}, needs {min_rois}"
    return ""


def prepare(
    activity: Activity, time_bin: float, threshold: float = 0.0, *, overwrite: bool = False
) -> Prepared:
    """Bin and normalise the traces of an epoch.

    Traces stored in single precision are cast to double once, a block of rows at a time.

    Parameters
    ----------
    activity : Activity
        As `workflow.pipeline.traces.fetch_activity` gives it.
    time_bin : float
        Wanted width of a time bin (s); 0 keeps every frame.
    threshold : float
        z-score at and below which activity counts as none; 0 keeps all of it.
    overwrite : bool
        Allow the result to be built inside the traces, which are then of no use to anybody else.

    Returns
    -------
    Prepared
    """
    c = frames_per_bin(time_bin, activity.frame_rate)
    if c == 1:
        normalized = zscore(activity.F, threshold, overwrite=overwrite)
    else:
        binned = bin_frames(activity.F, time_bin, activity.frame_rate)
        if overwrite:
            activity.forget()
        normalized = zscore(binned, threshold, overwrite=True)
    if overwrite:
        activity.forget()
    return Prepared(
        Z=normalized.Z,
        keys=[activity.keys[row] for row in normalized.kept],
        unused=[(activity.keys[row], str(reason)) for row, reason in normalized.dropped],
        frame_rate=activity.frame_rate,
        bin_width=bin_width(time_bin, activity.frame_rate),
    )
