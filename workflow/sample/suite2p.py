"""Read suite2p output folders.

A folder holds F.npy and Fneu.npy (ROIs × frames), iscell.npy, stat.npy, ops.npy and, optionally,
spks.npy. See https://suite2p.readthedocs.io/en/latest/outputs/.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.sample import dff
from workflow.sample.errors import SampleError
from workflow.sample.npy import read_array, read_pickled
from workflow.sample.recording import Epoch, Plane, Roi, Session, Trace

_HASHED = ("F.npy", "Fneu.npy", "iscell.npy", "stat.npy", "ops.npy", "spks.npy")


@dataclass(frozen=True)
class Suite2pRecording:
    """A recording that suite2p has segmented.

    Attributes
    ----------
    folder : Path
        Where it was read from.
    fingerprint : str
        The same for the same files, wherever they are.
    date : date
        When F.npy was last written; suite2p does not keep the day of the recording.
    frame_rate : float
        Frames per second and plane (Hz).
    x_size, y_size : int
        Size of the field of view (pixels).
    rois : tuple of Roi
        Numbered from 1 in suite2p's order, plane after plane.
    dff : ndarray of float32, shape (N, T)
        dF/F; a row of NaN where it has no meaning (`workflow.sample.dff.relative_fluorescence`).
    spikes : ndarray of float32, shape (N, T), optional
        Deconvolved activity.
    notes : tuple of str
        What a user should know.
    """

    folder: Path
    fingerprint: str
    date: datetime.date
    frame_rate: float
    x_size: int
    y_size: int
    rois: tuple[Roi, ...] = field(repr=False)
    dff: NDArray[np.float32] = field(repr=False)
    spikes: NDArray[np.float32] | None = field(repr=False)
    notes: tuple[str, ...]

    def as_session(
        self,
        *,
        subject_id: int,
        session: int,
        fov_num: int,
        epoch_type: str,
        number: int,
        start_time: float,
        brain_area: str | None,
        frame_rate: float | None = None,
    ) -> Session:
        """Describe the recording as one epoch of a session; ``frame_rate`` overrides its own."""
        rate = frame_rate or self.frame_rate
        n_frames = self.dff.shape[1]
        epoch = Epoch(
            epoch_type=epoch_type,
            number=number,
            start_time=start_time,
            end_time=start_time + n_frames / rate,
            frame_rate=rate,
            n_frames=n_frames,
            dff=_rows(self.dff),
            spikes=None if self.spikes is None else _rows(self.spikes),
            photostim=epoch_type == "spont_photo",
        )
        return Session(
            subject_id=subject_id,
            session=session,
            date=self.date,
            mesoscope=False,
            label=f"{self.fingerprint} {self.folder.resolve().name}"[:200],
            fov_num=fov_num,
            x_size=self.x_size,
            y_size=self.y_size,
            nominal_frame_rate=rate,
            rois=tuple(replace(roi, brain_area=brain_area) for roi in self.rois),
            epochs=(epoch,),
        )


def _rows(traces: NDArray[np.float32]) -> Callable[[], Iterator[Trace]]:
    return lambda: iter(traces)


def read_suite2p(folder: Path | str, frame_rate: float | None = None) -> Suite2pRecording:
    """Read and validate a suite2p output folder, and compute dF/F.

    Parameters
    ----------
    folder : Path or str
        The folder that holds F.npy, or the one above several plane folders (plane0, plane1, …).
    frame_rate : float, optional
        Frames per second and plane (Hz); it wins over ``fs`` of ops.npy.

    Returns
    -------
    Suite2pRecording

    Raises
    ------
    SampleError
        If anything is missing, truncated, of the wrong kind or shape, or contradictory.
    """
    folder = Path(folder)
    if frame_rate is not None:
        _number(frame_rate, "the frame rate", positive=True)
    planes = [_read_plane(path, number, frame_rate) for path, number in _plane_folders(folder)]
    rates = sorted({plane.frame_rate for plane in planes})
    if len(rates) > 1:
        raise SampleError(f"{folder}: its planes differ in frame rate ({rates} Hz): give the frame rate")
    if len({plane.spikes is None for plane in planes}) > 1:
        raise SampleError(f"{folder}: only some of its planes have spks.npy: run suite2p again, or remove it")
    shortest, longest = (pick(plane.dff.shape[1] for plane in planes) for pick in (min, max))
    if (
        longest - shortest > 1
    ):  # an interleaved scan that was stopped leaves one frame more in the first planes
        raise SampleError(
            f"{folder}: its planes differ in length ({shortest} to {longest} frames): run suite2p again"
        )
    activity = np.concatenate([plane.dff[:, :shortest] for plane in planes])
    spikes = [plane.spikes[:, :shortest] for plane in planes if plane.spikes is not None]
    rois = [roi for plane in planes for roi in plane.rois]
    undefined = np.isnan(activity[:, 0])
    cells = ~np.array([roi.bad for roi in rois])
    if not cells.any():
        raise SampleError(f"{folder / 'iscell.npy'}: no ROI is a cell: classify the ROIs in suite2p first")
    if undefined[cells].all():
        raise SampleError(
            f"{folder / 'F.npy'}: no cell has a finite fluorescence with a positive baseline: run suite2p again, "
            "with a smaller neucoeff"
        )
    count = int(undefined[cells].sum())
    notes = (
        [f"{count} of {cells.sum()} cells have no positive, finite baseline and stay without dF/F"]
        if count
        else []
    )
    return Suite2pRecording(
        folder=folder,
        fingerprint=f"suite2p {_digest([path for path, _ in _plane_folders(folder)])}",
        date=datetime.date.fromtimestamp((planes[0].folder / "F.npy").stat().st_mtime),
        frame_rate=rates[0],
        x_size=max(plane.x_size for plane in planes),
        y_size=max(plane.y_size for plane in planes),
        rois=tuple(replace(roi, roi_number=number) for number, roi in enumerate(rois, start=1)),
        dff=activity,
        spikes=np.concatenate(spikes) if spikes else None,
        notes=tuple(notes),
    )


def _plane_folders(folder: Path) -> list[tuple[Path, int]]:
    """Find the folders of the planes and number them from 1."""
    if not folder.is_dir():
        raise SampleError(
            f"{folder}: there is no such folder: give a suite2p output folder, which holds F.npy"
        )
    numbered = [(path, re.fullmatch(r"plane(\d+)", path.name)) for path in folder.iterdir() if path.is_dir()]
    planes = sorted((int(match[1]), path) for path, match in numbered if match)
    if planes and not (folder / "F.npy").exists():
        return [(path, number + 1) for number, path in planes]
    return [(folder, 1)]


@dataclass(frozen=True)
class _PlaneData:
    folder: Path
    frame_rate: float
    x_size: int
    y_size: int
    rois: list[Roi]
    dff: NDArray[np.float32]
    spikes: NDArray[np.float32] | None


def _read_plane(folder: Path, number: int, frame_rate: float | None) -> _PlaneData:
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
    return _PlaneData(
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
            sigma=options.number("sig_baseline", dff.BASELINE_SIGMA),
        ),
        spikes=None if spikes is None else np.array(spikes, dtype=np.float32, order="C"),
    )


_SAME_RUN = "all files must come from one run of suite2p"


def _matrix(path: Path, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    array = read_array(path)
    if array.ndim != 2:
        raise SampleError(f"{path}: its shape is {array.shape}, not ROIs × frames: run suite2p again")
    if shape is not None and array.shape != shape:
        raise SampleError(f"{path}: its shape is {array.shape} but that of F.npy is {shape}: {_SAME_RUN}")
    return array


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
    finite = bool(np.isfinite(values).all())
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
        f_mean=float(values.mean()) if finite else None,
        f_median=float(np.median(values)) if finite else None,
    )


def _vector(value: Any, what: str) -> NDArray[Any]:
    array = np.asarray(value)
    if array.ndim != 1 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise SampleError(f"{what} is not a list of finite numbers: run suite2p again")
    return array


def _number(value: Any, what: str, *, positive: bool) -> float:
    number = (
        float(value)
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
        else math.nan
    )
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        wanted = "a number above 0" if positive else "a number, 0 or above"
        raise SampleError(f"{what} is {value!r}: it must be {wanted}")
    return number


class _Options:
    """ops.npy: suite2p's settings and results."""

    def __init__(self, path: Path) -> None:
        held = read_pickled(path)
        options = held.item() if held.size == 1 else None
        if not isinstance(options, dict):
            raise SampleError(f"{path}: it does not hold one dictionary: run suite2p again")
        self._path, self._options = path, options

    def number(self, name: str, default: float, *, positive: bool = False) -> float:
        return _number(self._options.get(name, default), f"{self._path}: {name!r}", positive=positive)

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


def _digest(folders: list[Path]) -> str:
    hashed = hashlib.blake2b(digest_size=12)
    for folder in folders:
        for name in _HASHED:
            path = folder / name
            if path.exists():
                with path.open("rb") as file:
                    hashed.update(f"{name} {path.stat().st_size} ".encode())
                    for block in iter(lambda f=file: f.read(2**20), b""):
                        hashed.update(block)
    return hashed.hexdigest()
