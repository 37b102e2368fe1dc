"""Synthetic recordings with known answers.

Three animals, all of them part of the study, with two sessions each. Two are on the mesoscope (two
planes, 9.37 Hz, four brain areas), the third on a conventional microscope (one plane, 30 Hz, two
areas). Every session has one epoch of each of spont_only and behav_only, with bad ROIs in both. Each of
these oddities occurs exactly once, in the place that :data:`ODDITIES` names: an epoch with
photostimulation, one of sensory mapping, one of a single frame, a constant trace and a trace of NaN.
Neurons keep their unique number from session to session, ROI numbers restart, and one neuron in ten is
not found again in the second session. The frame rate of the field of view is deliberately not that of
its epochs, which is the one that counts. Stored traces differ in precision and shape as the lab's do.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflow.sample import planted
from workflow.sample.errors import SampleError
from workflow.sample.recording import Epoch, Plane, Roi, Session, Trace, Truth

#: Part of every label: raise it when the same size and seed come to mean other numbers.
RECIPE = 2
MAX_SEED = 9999
#: Where one area ends and the next begins, in both directions, as a fraction of the field of view: the areas
#: differ in size, and in the large sample one of them has the 500 ROIs that matched sizes need.
BORDER = 0.6

#: Oddity -> (animal, session, epoch number), each counted from 1.
ODDITIES = {
    "photostim": (1, 1, 3),
    "somatotopy": (1, 2, 3),
    "one frame": (2, 1, 3),
    "constant": (2, 2, 1),
    "nan": (3, 1, 2),
}


@dataclass(frozen=True)
class Size:
    """Neurons per animal, and frames per spont_only and behav_only epoch, of each kind of animal."""

    first_subject: int
    neurons: tuple[int, int, int]
    frames: tuple[tuple[int, int], ...]


SIZES = {
    "small": Size(100_001, (90, 80, 70), ((900, 1200), (900, 1200), (1500, 1500))),
    "medium": Size(200_001, (500, 500, 400), ((3000, 3000), (3000, 3000), (3000, 3000))),
    "large": Size(300_001, (2000, 1000, 500), ((5000, 5000), (3000, 5000), (5000, 5000))),
}


@dataclass(frozen=True)
class _Microscope:
    mesoscope: bool
    frame_rate: float
    pixels: int
    planes: int


_MESOSCOPE = _Microscope(mesoscope=True, frame_rate=9.37, pixels=1200, planes=2)
_CONVENTIONAL = _Microscope(mesoscope=False, frame_rate=30.0, pixels=512, planes=1)
_ANIMALS = (
    (_MESOSCOPE, ("MOs", "MOp", "SSp-bfd", "SSp-ul")),
    (_MESOSCOPE, ("MOp", "SSp-bfd", "RSPagl", "VISa")),
    (_CONVENTIONAL, ("MOs", "MOp")),
)
_SHAPES = (lambda n: (n,), lambda n: (1, n), lambda n: (n, 1))


@dataclass(frozen=True)
class _Neurons:
    """The neurons of an animal; arrays have one entry each."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    radius: NDArray[np.float64]
    plane: NDArray[np.int64]
    fluorescence: NDArray[np.float64]
    area: tuple[str, ...]
    loadings: NDArray[np.float64]


def recordings(size: str = "small", seed: int = 1) -> tuple[Session, ...]:
    """Describe a synthetic sample; the traces themselves are made when they are asked for.

    Parameters
    ----------
    size : {'small', 'medium', 'large'}
        About 80 × 1000, 500 × 3000 or up to 2000 × 5000 (ROIs × frames) per epoch.
    seed : int
        From 0 to 9999; the same size and seed give the same numbers, bit by bit, and animals of their
        own.

    Returns
    -------
    tuple of Session
        Ordered by animal and session.

    Raises
    ------
    SampleError
        If there is no such size or seed.
    """
    if size not in SIZES:
        raise SampleError(f"the sample size is {size!r}: it must be one of {', '.join(SIZES)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise SampleError(f"the seed is {seed!r}: it must be a whole number from 0 to {MAX_SEED}")
    root = (list(SIZES).index(size), seed)
    sessions = []
    for animal in (1, 2, 3):
        neurons = _neurons(np.random.default_rng([*root, animal]), animal, SIZES[size])
        sessions += [_session(root, animal, number, neurons, size) for number in (1, 2)]
    return tuple(sessions)


def _neurons(rng: np.random.Generator, animal: int, size: Size) -> _Neurons:
    microscope, areas = _ANIMALS[animal - 1]
    count, pixels = size.neurons[animal - 1], microscope.pixels
    x, y = rng.uniform(0.02, 0.98, size=(2, count)) * pixels
    columns = len(areas) // 2
    tile = (y > BORDER * pixels).astype(int) * columns + (x > BORDER * pixels).astype(int) * (columns - 1)
    return _Neurons(
        x=x,
        y=y,
        radius=rng.uniform(4.0, 8.0, size=count),
        plane=np.arange(count) % microscope.planes + 1,
        fluorescence=rng.uniform(200.0, 2000.0, size=count),
        area=tuple(areas[index] for index in tile),
        loadings=planted.loadings(rng, x, y, pixels),
    )


def _session(root: tuple[int, int], animal: int, number: int, neurons: _Neurons, size: str) -> Session:
    microscope, _ = _ANIMALS[animal - 1]
    rng = np.random.default_rng([*root, animal, number])
    count = len(neurons.area)
    here = np.arange(count) if number == 1 else np.flatnonzero(np.arange(count) % 10 != 9)
    here = here[np.argsort(neurons.plane[here], kind="stable")]
    bad = np.zeros(len(here), bool)
    bad[rng.permutation(len(here))[: len(here) // 10]] = True
    planes = {n: Plane(n) for n in range(1, microscope.planes + 1)}
    rois = tuple(
        Roi(
            plane=planes[int(neurons.plane[i])],
            roi_number=position + 1,
            uid=int(i) + 1,
            x=float(neurons.x[i]),
            y=float(neurons.y[i]),
            radius=float(neurons.radius[i]),
            bad=bool(bad[position]),
            brain_area=neurons.area[i],
            f_mean=float(neurons.fluorescence[i]),
            f_median=float(neurons.fluorescence[i]) * 0.97,
        )
        for position, i in enumerate(here)
    )
    return Session(
        subject_id=SIZES[size].first_subject + 10 * root[1] + animal - 1,
        session=number,
        date=datetime.date(2023, 3, 10 * animal) + datetime.timedelta(days=number - 1),
        mesoscope=microscope.mesoscope,
        label=f"synthetic {size}, seed {root[1]}, recipe {RECIPE}",
        fov_num=1,
        x_size=microscope.pixels,
        y_size=microscope.pixels,
        nominal_frame_rate=float(round(microscope.frame_rate + 1)),
        rois=rois,
        epochs=_epochs(root, animal, number, neurons.loadings[here], bad),
    )


def _epochs(
    root: tuple[int, int], animal: int, number: int, weights: NDArray[np.float64], bad: NDArray[np.bool_]
) -> tuple[Epoch, ...]:
    frame_rate = _ANIMALS[animal - 1][0].frame_rate
    size = SIZES[list(SIZES)[root[0]]]
    spont, behav = size.frames[animal - 1]
    plan = [("spont_only", spont), ("behav_only", behav)]
    odd = {place: oddity for oddity, place in ODDITIES.items()}
    third = {
        "photostim": ("spont_photo", spont),
        "somatotopy": ("behav_only", spont),
        "one frame": ("spont_only", 1),
    }
    if (animal, number, 3) in odd:
        plan.append(third[odd[animal, number, 3]])
    epochs: list[Epoch] = []
    start = 0.0
    for position, (kind, n_frames) in enumerate(plan, start=1):
        oddity = odd.get((animal, number, position), "")
        make = _Maker(
            seed=(*root, animal, number, position),
            weights=weights,
            n_frames=n_frames,
            frame_rate=frame_rate,
            double=position == 2,
            shape=(animal + number) % 3,
            spoil=(int(np.flatnonzero(~bad)[0]), oddity) if oddity in ("constant", "nan") else None,
        )
        end = start + n_frames / frame_rate
        epochs.append(
            Epoch(
                epoch_type=kind,
                number=position,
                start_time=start,
                end_time=end,
                frame_rate=frame_rate,
                n_frames=n_frames,
                dff=make,
                photostim=oddity == "photostim",
                somatotopy="whisker pad" if oddity == "somatotopy" else None,
                truth=make.truth(bad) if n_frames > 1 else None,
            )
        )
        start = end + 60.0
    return tuple(epochs)


@dataclass(frozen=True)
class _Maker:
    """Makes the traces of one epoch, the same ones every time."""

    seed: tuple[int, ...]
    weights: NDArray[np.float64]
    n_frames: int
    frame_rate: float
    double: bool
    shape: int
    spoil: tuple[int, str] | None

    def __call__(self) -> Iterator[Trace]:
        """Yield one trace per ROI."""
        dtype = np.float64 if self.double else np.float32
        made = planted.traces(self.seed, self.weights, self.n_frames, self.frame_rate, dtype)
        for index, trace in enumerate(made):
            if self.spoil and index == self.spoil[0]:
                trace[:] = np.nan if self.spoil[1] == "nan" else 0.1
            yield trace.reshape(_SHAPES[self.shape](self.n_frames))

    def truth(self, bad: NDArray[np.bool_]) -> Truth:
        """Describe what was planted in the ROIs that can be used."""
        usable = ~bad
        if self.spoil:
            usable[self.spoil[0]] = False
        return Truth(
            loadings=self.weights[usable],
            latents=self.weights.shape[1],
            noise_variance=planted.NOISE_VARIANCE,
            timescales=planted.TIMESCALES,
            n_frames=self.n_frames,
        )
