"""Fetch the activity of one epoch, or of some of its ROIs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import groupby
from typing import Any

import datajoint as dj
import numpy as np
from numpy.typing import NDArray

from workflow.pipeline import exp2, img
from workflow.pipeline.blobs import fetch_blobs

Key = dict[str, Any]

_ORDER = ["fov_num", "plane_num", "channel_num", "roi_number"]
#: ROIs fetched at a time: 40 MB at 20,000 frames in double precision.
SLICE_ROIS = 256


Traces = NDArray[np.floating[Any]]


class MissingError(dj.DataJointError):
    """What an epoch lacks, so that nothing can be computed of it; the message is a reason to skip it."""


#: Hash of a stored blob, worked out by the server: only the hash travels.
_HASH = {"mysql": "SHA2({}, 256)", "postgresql": "encode(sha256({}), 'hex')"}


class Activity:
    """Traces of one epoch, trace i belonging to key i.

    Parameters
    ----------
    F : (N, T) ndarray, or callable
        The traces, or a function that fetches those of the keys that it is given, when they are first used.
    keys : list of dict
        Primary keys of the ROIs, ordered by field of view, plane, channel and ROI number.
    frame_rate : float
        Frames per second (Hz).
    contents : str
        Stands for the stored traces: it changes when any of them does.
    """

    def __init__(
        self,
        F: Traces | Callable[[list[Key]], Traces],
        keys: list[Key],
        frame_rate: float,
        contents: str,
    ) -> None:
        self._given = F
        self.keys = keys
        self.frame_rate = frame_rate
        self._contents = contents

    @cached_property
    def F(self) -> Traces:  # noqa: N802
        """One row per ROI, one column per frame, in the precision of the database."""
        return self._given(self.keys) if callable(self._given) else self._given

    def forget(self) -> None:
        """Free the traces; whoever uses them again has them fetched again."""
        _ = self.n_frames
        vars(self).pop("F", None)

    @cached_property
    def n_frames(self) -> int:
        """How many frames there are; until all traces are used, the first one tells."""
        known = self._given(self.keys[:1]) if callable(self._given) and "F" not in vars(self) else self.F
        return int(known.shape[1])

    @property
    def digest(self) -> str:
        """A hash that changes when any trace, key or the frame rate does; it fetches no trace."""
        read = repr((self.frame_rate, self.keys, self._contents))
        return hashlib.blake2b(read.encode(), digest_size=16).hexdigest()

    def take(self, rows: Sequence[int]) -> Activity:
        """Some of the ROIs, by ascending row numbers; only their traces are fetched, if none has been yet."""
        fetched = not callable(self._given) or "F" in vars(self)
        F = self.F[list(rows)] if fetched else self._given
        return Activity(F, [self.keys[row] for row in rows], self.frame_rate, self._contents)

    def between(self, start: int, stop: int) -> Activity:
        """The same ROIs from one frame up to another; the traces are a view."""
        return Activity(self.F[:, start:stop], self.keys, self.frame_rate, f"{self._contents} {start}:{stop}")


def server_hash(query: Any, attribute: str) -> str:
    """Write in SQL the hash of a stored blob."""
    return _HASH[query.connection.adapter.backend].format(attribute)


def trace_tables() -> dict[str, tuple[Any, str]]:
    """Trace tables that this database has: activity -> (table, attribute)."""
    known = {"dff": (img.ROIdeltaF, "dff_trace"), "spikes": (img.ROISpikes, "spikes_trace")}
    return {name: entry for name, entry in known.items() if entry[0] is not None}


def unasked(params: Any) -> str:
    """Say that there are traces, but none of a kind that a row of parameters asks for; else nothing.

    Parameters
    ----------
    params : datajoint.Table
        Must have the attribute ``activity``, and may have ``recording``.
    """
    found = {name: table() for name, (table, _) in trace_tables().items() if table().keys(limit=1)}
    asking = params & [{"activity": name} for name in found]
    if not found:
        return ""
    if not asking:
        return _unasked("traces", "activity", found)
    if "recording" not in params.heading.names:
        return ""
    traced = exp2.Session() & [table.proj() for table in found.values()]
    sessions = {"mesoscope": traced & img.Mesoscope, "other": traced - img.Mesoscope}
    recorded = [kind for kind, some in sessions.items() if some]
    if set(recorded) & set(asking.to_arrays("recording").tolist()):
        return ""
    return _unasked("recordings", "recording", recorded)


def _unasked(what: str, column: str, found: Iterable[str]) -> str:
    choices = " or ".join(f"'{name}'" for name in sorted(found))
    return f"no row of parameters asks for the {what} that there are: insert one with {column} {choices}"


def fetch_activity(key: Mapping[str, Any], activity: str, brain_area: str | None = None) -> Activity:
    """Find the good ROIs of an epoch and what their traces are like; fetch the traces when they are used.

    So a look at whether anything has changed since costs no more than hashes of the traces, which the server
    makes. The traces come in one ordered pass, in slices of the list of ROIs, each straight into its rows of
    the result: beside that, only one slice is ever in memory.

    Parameters
    ----------
    key : mapping
        Primary key of the epoch; other entries are ignored.
    activity : {'dff', 'spikes'}
        Which traces.
    brain_area : str, optional
        Only ROIs in this area.

    Returns
    -------
    Activity
        Its traces raise a DataJointError, when they are used, if one cannot be decoded or is no array of one
        dimension, if they differ in length, or if the ROIs have changed meanwhile.

    Raises
    ------
    MissingError
        If there is no frame rate.
    datajoint.DataJointError
        If it is not one positive number.
    """
    table, attribute = trace_tables()[activity]
    name = f"{table.__name__}.{attribute}"
    good = _good(key, activity, brain_area)
    hashed = good.proj(contents=server_hash(good, attribute))
    found = hashed.to_dicts(order_by=_ORDER)
    contents = " ".join([attribute, *(row["contents"] for row in found)])
    return Activity(partial(_fetch, good, attribute, name), _rois(found), frame_rate(_epoch(key)), contents)


def _good(key: Mapping[str, Any], activity: str, brain_area: str | None) -> Any:
    """Restrict the table of traces to the good ROIs of an epoch, or of one area in it."""
    session = {name: key[name] for name in exp2.Session().primary_key}
    table, _ = trace_tables()[activity]
    good = (table & _epoch(key)) - (img.ROIBad() & session)
    if brain_area is not None:
        good &= (img.ROIBrainArea() & session & {"brain_area": brain_area}).proj()
    return good


def _epoch(key: Mapping[str, Any]) -> Key:
    return {name: key[name] for name in exp2.SessionEpoch().primary_key}


def _rois(rows: Sequence[Mapping[str, Any]]) -> list[Key]:
    names = img.ROI().primary_key
    return [{name: row[name] for name in names} for row in rows]


def _fetch(good: Any, attribute: str, name: str, keys: list[Key]) -> Traces:
    F: Traces = np.empty((0, 0))
    for start in range(0, len(keys), SLICE_ROIS):
        expected = keys[start : start + SLICE_ROIS]
        query = good.proj(attribute) & _places(expected)
        records = list(fetch_blobs(query, attribute, _ORDER, partial(_describe, name)))
        if _rois(records) != expected:
            raise dj.DataJointError(f"{name}: the ROIs of this epoch changed while they were read")
        for row, record in enumerate(records, start):
            trace = _vector(record[attribute], keys[row], name)
            if row == 0:
                F = np.empty((len(keys), trace.size), trace.dtype)
            F = _room_for(trace, F, keys[row], name)
            F[row] = trace
    return F


def _describe(name: str, row: Mapping[str, Any]) -> str:
    [roi] = _rois([row])
    return f"{name} of ROI {roi}"


def _places(keys: Sequence[Key]) -> list[dj.AndList]:
    """Restrict to some ordered ROIs, plane by plane."""
    planes = groupby(keys, lambda key: {name: key[name] for name in _ORDER[:-1]})
    return [
        dj.AndList([place, f"roi_number IN ({', '.join(str(int(key['roi_number'])) for key in here)})"])
        for place, here in planes
    ]


def _room_for(trace: Traces, F: Traces, key: Key, name: str) -> Traces:
    """Return the traces so far, in a precision that holds the next one too."""
    if trace.size != F.shape[1]:
        raise dj.DataJointError(
            f"{name} of ROI {key} has {trace.size} frames, the ROIs before it have {F.shape[1]}"
        )
    return F.astype(np.result_type(F.dtype, trace.dtype), copy=False)


def as_array(value: Any) -> NDArray[Any]:
    """See whatever a blob held as an array: of objects, where NumPy would refuse it without saying which."""
    try:
        return np.asarray(value)
    except ValueError:  # lists of different lengths
        return np.asarray(value, dtype=object)


def _vector(trace: Any, key: Key, name: str) -> Traces:
    """Check one trace as it is stored; raises a DataJointError that names the ROI."""
    values = as_array(trace)
    if values.dtype.kind not in "fiu" or values.size != max(values.shape, default=0):
        raise dj.DataJointError(
            f"{name} of ROI {key} is not a vector of numbers (found {values.dtype}, shape {values.shape})"
        )
    return values.ravel().astype(np.result_type(values.dtype, np.float32), copy=False)


def frame_rate(epoch: Key) -> float:
    """Find the one frame rate (Hz) of an epoch; raises a MissingError where there is none."""
    rates = (img.FOVEpoch() & epoch).to_arrays("imaging_frame_rate")
    if not len(rates):
        rates = (img.FOV() & epoch).to_arrays("imaging_frame_rate")
    rates = np.unique(np.asarray([rate for rate in rates if rate is not None], dtype=float))
    if not rates.size:
        raise MissingError("no frame rate: neither FOVEpoch nor FOV has one")
    if rates.size != 1 or not rates[0] > 0:
        raise dj.DataJointError(
            f"the imaging frame rate of {epoch} is not one positive number: {rates.tolist()}"
        )
    return float(rates[0])
