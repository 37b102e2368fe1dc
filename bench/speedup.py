"""How much faster two workers are than one, on the sample's decompositions of brain areas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from statistics import median

from bench.laboratory import environment, workflow
from bench.populate import BACKENDS
from bench.registry import Options, Row, benchmark
from bench.servers import Server, server

TABLE = "area_svd.AreaSVD"
SIZE = "medium"


def _seconds(of: Server, prefix: str, where: dict[str, str], processes: int) -> tuple[float, int]:
    """Compute all of the table; the time from the first start to the last end, and how many keys."""
    for part in (
        "__area_s_v_d__component",
        "__area_s_v_d__r_o_i",
        "__area_s_v_d__unused_r_o_i",
        "__area_s_v_d",
    ):
        of.ask(f"DELETE FROM {of.name(f'{prefix}area_svd', part)}")
    run = ("run", "--tables", TABLE, "--processes", str(processes), "--json")
    [table] = json.loads(workflow(where, *run))["tables"]
    return float(table["seconds"]), int(table["done"])


_BUSY = """
import time, numpy as np
A, n, end = np.ones((300, 300)), 0, time.monotonic() + 2
while time.monotonic() < end:
    A @ A
    n += 1
print(n)
"""


def _work_of(processes: int) -> int:
    """Matrix products that so many busy processes do in two seconds: what the machine has to give."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    busy = [
        subprocess.Popen([sys.executable, "-c", _BUSY], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return sum(int(each.communicate()[0]) for each in busy)


@benchmark("populate-speedup")
def speedup(options: Options) -> list[Row]:
    """One worker and two, in turn."""
    return [_speedup(backend, options.repeats or 3) for backend in BACKENDS]


def _speedup(backend: str, repeats: int) -> Row:
    prefix = f"bench_{uuid.uuid4().hex[:8]}_"
    with server(backend) as of:
        where = environment(of, prefix)
        workflow(where, "sample", "--size", SIZE)
        workflow(where, "plan")
        pairs, gains, shares, keys = [], [], [], 0
        for repeat in range(repeats):
            order = (1, 2) if repeat % 2 == 0 else (2, 1)
            times, used = {}, {}
            for processes in order:
                before = of.seconds()
                times[processes], keys = _seconds(of, prefix, where, processes)
                used[processes] = of.seconds() - before
            pairs.append((times[1], times[2]))
            shares.append(used[2] / times[2] / 2)
            gains.append(_work_of(2) / _work_of(1))
        of.drop(prefix)
    return Row(
        "area SVDs with 2 workers",
        f"{backend}, {keys} keys, {SIZE} sample",
        median(two for _, two in pairs),
        median(one for one, _ in pairs),
        median(one / two for one, two in pairs),
        required_ratio=1.8,
        note="baseline: 1 worker; one thread of linear algebra each; at that time, the machine did "
        f"{median(gains):.2f} × the work of one busy process with two: what is above that cannot be had; nor "
        f"can what the database server takes of the same two cores, {median(shares):.0%} with two workers",
    )
