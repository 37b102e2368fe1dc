"""What a recording is, before it is in the database."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Trace = NDArray[np.floating[Any]]
Image = NDArray[np.floating[Any]]

#: Called with (traces done, traces in all, what is being loaded).
Progress = Callable[[int, int, str], None]

#: The kinds of epoch that the upstream tables know.
EPOCH_TYPES = {
    "spont_only": "spontaneous activity, no task",
    "behav_only": "behaviour without photostimulation",
    "spont_photo": "spontaneous activity with photostimulation",
}

#: Cortical areas of the mouse (Allen Mouse Brain Common Coordinate Framework).
BRAIN_AREAS = {
    "ACAd": "anterior cingulate area, dorsal part",
    "AUDp": "primary auditory area",
    "MOp": "primary motor area",
    "MOs": "secondary motor area",
    "RSPagl": "retrosplenial area, lateral agranular part",
    "RSPd": "retrosplenial area, dorsal part",
    "SSp-bfd": "primary somatosensory area, barrel field",
    "SSp-ll": "primary somatosensory area, lower limb",
    "SSp-m": "primary somatosensory area, mouth",
    "SSp-n": "primary somatosensory area, nose",
    "SSp-tr": "primary somatosensory area, trunk",
    "SSp-ul": "primary somatosensory area, upper limb",
    "SSp-un": "primary somatosensory area, unassigned",
    "SSs": "supplemental somatosensory area",
    "VISa": "anterior visual area",
    "VISam": "anteromedial visual area",
    "VISl": "lateral visual area",
    "VISp": "primary visual area",
    "VISpm": "posteromedial visual area",
    "VISrl": "rostrolateral visual area",
}


@dataclass(frozen=True)
class Plane:
    """An imaging plane; numbers start at 1."""

    plane_num: int
    channel_num: int = 1
    mean_img: Image | None = None
    mean_img_enhanced: Image | None = None


@dataclass(frozen=True)
class Roi:
    """A region of interest; coordinates are pixels of its plane."""

    plane: Plane
    roi_number: int
    uid: int | None
    x: float
    y: float
    radius: float
    bad: bool = False
    brain_area: str | None = None
    x_pix: NDArray[Any] | None = None
    y_pix: NDArray[Any] | None = None
    weight: NDArray[Any] | None = None
    f_mean: float | None = None
    f_median: float | None = None


@dataclass(frozen=True)
class Truth:
    """What was planted in an epoch whose ROIs all have unit variance once z-scored.

    Attributes
    ----------
    loadings : ndarray, shape (N, d)
        Share of each latent in each ROI that a computation can use (neither bad nor dropped), ordered
        by ROI number. Every row has the squared norm ``1 - noise_variance``.
    latents : int
        Their number, d.
    noise_variance : float
        Variance of the white noise of every ROI.
    timescales : tuple of float
        Decay times of the latents (s).
    n_frames : int
        T.
    """

    loadings: NDArray[np.float64]
    latents: int
    noise_variance: float
    timescales: tuple[float, ...]
    n_frames: int

    @property
    def variances(self) -> NDArray[np.float64]:
        """Variances of the planted components, falling; shape (d,); their sum is N · (1 - noise)."""
        return np.asarray(np.square(np.linalg.svd(self.loadings, compute_uv=False)))

    @property
    def noise_edge(self) -> float:
        """Largest singular value that the noise alone is expected to have, σ (√T + √N)."""
        return float(np.sqrt(self.noise_variance) * (np.sqrt(self.n_frames) + np.sqrt(len(self.loadings))))

    @property
    def singular_values(self) -> NDArray[np.float64]:
        """Expected singular values of the z-scored epoch above the noise edge, falling; shape (d,).

        A component of variance λ in white noise σ² appears as √(T (λ + σ²)(1 + γ σ² / λ)) with
        γ = N/T (Benaych-Georges & Nadakuditi 2012, J. Multivariate Anal. 111:120).
        """
        spike, noise = self.variances, self.noise_variance
        ratio = len(self.loadings) / self.n_frames
        expected: NDArray[np.float64] = np.sqrt(self.n_frames * (spike + noise) * (1 + ratio * noise / spike))
        return expected


@dataclass(frozen=True)
class Epoch:
    """A part of a session, and how to make its traces.

    Attributes
    ----------
    epoch_type, number
        Kind and number in the session.
    start_time, end_time : float
        Seconds since the start of the session.
    frame_rate : float
        Frames per second (Hz).
    n_frames : int
        Length of every trace.
    dff : callable
        Yields one dF/F trace per ROI of the session, in that order. Called when the traces are needed,
        so that a sample never holds more than one epoch in memory.
    spikes : callable, optional
        The same for deconvolved activity.
    somatotopy : str, optional
        The stimulated area, where the epoch is a sensory mapping.
    truth : Truth, optional
        What was planted.
    """

    epoch_type: str
    number: int
    start_time: float
    end_time: float
    frame_rate: float
    n_frames: int
    dff: Callable[[], Iterator[Trace]] = field(repr=False)
    spikes: Callable[[], Iterator[Trace]] | None = field(default=None, repr=False)
    photostim: bool = False
    somatotopy: str | None = None
    truth: Truth | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Session:
    """One day's recording of one field of view of one animal.

    ``label`` says where the recording comes from; it is stored as the name of the field of view, which
    is how a recording that is already in the database is recognised.
    """

    subject_id: int
    session: int
    date: datetime.date
    mesoscope: bool
    label: str
    fov_num: int
    x_size: int
    y_size: int
    nominal_frame_rate: float | None
    rois: tuple[Roi, ...] = field(repr=False)
    epochs: tuple[Epoch, ...]

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The planes that have ROIs, by number."""
        found = {(roi.plane.plane_num, roi.plane.channel_num): roi.plane for roi in self.rois}
        return tuple(found[key] for key in sorted(found))

    @property
    def key(self) -> Mapping[str, int]:
        """Primary key in the database."""
        return {"subject_id": self.subject_id, "session": self.session}
