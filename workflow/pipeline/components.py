"""Temporal components of a stored decomposition, for the computations that start from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import datajoint as dj
import numpy as np

from workflow.analysis.arrays import Floats
from workflow.pipeline.blobs import fetch_blobs
from workflow.pipeline.traces import as_array, server_hash

#: Length of the column ``skip_reason``.
LONGEST_REASON = 255


@dataclass(frozen=True, eq=False)
class Components:
    """The first temporal components of one key of a decomposition, fetched when they are first used.

    Attributes
    ----------
    columns : dict
        What the decomposition's row says of its sizes, see `workflow.pipeline.decomposition.SIZE_COLUMNS`. If
        it was skipped, its reason, with its table's name, is in ``skip_reason``, and there are no components.
    digest : str
        Changes when anything of this that is stored does.
    fetch : callable
        Gives `time_courses` and `singular_values`.
    """

    columns: dict[str, Any]
    digest: str
    fetch: Callable[[], tuple[Floats, Floats]]

    @cached_property
    def _fetched(self) -> tuple[Floats, Floats]:
        return self.fetch()

    @property
    def time_courses(self) -> Floats:
        """Rows of Vᵀ, (K, T), largest component first."""
        return self._fetched[0]

    @property
    def singular_values(self) -> Floats:
        """One per row, (K,)."""
        return self._fetched[1]


def fetch_components(table: Any, key: Mapping[str, Any], at_most: int | None = None) -> Components:
    """Find temporal components and what they are like; they themselves are fetched when they are used.

    So a look at whether anything has changed since costs no more than hashes, which the server makes. They
    come in one ordered query, and are cast to double precision once.

    Parameters
    ----------
    table : type
        A table such as `workflow.pipeline.svd.PopulationSVD`.
    key : mapping
        Primary key of one of its rows; other entries are ignored.
    at_most : int, optional
        How many components; all that are stored if left out.

    Returns
    -------
    Components
        They raise a DataJointError, when they are used, if what is stored cannot be decoded, or is no array
        of the right shape.
    """
    where = {name: key[name] for name in table().primary_key}
    names = ("n_rois", "n_frames", "frame_rate", "bin_width")
    parent = (table() & where).proj("skip_reason", *names).fetch1()
    columns = {"skip_reason": "", **{name: parent[name] for name in names}}
    if parent["skip_reason"]:
        columns["skip_reason"] = f"{table.__name__} was skipped: {parent['skip_reason']}"[:LONGEST_REASON]
        return Components(columns, columns["skip_reason"], lambda: (np.empty((0, 0)), np.empty(0)))
    courses = table.Component() & where
    if at_most is not None:
        courses &= f"component < {at_most:d}"
    contents = [
        query.proj(contents=server_hash(query, name)).to_arrays("contents", order_by="KEY").tolist()
        for query, name in ((table() & where, "singular_values"), (courses, "time_course"))
    ]
    fetch = partial(_fetch, table, where, courses, parent["n_frames"])
    return Components(columns, f"{columns!r} {contents!r}", fetch)


def _fetch(table: Any, where: Mapping[str, Any], courses: Any, n_frames: int) -> tuple[Floats, Floats]:
    def describe(row: Mapping[str, Any]) -> str:
        return f"{table.__name__}: time_course of component {row['component']} of {where}"

    rows = list(fetch_blobs(courses.proj("time_course"), "time_course", ["component"], describe))
    V = np.empty((len(rows), n_frames))
    for number, row in enumerate(rows):
        V[number] = _vector(row["time_course"], n_frames, describe(row))
    described = f"{table.__name__}: singular_values of {where}"
    spectrum = (table() & where).proj("singular_values")
    [row] = fetch_blobs(spectrum, "singular_values", ["KEY"], lambda _: described)
    s = as_array(row["singular_values"])
    if s.dtype.kind != "f" or s.ndim != 1 or len(s) < len(V):
        raise dj.DataJointError(
            f"{described}: not a vector of at least {len(V)} numbers (found {s.dtype}, shape {s.shape})"
        )
    return V, s[: len(V)].astype(np.float64)


def _vector(value: Any, length: int, name: str) -> np.ndarray[Any, Any]:
    values = as_array(value)
    if values.dtype.kind != "f" or values.shape != (length,):
        raise dj.DataJointError(
            f"{name}: not a vector of {length} numbers (found {values.dtype}, shape {values.shape})"
        )
    return values
