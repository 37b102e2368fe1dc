"""ROIs drawn at random from a brain area, before any trace is fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import datajoint as dj
import numpy as np

from workflow.pipeline import exp2, img
from workflow.pipeline.traces import Activity, Key, frame_rate, trace_tables, vector


def good_rois(key: Mapping[str, Any], activity: str, brain_area: str) -> list[Key]:
    """List the good ROIs of an area that have traces in an epoch.

    Parameters
    ----------
    key : mapping
        Primary key of the epoch; other entries are ignored.
    activity : {'dff', 'spikes'}
        Which traces.
    brain_area : str
        The area.

    Returns
    -------
    list of dict
        Primary keys, ordered.
    """
    session = {name: key[name] for name in exp2.Session().primary_key}
    table, _ = trace_tables()[activity]
    good = (table & _epoch(key)) - (img.ROIBad() & session)
    good &= (img.ROIBrainArea() & session & {"brain_area": brain_area}).proj()
    names = img.ROI().primary_key
    return sorted(({name: row[name] for name in names} for row in good.proj().to_dicts()), key=_order)


def draw(rois: Sequence[Key], n: int, seed: int) -> list[Key]:
    """Draw at most ``n`` of the ROIs without replacement; they stay in order."""
    chosen = np.random.default_rng(seed).choice(len(rois), min(n, len(rois)), replace=False)
    return [rois[row] for row in np.sort(chosen)]


def fetch_drawn(key: Mapping[str, Any], activity: str, rois: Sequence[Key]) -> Activity:
    """Fetch the traces of some ROIs, and of no other: reading a whole area takes longer than using a few.

    Parameters
    ----------
    key : mapping
        Primary key of the epoch; other entries are ignored.
    activity : {'dff', 'spikes'}
        Which traces.
    rois : sequence of dict
        Primary keys, as `good_rois` gives them.

    Returns
    -------
    Activity

    Raises
    ------
    datajoint.DataJointError
        If a trace is no array of one dimension, the traces differ in length, or an ROI is gone.
    """
    table, attribute = trace_tables()[activity]
    epoch = _epoch(key)
    found = ((table & epoch) & _any_of(rois)).proj(attribute).to_dicts() if rois else []
    records = {_order(record): record for record in found}
    if records.keys() != {_order(roi) for roi in rois}:
        raise dj.DataJointError(f"the ROIs of {epoch} changed while they were read")
    traces = [vector(records[_order(roi)][attribute], roi, attribute) for roi in rois]
    lengths = {trace.size for trace in traces}
    if len(lengths) > 1:
        raise dj.DataJointError(f"{attribute} of {epoch} has {min(lengths)} to {max(lengths)} frames")
    return Activity(np.stack(traces) if traces else np.empty((0, 0)), list(rois), frame_rate(epoch))


def _epoch(key: Mapping[str, Any]) -> Key:
    return {name: key[name] for name in exp2.SessionEpoch().primary_key}


def _order(roi: Mapping[str, Any]) -> tuple[int, ...]:
    return roi["fov_num"], roi["plane_num"], roi["channel_num"], roi["roi_number"]


def _any_of(rois: Sequence[Key]) -> list[dj.AndList]:
    """Restrict to ordered ROIs, plane by plane."""
    conditions = []
    for (fov, plane, channel), here in groupby(rois, lambda roi: _order(roi)[:-1]):
        place = {"fov_num": fov, "plane_num": plane, "channel_num": channel}
        numbers = ", ".join(f"{roi['roi_number']:d}" for roi in here)
        conditions.append(dj.AndList([place, f"roi_number IN ({numbers})"]))
    return conditions
