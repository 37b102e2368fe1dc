"""What a benchmark is, and which there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes
    ----------
    threads : int
        BLAS threads of every measured process.
    repeats : int or None
        Measurements of each side; None leaves the number to the benchmark.
    """

    threads: int = 1
    repeats: int | None = None


@dataclass(frozen=True)
class Row:
    """One line of the result table. Times are medians; None means "not applicable".

    Attributes
    ----------
    ratio : float or None
        Median over pairs of baseline / ours.
    unit : str
        Of ``ours``, ``baseline`` and ``limit_seconds``; seconds unless it says otherwise.
    required_ratio, limit_memory_ratio, limit_error, limit_seconds : float or None
        Promises: ``ratio`` at least, and ``memory_ratio``, ``error`` and ``ours`` at most.
    memory_ratio : float or None
        Peak memory of the process, ours / baseline.
    error : float or None
        Largest difference between the outputs, relative to the largest value; singular values above 1e-3 of
        the largest, each relative to itself.
    note : str
        Printed below the table.
    """

    step: str
    size: str
    ours: float
    baseline: float | None = None
    ratio: float | None = None
    required_ratio: float | None = None
    memory_ratio: float | None = None
    limit_memory_ratio: float | None = None
    error: float | None = None
    limit_error: float | None = None
    limit_seconds: float | None = None
    note: str = ""
    unit: str = "s"

    @property
    def misses(self) -> list[str]:
        """Promises that were not kept, in words; a promise about something unmeasured is not kept."""
        found = []
        if self.required_ratio is not None and not (self.ratio or 0) >= self.required_ratio:
            found.append(f"ratio {self.ratio} is below {self.required_ratio}")
        for name, value, limit in (
            ("memory ratio", self.memory_ratio, self.limit_memory_ratio),
            ("error", self.error, self.limit_error),
            ({"s": "seconds"}.get(self.unit, self.unit or "number"), self.ours, self.limit_seconds),
        ):
            if limit is not None and not (value is not None and value <= limit):
                found.append(f"{name} {value} is above {limit}")
        return found


Benchmark = Callable[[Options], list[Row]]
BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(name: str) -> Callable[[Benchmark], Benchmark]:
    """Register a benchmark under the name by which the command line picks it."""

    def register(function: Benchmark) -> Benchmark:
        if name in BENCHMARKS:
            raise ValueError(f"two benchmarks are called {name}")
        BENCHMARKS[name] = function
        return function

    return register
