"""Timescales against the whole autocorrelation of every signal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

from bench.flops import bound_note
from bench.measure import Step, compare
from bench.registry import Options, Row, benchmark
from workflow.analysis.timescale import timescales

SLOWEST = 40


def signals(n_signals: int, n_frames: int) -> np.ndarray:
    """Autoregressive signals of many timescales, in white noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_signals, n_frames))
    for row, tau in enumerate(np.linspace(1, SLOWEST, n_signals)):
        X[row] += lfilter([1.0], [1.0, -np.exp(-1 / tau)], X[row])
    return X


def correlate_each(n_signals: int, n_frames: int, n_lags: int) -> Callable[[], np.ndarray]:
    """Prepare the baseline."""
    X = signals(n_signals, n_frames)

    def step() -> np.ndarray:
        found = np.empty((n_signals, n_lags))
        for row, x in enumerate(X):
            centred = x - x.mean()
            whole = np.correlate(centred, centred, "full")[n_frames - 1 :]
            found[row] = whole[:n_lags] / whole[0]
        return found

    return step


def ours(n_signals: int, n_frames: int, n_lags: int) -> Callable[[], np.ndarray]:
    """Prepare our way, normalisation, crossings and fits included."""
    X = signals(n_signals, n_frames)
    return lambda: timescales(X, n_lags).autocorrelation


def flops(n_signals: int, n_frames: int, n_lags: int) -> float:
    """Operations of the wanted lags only; the matrix products that we use do twice as many."""
    return 2.0 * n_signals * n_frames * n_lags


@benchmark("timescale")
def timescale(options: Options) -> list[Row]:
    """Measure the timescales of 1000 components."""
    sizes = (1000, 10000, 50)
    result = compare(
        Step("bench.timescale:ours", sizes, loops=5),
        Step("bench.timescale:correlate_each", sizes),
        repeats=options.repeats or 3,
        threads=options.threads,
    )
    return [
        Row(
            step="timescale",
            size="1000 × 10000, 50 lags",
            ours=result.ours,
            baseline=result.baseline,
            ratio=result.ratio,
            required_ratio=60.0,
            memory_ratio=result.memory_ratio,
            error=result.error,
            limit_error=1e-12,
            note=bound_note(flops(*sizes), result, options),
        )
    ]
