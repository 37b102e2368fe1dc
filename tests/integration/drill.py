"""The fault drill: a pipeline under fire, and an independent check of what it leaves behind."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from databases import ROOT, Server
from machines import Machine, Process, kill, wait_for
from restartable import ask

FOLDER = ROOT / "tests" / "integration"
MODULE = "drill_pipeline"
RETRIES = 1000  # nobody's fault here
#: How a run may end that nobody has killed: nothing is due, stopped.
ORDERLY = {0, 4}
#: How one may end whose process 1 was killed; 1 is what unshare makes of it.
KILLED = {-9, 137, 1}


@dataclass
class Drill:
    """One database and the machines that work on it."""

    server: Server
    prefix: str
    folder: Path
    machines: list[Machine] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    cut_off: int = 0  # machines that ended without a way to tell

    def environment(self, **changes: str) -> dict[str, str]:
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("DJ_", "WORKFLOW_"))
        }
        path = (changes.pop("PYTHONPATH", ""), str(ROOT), str(FOLDER))
        own = {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "OPENBLAS_NUM_THREADS": "1",
            "WORKFLOW_PREFIX": self.prefix,
            "WORKFLOW_MODULES": MODULE,
            "WORKFLOW_HEARTBEAT": "0.5",
            "WORKFLOW_GRACE": "1",
        }
        return inherited | self.server.environment() | own | changes

    def start(self, *, name: str = "", processes: int = 3, cable: bool = False, **changes: str) -> Machine:
        """Start a run, on a machine of its own if that has a name, at the end of a cable if it is to."""
        command = [sys.executable, "-m", "workflow", "run", "--processes", str(processes)]
        command += ["--retries", str(RETRIES)]
        log = self.folder / f"log-{len(self.machines)}.txt"
        if cable:
            changes["DJ_HOST"] = "127.0.0.1"
        target = ("127.0.0.1", self.server.port) if cable else None
        machine = Machine(command, self.environment(**changes), log, name, target)
        self.machines.append(machine)
        return machine

    def declare(self) -> None:
        """Have the tables made, by a run that finds nothing due."""
        machine = self.start(processes=1)
        assert machine.wait() == 0, machine.tail()

    def add(self, count: int) -> None:
        """Enter so many new items."""
        first = self.count("item")
        rows = ", ".join(f"({item})" for item in range(first, first + count))
        self.query(f"INSERT INTO {self.table('item')} (item) VALUES {rows}")

    def table(self, name: str, schema: str = MODULE) -> str:
        """A table as SQL names it; the plain names are those of the server."""
        quote = "`" if self.server.backend == "mysql" else '"'
        return f"{quote}{self.prefix}{schema}{quote}.{quote}{name}{quote}"

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the server, on a plain connection."""
        return ask(self.server, statement)

    def count(self, name: str) -> int:
        """How many rows a table has."""
        [(n,)] = self.query(f"SELECT COUNT(*) FROM {self.table(name)}")
        return int(n)

    def is_done(self) -> bool:
        """Whether the last table has everything."""
        return self.count("__second") == self.count("item")

    def finish(self) -> None:
        """Let the machines come to their end, then run once more, undisturbed."""
        for machine in self.machines:
            if machine.exit_code() is None:
                code = machine.wait()
                assert code in ORDERLY, f"exit code {code}: {machine.tail()}"
        last = self.start()
        assert last.wait() == 0, last.tail()


@dataclass
class Seat:
    """Where one run after the other is started, and ended by force."""

    drill: Drill
    name: str
    rng: random.Random
    machine: Machine | None = None
    expected: set[int] = field(default_factory=lambda: set(ORDERLY))

    def sit(self) -> Machine:
        """Have a run there: the one that was, or the next."""
        if self.machine is not None:
            code = self.machine.exit_code()
            if code is None:
                return self.machine
            assert code in self.expected, f"exit code {code}: {self.machine.tail()}"
            self.drill.restarts += 1
        self.machine, self.expected = self.drill.start(name=self.name), set(ORDERLY)
        return self.machine

    def strike(self, what: str) -> bool:
        """Kill something; whether there was anything to kill."""
        machine = self.sit()
        generations = machine.generations()
        if what == "worker":
            workers = generations[2] if len(generations) > 2 else []
            return bool(workers) and kill(self.rng.choice(workers))
        if len(generations) < 2:  # it has no nursery yet: nothing to lose
            return False
        if what == "nursery":
            return kill(generations[1][0])
        self.expected |= KILLED
        if what == "container":
            lost = machine.destroy()
        else:
            lost = [process for generation in generations for process in generation]
            kill(generations[0][0])
        await_end(lost)
        return True


def await_end(processes: list[Process]) -> None:
    """None of them may outlive the first."""
    wait_for(
        f"the end of {processes[1:]}, whose supervisor is dead",
        lambda: not any(process.is_alive() for process in processes),
    )
