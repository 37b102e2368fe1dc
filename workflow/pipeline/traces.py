"""Fetch the activity of one epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datajoint as dj
import numpy as np
from numpy.typing import NDArray

from workflow.pipeline import exp2, img

Key = dict[str, Any]

_ORDER = ["fov_num", "plane_num", "channel_num", "roi_number"]


@dataclass(frozen=True)
class Activity:
    """Traces of one epoch, trace i belonging to key i.

    Attributes
    ----------
    F : ndarray, shape (N, T)
        One row per ROI, one column per frame, in the precision of the database.
    keys : list of dict
        Primary keys of the ROIs, ordered by field of view, plane, channel and ROI number.
    frame_rate : float
        Frames per second (Hz).
    """

    F: NDArray[np.floating[Any]]
    keys: list[Key]
    frame_rate: float

    @property
    def digest(self) -> str:
        """A hash that changes when any trace, key or the frame rate does."""
        hashed = hashlib.blake2b(digest_size=16)
        hashed.update(repr((self.F.shape, str(self.F.dtype), self.frame_rate, self.keys)).encode())
        hashed.update(np.ascontiguousarray(self.F).data)
        return hashed.hexdigest()


def trace_tables() -> dict[str, tuple[Any, str]]:
    """Trace tables that this database has: activity -> (table, attribute)."""
    known = {"dff": (img.ROIdeltaF, "dff_trace"), "spikes": (img.ROISpikes, "spikes_trace")}
    return {name: entry for name, entry in known.items() if entry[0] is not None}


def fetch_activity(key: Mapping[str, Any], activity: str) -> Activity:
    """Fetch the traces of an epoch's good ROIs in one ordered query.

    Parameters
    ----------
    key : mapping
        Primary key of the epoch; other entries are ignored.
    activity : {'dff', 'spikes'}
        Which traces.

    Returns
    -------
    Activity

    Raises
    ------
    datajoint.DataJointError
        If a trace is not an array of one dimension, or the traces differ in length.
    """
    epoch = {name: key[name] for name in exp2.SessionEpoch().primary_key}
    table, attribute = trace_tables()[activity]
    good = (table & epoch) - img.ROIBad
    names = img.ROI().primary_key
    keys: list[Key] = []
    rows: list[NDArray[np.floating[Any]]] = []
    for record in good.proj(attribute).to_dicts(order_by=_ORDER):
        keys.append({name: record[name] for name in names})
        rows.append(_vector(record[attribute], keys[-1], attribute))
    return Activity(_stack(rows, attribute), keys, _frame_rate(epoch))


def _stack(rows: Sequence[NDArray[np.floating[Any]]], attribute: str) -> NDArray[np.floating[Any]]:
    if not rows:
        return np.empty((0, 0))
    lengths = {row.size for row in rows}
    if len(lengths) > 1:
        raise dj.DataJointError(
            f"{attribute}: the traces of this epoch have {min(lengths)} to {max(lengths)} frames"
        )
    return np.stack(rows)


def _vector(trace: Any, key: Key, attribute: str) -> NDArray[np.floating[Any]]:
    values = np.asarray(trace)
    if values.dtype.kind not in "fiu" or values.size != max(values.shape, default=0):
        raise dj.DataJointError(
            f"{attribute} of ROI {key} is not a vector of numbers "
            f"(found {values.dtype}, shape {values.shape})"
        )
    return values.ravel().astype(np.result_type(values.dtype, np.float32), copy=False)


def _frame_rate(epoch: Key) -> float:
    rates = (img.FOVEpoch() & epoch).to_arrays("imaging_frame_rate")
    if not len(rates):
        rates = (img.FOV() & epoch).to_arrays("imaging_frame_rate")
    rates = np.unique(np.asarray([rate for rate in rates if rate is not None], dtype=float))
    if rates.size != 1 or not rates[0] > 0:
        raise dj.DataJointError(
            f"the imaging frame rate of {epoch} is not one positive number: {rates.tolist()}"
        )
    return float(rates[0])
