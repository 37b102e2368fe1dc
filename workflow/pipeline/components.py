"""Temporal components of a stored decomposition, for the computations that start from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datajoint as dj
import numpy as np

from workflow.analysis.arrays import Floats
from workflow.pipeline.blobs import fetch_blobs
from workflow.pipeline.traces import as_array

#: Length of the column ``skip_reason``.
LONGEST_REASON = 255


@dataclass(frozen=True, eq=False)
class Components:
    """The first temporal components of one key of a decomposition.

    Attributes
    ----------
    time_courses : (K, T) float64 array
        Rows of Vᵀ, largest component first.
    singular_values : (K,) float64 array
        One per row.
    columns : dict
        What the decomposition's row says of its sizes, see `workflow.pipeline.decomposition.SIZE_COLUMNS`. If
        it was skipped, its reason, with its table's name, is in ``skip_reason``, and there are no components.
    digest : str
        A hash of everything that was read.
    """

    time_courses: Floats
    singular_values: Floats
    columns: dict[str, Any]
    digest: str


def fetch_components(table: Any, key: Mapping[str, Any], at_most: int | None = None) -> Components:
    """Fetch temporal components in one ordered query; they are cast to double precision once.

    Parameters
    ----------
    table : type
        A table such as `workflow.pipeline.svd.PopulationSVD`.
    key : mapping
        Primary key of one of its rows; other entries are ignored.
    at_most : int, optional
        How many components; all that are stored if left out.

    Raises
    ------
    datajoint.DataJointError
        If what is stored cannot be decoded, or are not arrays of the right shape.
    """
    where = {name: key[name] for name in table().primary_key}
    names = ("n_rois", "n_frames", "frame_rate", "bin_width")
    parent = (table() & where).proj("skip_reason", *names).fetch1()
    columns = {"skip_reason": "", **{name: parent[name] for name in names}}
    if parent["skip_reason"]:
        columns["skip_reason"] = f"{table.__name__} was skipped: {parent['skip_reason']}"[:LONGEST_REASON]
        return Components(np.empty((0, 0)), np.empty(0), columns, columns["skip_reason"])
    courses = (table.Component() & where).proj("time_course")
    if at_most is not None:
        courses &= f"component < {at_most:d}"
    n_frames = parent["n_frames"]

    def describe(row: Mapping[str, Any]) -> str:
        return f"{table.__name__}: time_course of component {row['component']} of {where}"

    rows = list(fetch_blobs(courses, "time_course", ["component"], describe))
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
    s = s.astype(np.float64)
    hashed = hashlib.blake2b(f"{columns!r} {V.shape}".encode(), digest_size=16)
    hashed.update(s.data)
    hashed.update(V.data)
    return Components(V, s[: len(V)], columns, hashed.hexdigest())


def _vector(value: Any, length: int, name: str) -> np.ndarray[Any, Any]:
    values = as_array(value)
    if values.dtype.kind != "f" or values.shape != (length,):
        raise dj.DataJointError(
            f"{name}: not a vector of {length} numbers (found {values.dtype}, shape {values.shape})"
        )
    return values
