"""Which epochs, and which areas of them, a computation applies to: the building blocks of every key source.

The parameters are a Lookup table (or a restriction of one). What its rows say decides: an attribute
``activity`` asks for epochs that have traces of that kind, and an attribute ``recording`` for sessions that
were, or were not, recorded on the mesoscope.
"""

from __future__ import annotations

from typing import Any

import datajoint as dj

from workflow.pipeline import exp2, img, lab, stimanal
from workflow.pipeline.traces import trace_tables


def usable_epochs() -> Any:
    """Epochs of animals that are part of the study, without those of sensory mapping."""
    return (exp2.SessionEpoch() & stimanal.MiceIncluded) - exp2.SessionEpochSomatotopy


def with_traces(params: Any) -> Any:
    """Usable epochs that have traces, each with the parameters that apply to it.

    Parameters
    ----------
    params : datajoint.Lookup
        An instance; must have the attribute ``activity``.

    Returns
    -------
    query expression
        Primary keys of epoch × parameters.
    """
    recorded = [
        (exp2.SessionEpoch() & table).proj() * (params & {"activity": name}).proj()
        for name, (table, _) in trace_tables().items()
    ]
    return (usable_epochs().proj() * params.proj() & recorded) & _kinds_of_session(params)


def area_keys(params: Any, area: str = "brain_area") -> Any:
    """Usable epochs and the brain areas in which they have traces of at least one good ROI.

    Parameters
    ----------
    params : datajoint.Lookup
        An instance; must have the attribute ``activity``.
    area : str
        What the attribute ``brain_area`` is to be called.

    Returns
    -------
    query expression
        Primary keys of epoch × brain area × parameters.
    """
    names = [*exp2.SessionEpoch().primary_key, area]
    # Renamed in the tables themselves: what a join renames, DataJoint 2.3 quotes as MySQL does on any server.
    renamed = {} if area == "brain_area" else {area: "brain_area"}
    populated = [
        (dj.U(*names) & ((table() - img.ROIBad).proj() * img.ROIBrainArea().proj(**renamed)))
        * (params & {"activity": name}).proj()
        for name, (table, _) in trace_tables().items()
    ]
    return with_traces(params) * lab.BrainArea().proj(**renamed) & populated


def _kinds_of_session(params: Any) -> Any:
    """Sessions, each with the parameters for recordings of its kind; with all, where there is no kind."""
    if "recording" not in params.heading.names:
        return exp2.Session.proj() * params.proj()
    mesoscope, other = (params & {"recording": kind} for kind in ("mesoscope", "other"))
    return [
        exp2.Session.proj() * mesoscope.proj() & img.Mesoscope,
        exp2.Session.proj() * other.proj() - img.Mesoscope,
    ]
