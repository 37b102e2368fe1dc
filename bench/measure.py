"""Run a step in a fresh process and bring back its time, peak memory and output."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).parents[1]


class MeasurementError(Exception):
    """A measured process failed."""


@dataclass(frozen=True)
class Step:
    """Something to measure.

    Attributes
    ----------
    function : str
        ``module:name`` of a function that prepares its input and returns a callable without arguments,
        which is what is timed. What the callable returns is the output to compare.
    sizes : tuple of int
        Arguments of the function.
    loops : int
        Calls per process, of which the median time counts; more than 1 for steps of milliseconds.
    """

    function: str
    sizes: tuple[int, ...]
    loops: int = 1


@dataclass(frozen=True)
class Measurement:
    """Seconds, peak resident memory of the whole process in KiB, and the output."""

    seconds: float
    peak: int
    output: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Medians over the repeats; ratios are taken pair by pair first; ``peak`` is our memory in KiB."""

    ours: float
    baseline: float
    ratio: float
    memory_ratio: float
    error: float
    peak: float


def run(step: Step, threads: int) -> Measurement:
    """Measure a step once, in a process of its own.

    Raises
    ------
    MeasurementError
        If the process fails; its last line is the message.
    """
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output.npy"
        command = [sys.executable, "-m", "bench.child", step.function, str(output), str(step.loops)]
        command += [str(size) for size in step.sizes]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise MeasurementError(f"{step.function}{step.sizes} ended with {done.returncode}: {last}")
        return Measurement(**json.loads(done.stdout), output=np.load(output, allow_pickle=False))


def compare(
    ours: Step, baseline: Step, *, repeats: int, threads: int, relative_above: float = math.inf
) -> Comparison:
    """Measure two steps in turn, alternating which goes first, and compare times, memory and outputs.

    Outputs are compared relative to their largest value; values above the fraction ``relative_above`` of it,
    each relative to itself.
    """
    pairs: list[tuple[Measurement, Measurement]] = []
    for repeat in range(repeats):
        if repeat % 2:
            theirs = run(baseline, threads)
            pairs.append((run(ours, threads), theirs))
        else:
            mine = run(ours, threads)
            pairs.append((mine, run(baseline, threads)))
    return Comparison(
        ours=median(mine.seconds for mine, _ in pairs),
        baseline=median(theirs.seconds for _, theirs in pairs),
        ratio=median(theirs.seconds / mine.seconds for mine, theirs in pairs),
        memory_ratio=median(mine.peak / theirs.peak for mine, theirs in pairs),
        error=max(difference(mine.output, theirs.output, relative_above) for mine, theirs in pairs),
        peak=median(mine.peak for mine, _ in pairs),
    )


def difference(a: np.ndarray, b: np.ndarray, relative_above: float = math.inf) -> float:
    """Find the largest difference from ``b``, as `compare` says."""
    if a.shape != b.shape:
        raise MeasurementError(f"the outputs differ in shape: {a.shape} and {b.shape}")
    sizes = np.abs(b)
    return float((np.abs(a - b) / np.where(sizes > relative_above * sizes.max(), sizes, sizes.max())).max())
