"""Read suite2p output folders.

A folder holds F.npy and Fneu.npy (ROIs × frames), iscell.npy, stat.npy, ops.npy and, optionally,
spks.npy. See https://suite2p.readthedocs.io/en/latest/outputs/.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workflow.sample.errors import SampleError
from workflow.sample.plane import checked_number, read_plane
from workflow.sample.recording import Epoch, Roi, Session, Trace

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
            label=f"{self.fingerprint} {_ascii(self.folder.resolve().name)}"[:200],
            fov_num=fov_num,
            x_size=self.x_size,
            y_size=self.y_size,
            nominal_frame_rate=rate,
            rois=tuple(replace(roi, brain_area=brain_area) for roi in self.rois),
            epochs=(epoch,),
        )


def _rows(traces: NDArray[np.float32]) -> Callable[[], Iterator[Trace]]:
    return lambda: iter(traces)


def _ascii(name: str) -> str:
    """Make a folder's name one that any database can hold."""
    return name.encode("ascii", "replace").decode()


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
        checked_number(frame_rate, "the frame rate", positive=True)
    folders = _plane_folders(folder)
    planes = [read_plane(path, plane_num, frame_rate) for path, plane_num in folders]
    rates = sorted({plane.frame_rate for plane in planes})
    if len(rates) > 1:
        raise SampleError(f"{folder}: its planes differ in frame rate ({rates} Hz): give the frame rate")
    if len({plane.spikes is None for plane in planes}) > 1:
        raise SampleError(f"{folder}: only some of its planes have spks.npy: run suite2p again, or remove it")
    shortest, longest = (pick(plane.dff.shape[1] for plane in planes) for pick in (min, max))
    # An interleaved scan that was stopped leaves one frame more in the first planes.
    if longest - shortest > 1:
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
            f"{folder / 'F.npy'}: no cell has a finite fluorescence with a positive baseline: "
            "run suite2p again, with a smaller neucoeff"
        )
    count = int(undefined[cells].sum())
    note = f"{count} of {cells.sum()} cells have no finite fluorescence with a positive baseline, so no dF/F"
    return Suite2pRecording(
        folder=folder,
        fingerprint=f"suite2p {_digest([path for path, _ in folders])}",
        date=datetime.date.fromtimestamp((planes[0].folder / "F.npy").stat().st_mtime),
        frame_rate=rates[0],
        x_size=max(plane.x_size for plane in planes),
        y_size=max(plane.y_size for plane in planes),
        rois=tuple(replace(roi, roi_number=number) for number, roi in enumerate(rois, start=1)),
        dff=activity,
        spikes=np.concatenate(spikes) if spikes else None,
        notes=(note,) if count else (),
    )


def _plane_folders(folder: Path) -> list[tuple[Path, int]]:
    """Find the folders of the planes and number them from 1."""
    if not folder.is_dir():
        raise SampleError(
            f"{folder}: there is no such folder: give a suite2p output folder, which holds F.npy"
        )
    try:
        inside = [path for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        raise SampleError(f"{folder}: it cannot be read: {error.strerror}: check its permissions") from None
    numbered = [(path, re.fullmatch(r"plane([0-9]{1,3})", path.name)) for path in inside]
    planes = sorted((int(match[1]), path) for path, match in numbered if match)
    if planes and not (folder / "F.npy").exists():
        return [(path, number + 1) for number, path in planes]
    return [(folder, 1)]


def _digest(folders: list[Path]) -> str:
    hashed = hashlib.blake2b(digest_size=12)
    for folder in folders:
        for name in _HASHED:
            path = folder / name
            if path.exists():
                with path.open("rb") as file:
                    hashed.update(f"{name} {path.stat().st_size} ".encode())
                    while block := file.read(2**20):
                        hashed.update(block)
    return hashed.hexdigest()
