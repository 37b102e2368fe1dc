"""Read and validate the files of one plane of a suite2p output folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.sample import dff
from workflow.sample.errors import SampleError
from workflow.sample.npy import read_array, read_pickled
from workflow.sample.recording import Plane, Roi


@dataclass(frozen=True)
class PlaneData:
    """What `read_plane` found; arrays have the shape (ROIs, frames)."""

    folder: Path
    frame_rate: float
    x_size: int
    y_size: int
    rois: list[Roi]
    dff: NDArray[np.float32]
    spikes: NDArray[np.float32] | None


def read_plane(folder: Path, number: int, frame_rate: float | None) -> PlaneData:
    """Read the plane with this number; ``frame_rate`` (Hz) wins over that of ops.npy.

    Raises
    ------
    SampleError
        If a file is missing, damaged, of the wrong kind or shape, or contradicts another.
    """
    F = _matrix(folder / "F.npy")
    Fneu = _matrix(folder / "Fneu.npy", F.shape)
    spikes = _matrix(folder / "spks.npy", F.shape) if (folder / "spks.npy").exists() else None
    cell = _iscell(folder / "iscell.npy", len(F))
    stat = read_pickled(folder / "stat.npy")
    if stat.shape != (len(F),):
        raise SampleError(
            f"{folder / 'stat.npy'}: it describes {stat.size} ROIs but F.npy holds {len(F)}: {_SAME_RUN}"
        )
    options = _Options(folder / "ops.npy")
    rate = frame_rate if frame_rate is not None else options.frame_rate()
    plane = Plane(number, 1, options.image("meanImg"), options.image("meanImgE"))
    rois = [
        _roi(entry, plane, bool(cell[i]), F[i], f"{folder / 'stat.npy'}: ROI {i}")
        for i, entry in enumerate(stat)
    ]
    return PlaneData(
        folder=folder,
        frame_rate=rate,
        x_size=options.size("Lx", max(roi.x for roi in rois)),
        y_size=options.size("Ly", max(roi.y for roi in rois)),
        rois=rois,
        dff=dff.relative_fluorescence(
            F,
            Fneu,
            rate,
            coefficient=options.number("neucoeff", dff.NEUROPIL_COEFFICIENT),
            window=options.number("win_baseline", dff.BASELINE_WINDOW),
            sigma=options.number("sig_baseline", dff.BASELINE_SIGMA, largest=1e4),
        ),
        spikes=None if spikes is None else _single(spikes),
    )


_SAME_RUN = "all files must come from one run of suite2p"


def _matrix(path: Path, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    array = read_array(path)
    if array.ndim != 2:
        raise SampleError(f"{path}: its shape is {array.shape}, not ROIs × frames: run suite2p again")
    if shape is not None and array.shape != shape:
        raise SampleError(f"{path}: its shape is {array.shape} but that of F.npy is {shape}: {_SAME_RUN}")
    return array


def _single(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # infinite where it does not fit, so that computations leave it out
        return np.array(array, dtype=np.float32, order="C")


def _iscell(path: Path, count: int) -> NDArray[Any]:
    array = read_array(path)
    if array.ndim not in (1, 2) or len(array) != count:
        raise SampleError(f"{path}: its shape is {array.shape} but F.npy holds {count} ROIs: {_SAME_RUN}")
    first = np.array(array if array.ndim == 1 else array[:, 0])
    if not np.isin(first, (0, 1)).all():
        raise SampleError(
            f"{path}: its first column holds other values than 0 and 1: classify the ROIs again"
        )
    return first


def _roi(entry: Any, plane: Plane, cell: bool, trace: NDArray[Any], what: str) -> Roi:
    if not isinstance(entry, dict) or "med" not in entry:
        raise SampleError(f"{what} has no 'med' (its centre): run suite2p again")
    centre = _vector(entry["med"], f"{what}: 'med'")
    if centre.shape != (2,):
        raise SampleError(f"{what}: 'med' is not a pair of pixel coordinates: run suite2p again")
    pixels = {
        name: _vector(entry[name], f"{what}: {name!r}") for name in ("xpix", "ypix", "lam") if name in entry
    }
    if len({pixel.size for pixel in pixels.values()}) > 1:
        raise SampleError(f"{what}: 'xpix', 'ypix' and 'lam' differ in length: run suite2p again")
    radius = _vector([entry.get("radius", 0.0)], f"{what}: 'radius'")[0]
    values = np.asarray(trace, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(values.mean())
    finite = math.isfinite(mean)
    return Roi(
        plane=plane,
        roi_number=0,
        uid=None,
        x=float(centre[1]),
        y=float(centre[0]),
        radius=float(radius),
        bad=not cell,
        x_pix=pixels.get("xpix"),
        y_pix=pixels.get("ypix"),
        weight=pixels.get("lam"),
        f_mean=mean if finite else None,
        f_median=float(np.median(values)) if finite else None,
    )


def _vector(value: Any, what: str) -> NDArray[Any]:
    """Check a list of finite numbers; integers become int64 and the rest float64."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.ndim != 1 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise SampleError(f"{what} is not a list of finite numbers: run suite2p again")
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)


def checked_number(value: Any, what: str, *, positive: bool = False, largest: float = 1e6) -> float:
    """Check a number from 0, or 0.001 if it must be positive, to the largest that makes sense.

    Raises
    ------
    SampleError
        If it is none.
    """
    smallest = 0.001 if positive else 0.0
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not smallest <= value <= largest:
        raise SampleError(
            f"{what} is {str(value)[:50]!r}: it must be a number from {smallest:g} to {largest:,.0f}"
        )
    return float(value)


class _Options:
    """ops.npy: suite2p's settings and results."""

    def __init__(self, path: Path) -> None:
        held = read_pickled(path)
        options = held.item() if held.size == 1 else None
        if not isinstance(options, dict):
            raise SampleError(f"{path}: it does not hold one dictionary: run suite2p again")
        self._path, self._options = path, options

    def number(self, name: str, default: float, *, positive: bool = False, largest: float = 1e6) -> float:
        value = self._options.get(name, default)
        return checked_number(value, f"{self._path}: {name!r}", positive=positive, largest=largest)

    def frame_rate(self) -> float:
        if "fs" not in self._options:
            raise SampleError(f"{self._path}: it has no frame rate ('fs'): give the frame rate")
        return self.number("fs", math.nan, positive=True)

    def size(self, name: str, furthest: float) -> int:
        """Size of the field of view (pixels); where it is not recorded, up to the furthest ROI."""
        return int(self.number(name, math.floor(furthest) + 1, positive=True))

    def image(self, name: str) -> NDArray[np.float32] | None:
        value = self._options.get(name)
        if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "fiu":
            return None
        return value.astype(np.float32)
