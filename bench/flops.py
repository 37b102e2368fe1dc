"""How much of a step's time its arithmetic alone would take, at the rate of a plain matrix product."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np

from bench.measure import Comparison, Step, run
from bench.registry import Options

GEMM_SIZE = 2000


def gemm(n: int) -> Callable[[], np.ndarray]:
    """Prepare a matrix product, the fastest arithmetic of this machine."""
    A = np.random.default_rng(0).standard_normal((n, n))

    def step() -> np.ndarray:
        A @ A
        return np.zeros(1)

    return step


def bound_note(flops: float, result: Comparison, options: Options, repeats: int = 3) -> str:
    """Measure the rate of a matrix product now, and say what it means for a step, and the step's peak memory.

    Parameters
    ----------
    flops : float
        Floating-point operations of our way, a multiplication and an addition counting as two.
    result : Comparison
        The step's own measurement, in the same run.
    options : Options
        Number of BLAS threads and, if given, of repeats.
    repeats : int
        Processes that measure the product.

    Returns
    -------
    str
        For `registry.Row.note`.
    """
    product = Step("bench.flops:gemm", (GEMM_SIZE,), loops=3)
    seconds = median(run(product, options.threads).seconds for _ in range(options.repeats or repeats))
    rate = 2 * GEMM_SIZE**3 / seconds
    bound = flops / rate
    return (
        f"matrix products run at {rate / 1e9:.0f} Gflop/s; the flops alone would take {bound:.2g} s, "
        f"{bound / result.ours:.1%} of the time taken; peak memory {result.peak / 1024:.0f} MiB"
    )
