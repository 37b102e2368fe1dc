"""The worker against DataJoint's own populate(reserve_jobs=True): statements, throughput, filling, memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.measure import MeasurementError
from bench.registry import Options, Row, benchmark
from bench.servers import ROOT, Server, counted, server
from workflow.settings import UPSTREAM_SCHEMAS

BACKENDS = ("postgresql", "mysql")
PROMISED = {1: 8.0, 64: 9.0}  # statements per key
FILL = 100_000  # keys


@dataclass
class Trivial:
    """The trivial pipeline on one server."""

    server: Server
    prefix: str = field(default_factory=lambda: f"bench_{uuid.uuid4().hex[:8]}_")
    changes: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """What the worker needs to find it."""
        own = {
            "WORKFLOW_PREFIX": self.prefix,
            "WORKFLOW_MODULES": "bench.trivial",
            "OPENBLAS_NUM_THREADS": "1",
            "DJ_IGNORE_CONFIG_FILE": "true",
            "PYTHONPATH": str(ROOT),
            **self.changes,
        }
        return os.environ | self.server.settings | own

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a module of ours."""
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def work(self, table: str, processes: int) -> str:
        """Have the worker compute what is due in a table; what it says on stdout."""
        process = self.start("workflow", "run", "--tables", table, "--processes", str(processes), "--json")
        return ended(process)

    def plan(self) -> None:
        """Declare what there is to declare."""
        ended(self.start("workflow", "plan"))

    def stock(self, table: str, processes: int) -> None:
        """Have DataJoint do it, from the moment when everybody is ready."""
        process = self.start("bench.stock", table, str(processes))
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            ended(process)
        ended(process, "go\n")

    def enter(self, count: int) -> None:
        """Have so many numbers, nothing computed, and every number of Square in the queue."""
        for table in ("~~square", "__square", "number"):
            self.server.ask(f"DELETE FROM {self.name(table)}")
        for low in range(0, count, 10_000):
            rows = ", ".join(f"({n})" for n in range(low, min(count, low + 10_000)))
            self.server.ask(f"INSERT INTO {self.name('number')} (number) VALUES {rows}")

    def enqueue(self) -> None:
        """Fill the queue of Square."""
        self.server.ask(
            f"INSERT INTO {self.name('~~square')} (number, status, priority) "
            f"SELECT number, 'pending', 5 FROM {self.name('number')}"
        )

    def name(self, table: str) -> str:
        """A table in SQL."""
        return self.server.name(f"{self.prefix}trivial", table)

    def seconds_per_key(self) -> float:
        """From the first start to the last end, as the computed rows tell it."""
        end = {
            "mysql": "TIMESTAMPADD(MICROSECOND, 1000000 * _job_duration, _job_start_time)",
            "postgresql": "_job_start_time + make_interval(secs => _job_duration)",
        }[self.server.backend]
        query = f"SELECT MIN(_job_start_time), MAX({end}), COUNT(*) FROM {self.name('__square')}"
        [(first, last, count)] = self.server.ask(query)
        return float((last - first).total_seconds()) / int(count)


@contextmanager
def trivial(backend: str) -> Iterator[Trivial]:
    """Set up the trivial pipeline on a server of its own."""
    with server(backend) as started:
        pipeline = Trivial(started)
        try:
            pipeline.work("*", 1)  # declares the tables
            yield pipeline
        finally:
            started.drop(pipeline.prefix)


def ended(process: subprocess.Popen[str], words: str = "") -> str:
    """Wait for a process that must succeed; what it says on stdout."""
    output, errors = process.communicate(words or None, timeout=600)
    if process.returncode != 0:
        last = (errors.strip() or "no message").splitlines()[-1]
        raise MeasurementError(f"{process.args!r} ended with {process.returncode}: {last}")
    return output


def _statements(pipeline: Trivial, processes: int, *, ours: int, stock: int) -> Row:
    """Statements per key; of ours all, from the start of the program to its end."""
    of = pipeline.server
    pipeline.enter(ours)
    counting = of.statements_of_counting()
    before = of.statements()
    pipeline.work("Square", processes)
    mine = (of.statements() - before - counting) / ours
    pipeline.enter(stock)
    pipeline.enqueue()
    process = pipeline.start("bench.stock", "Square", str(processes))
    assert process.stdout is not None
    process.stdout.readline()
    before = of.statements()
    ended(process, "go\n")
    theirs = (of.statements() - before - counting) / stock
    return Row(
        "statements per key",
        f"{of.backend}, {_workers(processes)}",
        mine,
        theirs,
        theirs / mine,
        limit_seconds=PROMISED[processes],
        unit="",
        note=f"counted by the server; ours: a whole run of {ours} keys, from connecting to the ledger's last "
        f"entry; DataJoint's own: populate alone, {stock} keys, its queue filled before",
    )


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


@benchmark("populate-statements")
def statements(options: Options) -> list[Row]:
    """Statements that the server had to answer per key."""
    rows = []
    for backend in BACKENDS:
        with trivial(backend) as pipeline, counted(pipeline.server):
            rows.append(_statements(pipeline, 1, ours=1000, stock=300))
            rows.append(_statements(pipeline, 64, ours=4000, stock=200))
    return rows


def _throughput(
    pipeline: Trivial, processes: int, ours: int, stock: int, required: float, repeats: int
) -> Row:
    pairs, cpu = [], []
    for _ in range(repeats):
        pipeline.enter(ours)
        pipeline.enqueue()
        used = pipeline.server.seconds()
        pipeline.work("Square", processes)
        mine = pipeline.seconds_per_key()
        cpu.append((pipeline.server.seconds() - used) / ours)
        pipeline.enter(stock)
        pipeline.enqueue()
        pipeline.stock("Square", processes)
        pairs.append((mine, pipeline.seconds_per_key()))
    mine = median(mine for mine, _ in pairs)
    return Row(
        "trivial key",
        f"{pipeline.server.backend}, {_workers(processes)}",
        mine,
        median(theirs for _, theirs in pairs),
        median(theirs / mine for mine, theirs in pairs),
        required_ratio=required,
        note=f"{1 / mine:.0f} keys/s; from the first key's start to the last one's end; {ours} keys ours, "
        f"{stock} DataJoint's own; the server used {1000 * median(cpu):.2f} ms of processor per key of ours",
    )


@benchmark("populate-throughput")
def throughput(options: Options) -> list[Row]:
    """Seconds per trivial key, side by side."""
    rows = []
    for backend in BACKENDS:
        with trivial(backend) as pipeline:
            repeats = options.repeats or 3
            rows.append(_throughput(pipeline, 1, 500, 500, 0.95, repeats))
            rows.append(_throughput(pipeline, 16, 2000, 400, 4.0, repeats))
    return rows


@benchmark("populate-queue")
def queue(options: Options) -> list[Row]:
    """Filling a queue, and finding nothing to put into it."""
    return [row for backend in BACKENDS for row in _queue(backend)]


def _queue(backend: str) -> list[Row]:
    with trivial(backend) as pipeline:
        poll = _poll(pipeline)
        pipeline.enter(FILL)
        found = json.loads(ended(pipeline.start("bench.queue_child", "fill")).splitlines()[-1])
        if found["keys"] != FILL:
            raise MeasurementError(f"{found['keys']} keys were queued, not {FILL}")
        mine, theirs = found["ours"], found["stock"] * FILL / found["stock_keys"]
        note = f"DataJoint's own extrapolated from {found['stock_keys']} keys in {found['stock']:.2f} s"
        fill = Row(
            "fill a queue",
            f"{backend}, {FILL} keys",
            mine,
            theirs,
            theirs / mine,
            limit_seconds=10.0,
            note=note,
        )
        return [fill, poll]


def _poll(pipeline: Trivial) -> Row:
    """Count the statements of one search that finds nothing."""
    pipeline.enter(0)
    times = 10
    with counted(pipeline.server):
        process = pipeline.start("bench.queue_child", "poll")
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        counting, found = pipeline.server.statements_of_counting(), []
        for who in ("ours", "stock"):
            before = pipeline.server.statements()
            for _ in range(times):
                process.stdin.write(f"{who}\n")
                process.stdin.flush()
                process.stdout.readline()
            found.append((pipeline.server.statements() - before - counting) / times)
        ended(process)
    mine, theirs = found
    return Row(
        "idle poll",
        f"{pipeline.server.backend}, 2 tables",
        mine,
        theirs,
        theirs / mine,
        limit_seconds=3.0,
        unit="",
        note="statements, counted by the server, of one search for new keys in all tables that finds none",
    )


@benchmark("populate-memory")
def memory(options: Options) -> list[Row]:
    """Memory of workers that wait, with our own pipeline loaded and its tables bound."""
    return [_waiting(backend) for backend in BACKENDS]


def _waiting(backend: str) -> Row:
    with trivial(backend) as pipeline:
        processes = 4
        pipeline.enter(processes)
        pipeline.changes |= {
            "WORKFLOW_MODULES": "bench.trivial,workflow.pipeline",
            "WORKFLOW_UPSTREAM": "declare",
            "WORKFLOW_HEARTBEAT": "0.2",  # so that the ledger soon knows what they do
            **{f"WORKFLOW_SCHEMA_{name.upper()}": f"{pipeline.prefix}{name}" for name in UPSTREAM_SCHEMAS},
        }
        pipeline.plan()
        run = pipeline.start("workflow", "run", "--tables", "Wait", "--processes", str(processes), "--json")
        deadline = time.monotonic() + 60
        workers: list[int] = []
        query = (
            f"SELECT pid FROM {pipeline.server.name(f'{pipeline.prefix}ledger', 'worker')} "
            "WHERE number > 0 AND pid > 0 AND doing <> '' AND ended IS NULL"
        )
        while len(workers) < processes:
            workers = [pid for (pid,) in pipeline.server.ask(query)]
            if time.monotonic() > deadline or run.poll() is not None:
                raise MeasurementError("the workers did not start")
            time.sleep(0.05)
        found = [_memory(pid) for pid in workers]
        ended(run)
    resident, own = max(rss for rss, _ in found), max(pss for _, pss in found)
    return Row(
        "memory of a waiting worker",
        f"{backend}, {processes} workers",
        resident,
        limit_seconds=150.0,
        unit="MB",
        note=f"resident, with what it shares with the others; {own:.0f} MB if what is shared is divided "
        "among those who share it; all of our pipeline, DataJoint, NumPy and SciPy imported",
    )


def _memory(pid: int) -> tuple[float, float]:
    """Resident and proportional memory of a process, in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = [re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE) for name in ("Rss", "Pss")]
    resident, own = (int(found.group(1)) * 1024 / 1e6 if found else float("nan") for found in kilobytes)
    return resident, own
