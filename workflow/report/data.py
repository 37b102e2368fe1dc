"""What the figures show, fetched from the tables: never more than is drawn."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.pipeline import exp2, img, svd

Key = dict[str, Any]
Floats = NDArray[np.float64]

#: ROIs fetched at a time: an ROI's row of U can be kilobytes long, and only its first numbers are drawn.
CHUNK = 1000


#: Rows of a table without figures of its own, at most.
MOST_ROWS = 5000


@dataclass(frozen=True)
class Scalars:
    """Rows of a table without their blobs: those of a round first, then the latest keys.

    Attributes
    ----------
    primary : list of str
        Names of the primary key.
    comments : dict of str to str
        Name and comment of every other column.
    rows : list of dict
        The values, of at most `MOST_ROWS` rows.
    n_new : int
        How many of these are of the round.
    total, n_skipped : int
        How many rows the table has, and how many of them say why they hold no result.
    """

    primary: list[str]
    comments: dict[str, str]
    rows: list[Key]
    n_new: int
    total: int
    n_skipped: int


@dataclass(frozen=True)
class Decomposition:
    """One row of PopulationSVD, without its arrays."""

    key: Key
    session_date: datetime.date
    n_rois: int
    n_frames: int
    bin_width: float  # s
    k90: int


@dataclass(frozen=True)
class RoiMap:
    """Where the ROIs of an epoch lie and what they weigh; arrays have one entry per ROI.

    Attributes
    ----------
    x, y : ndarray, shape (N,)
        Centroids, in ``unit``.
    plane : list of str
        The imaging plane of each ROI.
    area : list of str
        Its brain area; empty where none is recorded.
    weights : ndarray, shape (N, k)
        The first columns of U.
    unit : str
        ``pixels`` or ``µm``.
    """

    x: Floats
    y: Floats
    plane: list[str]
    area: list[str]
    weights: Floats
    unit: str


def connected(tables: Mapping[str, Any]) -> bool:
    """Whether there are tables, and the database that they are bound to answers."""
    return any(table.connection.is_connected for table in tables.values())


def identity(key: Mapping[str, Any]) -> tuple[str, ...]:
    """Give a value that is equal for a key of the database and the same key read from JSON."""
    return tuple(f"{name}={key[name]}" for name in sorted(key))


def scalars(table: Any, done: Sequence[Mapping[str, Any]]) -> Scalars:
    """Fetch everything of a table but its blobs.

    Parameters
    ----------
    table : datajoint.Table
    done : sequence of mapping
        Keys that a round computed; a key may have several rows.
    """
    names = [name for name in table.heading.non_blobs if name not in table.primary_key]
    how: dict[str, Any] = {"order_by": [f"{name} DESC" for name in table.primary_key], "limit": MOST_ROWS}
    columns = table.proj(*names)
    new = list((columns & [dict(key) for key in done]).to_dicts(**how)) if done else []
    known = {identity({name: row[name] for name in table.primary_key}) for row in new}
    others = [
        row
        for row in columns.to_dicts(**how)
        if identity({name: row[name] for name in table.primary_key}) not in known
    ]
    return Scalars(
        primary=list(table.primary_key),
        comments={name: str(table.heading[name].comment or "") for name in names},
        rows=[*new, *others][:MOST_ROWS],
        n_new=len(new),
        total=len(table),
        n_skipped=len(table & "skip_reason <> ''") if "skip_reason" in names else 0,
    )


def decompositions() -> list[Decomposition]:
    """List every decomposition that was computed, the latest recording first."""
    names = ("n_rois", "n_frames", "bin_width", "k90")
    computed = (svd.PopulationSVD() & {"skip_reason": ""}).proj(*names)
    dated = computed * exp2.Session().proj("session_date")
    primary = svd.PopulationSVD().primary_key
    found = [
        Decomposition(
            {name: row[name] for name in primary}, row["session_date"], *(row[name] for name in names)
        )
        for row in dated.to_dicts(order_by=primary)
    ]
    return sorted(found, key=lambda one: (one.session_date, one.key["session_epoch_number"]), reverse=True)


def singular_values(key: Key) -> Floats:
    """Fetch all singular values of one decomposition, descending."""
    return np.asarray((svd.PopulationSVD() & key).fetch1("singular_values"), dtype=np.float64)


def time_courses(key: Key, count: int) -> Floats:
    """Fetch the first temporal components of one decomposition, shape (at most count, T)."""
    first = svd.PopulationSVD.Component() & key & f"component < {int(count)}"
    return np.array(list(first.to_arrays("time_course", order_by="component")), dtype=np.float64)


def roi_map(key: Key, count: int) -> RoiMap:
    """Fetch the centroids of one decomposition's ROIs and their first weights.

    ROIs without a centroid are left out.

    Parameters
    ----------
    key : dict
        Primary key of PopulationSVD.
    count : int
        At most so many components.

    Returns
    -------
    RoiMap
    """
    centroids = img.ROI().proj("roi_centroid_x", "roi_centroid_y")
    located = (svd.PopulationSVD.ROI() & key) * centroids
    rows: list[tuple[Any, ...]] = []
    areas = _areas(key)
    primary = img.ROI().primary_key
    for offset in range(0, len(svd.PopulationSVD.ROI() & key), CHUNK):
        for row in located.to_dicts(order_by=primary, limit=CHUNK, offset=offset):
            x, y = row["roi_centroid_x"], row["roi_centroid_y"]
            if x is not None and y is not None and np.isfinite((x, y)).all():
                roi = tuple(row[name] for name in primary)
                rows.append((x, y, _plane(row), areas.get(roi, ""), np.array(row["weights"][:count], float)))
    x, y, plane, area, weights = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    scale = _micrometres_per_pixel(key)
    return RoiMap(
        x=np.array(x, float) * (scale or 1.0),
        y=np.array(y, float) * (scale or 1.0),
        plane=list(plane),
        area=list(area),
        weights=np.array(weights, float).reshape(len(rows), -1),
        unit="µm" if scale else "pixels",
    )


def _areas(key: Key) -> dict[tuple[Any, ...], str]:
    """Look up the brain area of each ROI of a session; of several, the first by name."""
    primary = img.ROI().primary_key
    session = {name: key[name] for name in exp2.Session().primary_key}
    rows = (img.ROIBrainArea() & session).to_dicts(order_by=[*primary, "brain_area"])
    return {tuple(row[name] for name in primary): str(row["brain_area"]) for row in reversed(rows)}


def _plane(row: Mapping[str, Any]) -> str:
    name = f"plane {row['plane_num']}"
    name = name if row["channel_num"] == 1 else f"{name}, channel {row['channel_num']}"
    return name if row["fov_num"] == 1 else f"field of view {row['fov_num']}, {name}"


def _micrometres_per_pixel(key: Key) -> float | None:
    """Scale of the image, where the epoch's four corners (4 × 2, µm) and the size in pixels are known."""
    epoch = {name: key[name] for name in exp2.SessionEpoch().primary_key}
    session = {name: key[name] for name in exp2.Session().primary_key}
    corners = [_corners(value) for value in (img.FOVEpoch() & epoch).to_arrays("imaging_fov_um")]
    widths: Sequence[Any] = (img.FOV() & session).to_arrays("fov_x_size")
    if len(corners) != 1 or len(widths) != 1 or corners[0] is None or not widths[0]:
        return None
    extent = float(np.ptp(corners[0][:, 0]))
    return extent / float(widths[0]) if np.isfinite(extent) and extent > 0 else None


def _corners(value: Any) -> Floats | None:
    array = np.asarray(value)
    return array.astype(float) if array.shape == (4, 2) and array.dtype.kind in "fiu" else None
