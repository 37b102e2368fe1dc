"""What a worker may use: memory that runs out, threads of linear algebra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import ROOT, Server
from toy import Toy

from workflow.populate import machine

pytest_plugins = ("databases",)

BASE = "python:3.11-slim-bookworm"


@pytest.fixture
def toy(postgresql_server: Server, schemas: Callable[[Server], str], tmp_path: Path) -> Toy:
    return Toy(postgresql_server, schemas(postgresql_server), tmp_path)


def test_workers_share_the_cores(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of linear algebra times workers are the cores, where nobody has chosen a number."""
    for name in machine.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Toy, "environment", _without_threads(Toy.environment))
    toy.insert(range(2))
    for processes in (1, machine.cores()):
        toy.run("--tables", "Threads", "--processes", str(processes))
        threads = toy.execute("answer = [row['threads'] for row in Threads.to_dicts()]")
        assert threads == [max(1, machine.cores() // processes)] * 2
        toy.execute("Threads.delete()")


def _without_threads(environment: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    def changed(toy: Toy, **changes: str) -> dict[str, str]:
        chosen = environment(toy, **changes)
        return {name: value for name, value in chosen.items() if name not in machine.THREAD_VARIABLES}

    return changed


def test_memory_that_runs_out_is_one_failed_key(toy: Toy) -> None:
    """The kernel kills the worker of a container that takes too much; the rest is done."""
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has to have a Docker engine: .ci/engine.sh starts one")
        pytest.skip("no Docker engine answers here, whose containers have limited memory")
    toy.insert(range(1, 3))
    toy.insert(range(900, 901))
    environment = toy.environment()
    limits = ["--memory=450m", "--memory-swap=450m", "--network=host", "--pid=host"]
    arguments = ["run", "--json", "--tables", "Large", "--processes", "1", "--retries", "1"]
    done = subprocess.run(
        [
            *("docker", "run", "--rm", "--volume=/:/host", "--entrypoint=chroot", *limits),
            *(f"--env={name}={value}" for name, value in environment.items()),
            *(BASE, "/host", sys.executable, "-m", "workflow", *arguments),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    outcomes = {
        key["key"]["number"]: (key["outcome"], key["reason"]) for key in json.loads(done.stdout)["keys"]
    }
    assert outcomes[1] == outcomes[2] == ("done", "")
    assert outcomes[900][0] == "failed"
    assert (
        "attempt 2: the worker was killed (SIGKILL) by the kernel, which was out of memory"
        in outcomes[900][1]
    )
