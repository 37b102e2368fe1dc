"""How much memory the keys of a table take that wait to be computed."""

from __future__ import annotations

from typing import Any

import datajoint as dj

from workflow.pipeline import exp2, img

#: A worker before it computes anything: Python, libraries, a slice of traces on its way.
WORKER_BYTES = 300 * 2**20
DOUBLE = 8  # bytes


class Sized:
    """Mixin for Computed tables whose ``make`` holds the traces of a whole epoch, or of an area of it.

    The worker asks a table for ``worker_memory`` before it decides how many processes there are to be.
    """

    @staticmethod
    def held_values(n_rois: int, n_frames: int) -> int:
        """Bound how many numbers in double precision are in memory at a time: twice the traces."""
        return 2 * n_rois * n_frames

    @property
    def worker_memory(self) -> int:
        """Bytes that one call of ``make`` may take, with the largest epoch or area in the queue."""
        found = [self.held_values(*size) for size in waiting_sizes(self)]
        return WORKER_BYTES + DOUBLE * max(found) if found else 0


def decomposition_values(n_rois: int, n_frames: int) -> int:
    """Bound the numbers that the decomposition of normalised traces needs.

    These are the traces and the larger of the two sets of vectors, and five square matrices of the smaller
    side: as many as LAPACK's ``gesdd`` takes, to which a matrix falls back whose Gram matrix cannot be
    trusted. The usual route takes four.
    """
    return 2 * n_rois * n_frames + 5 * min(n_rois, n_frames) ** 2


def waiting_sizes(table: Any) -> list[tuple[int, int]]:
    """Estimate the sizes of what waits in a table's queue, from what is known without reading a trace.

    Parameters
    ----------
    table : datajoint.Table
        A Computed table, keyed by epoch, or by epoch and one or two brain areas.

    Returns
    -------
    list of (int, int)
        ROIs and frames of each epoch with keys that wait: good ROIs, of its largest area if the table is
        about areas; the length of the epoch times the frame rate.
    """
    waiting = exp2.SessionEpoch().restrict(table.jobs.pending.proj(), semantic_check=False)
    epochs = waiting.to_dicts()
    if not epochs:
        return []
    session, epoch = exp2.Session().primary_key, exp2.SessionEpoch().primary_key
    by_area = any(name.endswith("_area") for name in table.primary_key)
    good = (img.ROIBrainArea() if by_area else img.ROI()) - img.ROIBad()
    groups = dj.U(*session, "brain_area") if by_area else dj.U(*session)
    n_rois: dict[tuple[Any, ...], int] = {}
    for row in groups.aggr(good & waiting.proj(), n_good="count(*)").to_dicts():
        n_rois[_key(row, session)] = max(n_rois.get(_key(row, session), 0), row["n_good"])
    rates = _rates(img.FOVEpoch() & waiting.proj(), epoch)
    usual = _rates(img.FOV() & waiting.proj(), session)
    sizes = []
    for row in epochs:
        rate = rates.get(_key(row, epoch)) or usual.get(_key(row, session)) or 0.0
        seconds = row["session_epoch_end_time"] - row["session_epoch_start_time"]
        sizes.append((n_rois.get(_key(row, session), 0), max(int(seconds * rate), 0)))
    return sizes


def _rates(table: Any, names: list[str]) -> dict[tuple[Any, ...], float | None]:
    return {_key(row, names): row["imaging_frame_rate"] for row in table.to_dicts()}


def _key(row: dict[str, Any], names: list[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)
