"""The queue of `slow_pipeline`, in a database that emulated machines reach, and an independent look at it.

The look is plain SQL: nothing of the worker's own code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from databases import Server, database_folder, embedded_database, embedded_server
from restartable import ask
from slow_worker import DEPENDENCIES

GATE = "/output/go"
"""In the container; on the machine it is in the round's own directory."""


@dataclass(frozen=True)
class SharedQueue:
    """What the rounds have made of the keys."""

    directory: Path
    server: Server
    reach: tuple[str, ...] = ()

    def settings(self, **more: Any) -> dict[str, Any]:
        """Variables of a worker that computes the keys; each is held until somebody opens the gate."""
        environment = {
            "WORKFLOW_MODULES": "workflow.slow_pipeline",
            "WORKFLOW_HEARTBEAT": "0.5",
            "WORKFLOW_GRACE": "1",
            "SLOW_GATE": GATE,
        }
        return {
            "round_arguments": ["run"],
            "round_environment": environment | {name: str(value) for name, value in more.items()},
            "workflow_image_base": DEPENDENCIES,
        }

    @contextmanager
    def lost(self) -> Iterator[None]:
        """Have no server for a while."""
        assert embedded_database("stop", self.directory).returncode == 0
        try:
            yield
        finally:
            assert embedded_database("start", self.directory, *self.reach).returncode == 0

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the server; nothing where the tables are not there yet."""
        try:
            return ask(self.server, statement)
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
            return []

    def keys(self) -> dict[int, str]:
        """How each key is: `done`, its status in the queue, or `due` where it is in neither."""
        found = {step: "due" for (step,) in self.ask('SELECT step FROM workflow_slow_pipeline."#step"')}
        found |= dict(self.ask('SELECT step, status FROM workflow_slow_pipeline."~~slow"'))
        return found | {
            step: "done" for (step,) in self.ask('SELECT step FROM workflow_slow_pipeline."__slow"')
        }

    def crews(self) -> set[int]:
        """All crews that there have been."""
        return {crew for (crew,) in self.ask("SELECT crew FROM workflow_ledger.worker")}

    def in_hand(self, but: Collection[int] = ()) -> dict[int, str]:
        """Keys that a worker whose crew's heart beats says it is computing, and on which machine.

        A crew that was killed may count for seconds: those can be left out.
        """
        return {
            step: machine
            for step, machine, crew in self.ask(
                "SELECT j.step, w.machine, w.crew "
                'FROM workflow_slow_pipeline."~~slow" AS j '
                "JOIN workflow_ledger.worker AS w ON w.crew = j.connection_id "
                "WHERE j.status = 'reserved' AND w.number > 0 AND w.ended IS NULL "
                "AND w.heartbeat > localtimestamp - interval '3 seconds' "
                "AND w.doing = 'slow_pipeline.Slow {''step'': ' || j.step || '}'"
            )
            if crew not in but
        }

    def untried(self, steps: set[int]) -> bool:
        """Whether keys wait as if nobody had ever tried them."""
        rows = self.ask(
            "SELECT step FROM workflow_slow_pipeline.\"~~slow\" WHERE status = 'pending' "
            "AND coalesce(error_message, '') = ''"
        )
        return steps <= {step for (step,) in rows}

    def done_by(self) -> Counter[str]:
        """How many keys each machine has computed, by what is written into the rows."""
        machines = {
            int(worker): machine
            for worker, machine in self.ask("SELECT worker, machine FROM workflow_ledger.worker")
        }
        versions = self.ask('SELECT _job_version FROM workflow_slow_pipeline."__slow"')
        return Counter(machines.get(int(version.split()[1], 16), "nobody") for (version,) in versions)

    def findings(self) -> list[str]:
        """Whatever is wrong with what there is; keys that are not done yet are not."""
        found = [f"key {step} failed" for step, state in self.keys().items() if state == "error"]
        halves = self.ask(
            'SELECT s.step, count(h.half) FROM workflow_slow_pipeline."__slow" AS s '
            'LEFT JOIN workflow_slow_pipeline."__slow__half" AS h ON h.step = s.step GROUP BY s.step'
        )
        found += [f"key {step}: {n} of 2 halves" for step, n in halves if n != 2]
        witnesses = dict(self.ask("SELECT step, count(*) FROM workflow_slow_pipeline.witness GROUP BY step"))
        done = {step for step, state in self.keys().items() if state == "done"}
        found += [f"key {step}: committed {n} times" for step, n in witnesses.items() if n != 1]
        found += [f"key {step}: done or seen done, not both" for step in done ^ set(witnesses)]
        queued = {step for (step,) in self.ask('SELECT step FROM workflow_slow_pipeline."~~slow"')}
        found += [f"key {step}: done and still in the queue" for step in done & queued]
        return found + self._ledger()

    def _ledger(self) -> list[str]:
        """Whoever was killed may have had no time to say what was done; whoever left has said all."""
        counted = self.ask(
            "SELECT w.machine, w.n_done, w.verdict, (SELECT count(*) "
            'FROM workflow_slow_pipeline."__slow" AS s '
            "WHERE split_part(s._job_version, ' ', 2) = to_hex(w.worker)) "
            "FROM workflow_ledger.worker AS w WHERE w.number > 0"
        )
        found = [
            f"a worker of {machine} has done {rows}, the ledger says {n} ({verdict})"
            for machine, n, verdict, rows in counted
            if n > rows or (verdict == "ended" and n != rows)
        ]
        return found + [f"{n} keys done by nobody" for who, n in self.done_by().items() if who == "nobody"]

    def unfinished(self) -> list[str]:
        """Whatever is wrong once everything should have been done."""
        left = [f"key {step}: {state}" for step, state in self.keys().items() if state != "done"]
        return self.findings() + left


@contextmanager
def shared_queue(ec2: Path) -> Iterator[SharedQueue]:
    """Start a database that the machines of an emulated EC2 reach; `ec2` is the folder of its server."""
    network = json.loads((ec2 / "endpoint.json").read_text())
    with database_folder() as directory:
        reach = ("--address", network["gateway"], "--clients", network["network"])
        started = embedded_database("start", directory, *reach)
        assert started.returncode == 0, started.stderr
        yield SharedQueue(directory, embedded_server(directory), reach)
