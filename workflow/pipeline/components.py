"""Temporal components of a stored decomposition, for the computations that start from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datajoint as dj
import numpy as np

from workflow.analysis.arrays import Floats
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
        If what is stored are not arrays of the right shape.
    """
    where = {name: key[name] for name in table().primary_key}
    parent = (table() & where).fetch1()
    names = ("n_rois", "n_frames", "frame_rate", "bin_width")
    columns = {"skip_reason": "", **{name: parent[name] for name in names}}
    if parent["skip_reason"]:
        columns["skip_reason"] = f"{table.__name__} was skipped: {parent['skip_reason']}"[:LONGEST_REASON]
        return Components(np.empty((0, 0)), np.empty(0), columns, columns["skip_reason"])
    courses = (table.Component() & where).proj("time_course")
    if at_most is not None:
        courses &= f"component < {at_most:d}"
    rows = [row["time_course"] for row in courses.to_dicts(order_by="component")]
    V = np.empty((len(rows), parent["n_frames"]))
    for number, row in enumerate(rows):
        V[number] = _vector(row, parent["n_frames"], f"time_course of component {number} of {where}")
    s = as_array(parent["singular_values"])
    if s.dtype.kind != "f" or s.ndim != 1 or len(s) < len(V):
        raise dj.DataJointError(
            f"singular_values of {where}: not a vector of at least {len(V)} numbers "
            f"(found {s.dtype}, shape {s.shape})"
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
