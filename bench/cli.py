"""Command line: pick benchmarks, run them, print and save the table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import (  # noqa: F401  (importing a module registers its benchmarks)
    actions,
    binning,
    communication_subspace,
    emulated,
    emulated_fleet,
    fleet,
    large_sample,
    lds,
    memory,
    populate,
    population_svd,
    rounds,
    shuffle,
    speedup,
    timescale,
)
from bench.measure import MeasurementError
from bench.registry import BENCHMARKS, Options, Row
from bench.report import as_json, remarks, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return 0 when every promise is kept, 1 when not, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    parser.add_argument("--threads", type=int, default=1, help="BLAS threads of every process (default 1)")
    parser.add_argument("--repeats", type=int, help="measurements of each side (default: per benchmark)")
    options = parser.parse_args(arguments)
    problem = _problem(options)
    if problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    results: list[tuple[str, Row]] = []
    failed = False
    for name in options.names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            rows = BENCHMARKS[name](Options(options.threads, options.repeats))
        except MeasurementError as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
            failed = True
            continue
        results += [(name, row) for row in rows]
    print(table(row for _, row in results))
    for _, row in results:
        for line in remarks(row):
            print(line)
    if options.json:
        document = {"format": 1, "threads": options.threads, "rows": [as_json(*result) for result in results]}
        options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if failed or any(row.misses for _, row in results) else 0


def _problem(options: argparse.Namespace) -> str | None:
    """Say what is wrong with the command line before minutes are spent measuring."""
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        return f"no benchmark is called {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}"
    for option in ("threads", "repeats"):
        value = getattr(options, option)
        if value is not None and value < 1:
            return f"--{option} must be 1 or more, not {value}"
    if options.json and (options.json.is_dir() or not options.json.parent.is_dir()):
        return f"--json {options.json}: not a file in an existing folder; give a path that can be written"
    return None
