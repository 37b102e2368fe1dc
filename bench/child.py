"""The measured process: ``python -m bench.child MODULE:FUNCTION OUTPUT LOOPS SIZE…``, see `bench.measure`."""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from statistics import median

import numpy as np


def main(function: str, output: str, loops: str, *sizes: str) -> None:
    """Prepare the input, time the step, save its output, and print time and peak memory as JSON."""
    module, name = function.split(":")
    step = getattr(importlib.import_module(module), name)(*map(int, sizes))
    seconds = []
    for _ in range(int(loops)):
        start = time.perf_counter()
        result = step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.save(output, result)
    print(json.dumps({"seconds": median(seconds), "peak": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
