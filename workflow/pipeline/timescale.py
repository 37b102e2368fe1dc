"""Timescales of the temporal components of the decompositions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from workflow.analysis.timescale import E_1, E_2, Timescales, timescales
from workflow.pipeline import area_svd, svd
from workflow.pipeline.components import Components, fetch_components
from workflow.pipeline.computing import Key, ThreeSteps, insert_chunked
from workflow.pipeline.decomposition import SIZE_COLUMNS
from workflow.pipeline.parameters import CheckedLookup, Row, at_least, at_most, problems

schema = dj.Schema()

MOST_LAGS = 2000  # the autocorrelation needs a matrix of n_lags × 2 n_lags: 64 MB

_MASTER = f"""
    ---
    {SIZE_COLUMNS}
    n_components : int16  # temporal components looked at
    code_commit="" : varchar(40)  # commit that computed this row
"""
_PART = """
    ---
    tau_e1=null : float64  # s, where the autocorrelation first falls below 1/e; NULL = censored, or unusable
    censored_e1 : bool  # it never does within the lags
    tau_e2=null : float64  # s, the same for the square of 1/e
    censored_e2 : bool
    tau_fit=null : float64  # s, of A (exp(-lag/tau) + B) fitted to all lags but 0; NULL = no such fit
    fit_amplitude=null : float64  # A
    fit_offset=null : float64  # B
    fit_explained=null : float64  # fraction of the variance over those lags that the fit explains
    autocorrelation=null : <blob>  # biased, at lags 0, 1, … time bins
    unusable="" : varchar(64)  # why this component has no autocorrelation
"""


@schema
class TimescaleParams(CheckedLookup):
    """How far the autocorrelation is followed."""

    definition = """
    # lags of the autocorrelation
    timescale_params : varchar(32)
    ---
    n_lags : int32  # time bins, lag 0 included
    """
    contents: ClassVar = [("50_lags", 50)]

    @staticmethod
    def check(row: Row) -> str:
        """Require enough lags for a fit of three numbers, and no more than fit in memory."""
        return problems(at_least(row, "n_lags", 5), at_most(row, "n_lags", MOST_LAGS))


@dataclass(frozen=True)
class _Inputs:
    components: Components
    n_lags: int

    @property
    def digest(self) -> str:
        """A hash of everything that was read."""
        return f"{self.components.digest} {self.n_lags}"


@dataclass(frozen=True)
class _Result:
    columns: dict[str, Any]
    bin_width: float
    found: Timescales | None


class _Timescales(ThreeSteps):
    """What the timescales of a whole field of view and of an area have in common."""

    decomposition: ClassVar[Any]

    def read(self, key: Key) -> _Inputs:
        """Fetch the time courses and the parameters."""
        n_lags = (TimescaleParams() & key).fetch1("n_lags")
        return _Inputs(fetch_components(self.decomposition, key), n_lags)

    def compute(self, inputs: _Inputs) -> _Result:
        """Measure the timescale of every component."""
        columns, V = inputs.components.columns, inputs.components.time_courses
        columns = {**columns, "n_components": len(V)}
        if not columns["skip_reason"] and columns["n_frames"] <= inputs.n_lags:
            needed = inputs.n_lags + 1
            columns["skip_reason"] = f"too short: {columns['n_frames']} time bin(s), needs {needed}"
        found = None if columns["skip_reason"] else timescales(V, inputs.n_lags)
        return _Result(columns, columns["bin_width"], found)

    def store(self: Any, key: Key, result: _Result) -> None:
        """Insert one row per component."""
        self.insert1({**key, **result.columns, "code_commit": self.code_commit})
        if result.found is not None:
            rows = _part_rows(result.found, result.bin_width)
            insert_chunked(self.Component, ({**key, "component": i, **row} for i, row in enumerate(rows)))


def _part_rows(found: Timescales, bin_width: float) -> list[dict[str, Any]]:
    unusable = {row: str(reason) for row, reason in found.unusable}
    rows = []
    for i, autocorrelation in enumerate(found.autocorrelation):
        e1, e2 = found.crossing[E_1][i], found.crossing[E_2][i]
        rows.append(
            {
                "tau_e1": _number(e1 * bin_width),
                "censored_e1": bool(np.isnan(e1)) and i not in unusable,
                "tau_e2": _number(e2 * bin_width),
                "censored_e2": bool(np.isnan(e2)) and i not in unusable,
                "tau_fit": _number(found.decay.tau[i] * bin_width),
                "fit_amplitude": _number(found.decay.amplitude[i]),
                "fit_offset": _number(found.decay.offset[i]),
                "fit_explained": _number(found.decay.explained[i]),
                "autocorrelation": None if i in unusable else autocorrelation,
                "unusable": unusable.get(i, ""),
            }
        )
    return rows


def _number(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None


@schema
class ComponentTimescale(_Timescales, dj.Computed):
    """Timescales of the components of a whole field of view."""

    definition = f"""
    # timescales of the temporal components of the whole field of view in one epoch
    -> svd.PopulationSVD
    -> TimescaleParams
    {_MASTER}
    """
    decomposition = svd.PopulationSVD

    class Component(dj.Part):
        """The timescales of one component."""

        definition = f"""
        # timescales of a component
        -> master
        -> svd.PopulationSVD.Component
        {_PART}
        """


@schema
class AreaComponentTimescale(_Timescales, dj.Computed):
    """Timescales of the components of a brain area."""

    definition = f"""
    # timescales of the temporal components of one brain area in one epoch
    -> area_svd.AreaSVD
    -> TimescaleParams
    {_MASTER}
    """
    decomposition = area_svd.AreaSVD

    class Component(dj.Part):
        """The timescales of one component."""

        definition = f"""
        # timescales of a component
        -> master
        -> area_svd.AreaSVD.Component
        {_PART}
        """
