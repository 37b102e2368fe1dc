"""The round of `make rehearse`: over SSH, on an emulated machine that boots and powers itself off."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ec2_machines import BASE, engine_or_skip, left, machine_image, remove
from ec2_support import describe
from project import Project, cloud

WORKER = "i-0000000000000a001"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    engine_or_skip()
    made = tmp_path_factory.mktemp("rehearsal")
    yield made
    remove(made / "ec2")
    assert left(made / "ec2") == []


def rehearse(project: Project, home: Path) -> tuple[str, dict[str, Any]]:
    """Run a round; return what was said and the worker's summary."""
    done = project.round(home, "rehearsal", workflow_image_runtime="docker")
    assert done.status == 0, done.output
    assert done.artifacts
    found = done.artifacts / "rehearsal1"
    assert sorted(path.name for path in found.iterdir()) == ["log.txt", "report.html", "summary.json"]
    return done.output, json.loads((found / "summary.json").read_text())


def test_a_rehearsal_computes_all_and_the_next_one_finds_nothing_due(project: Project, home: Path) -> None:
    first, summary = rehearse(project, home)
    assert summary["verdict"] == "succeeded"
    assert summary["commit"] == project.git("rev-parse", "HEAD"), "a commit that only the clone has"
    assert sum(table["done"] for table in summary["tables"]) > 0
    assert summary["database"]["host"] != "127.0.0.1"
    pinned = (home / "known_hosts").read_text()
    assert all(line.startswith(f"{WORKER} ") for line in pinned.splitlines())
    password = (home / "database" / "password").read_text().strip()
    assert password not in first

    options = ("--backend=container", f"--image={machine_image(BASE)}", f"--key-file={home / 'ssh_key'}")
    with cloud(home / "ec2", [{"id": WORKER}], *options, "--grace=20") as ec2:
        assert describe(ec2, WORKER)["State"]["Name"] == "stopped"
        again, summary = rehearse(project, home)
        found = describe(ec2, WORKER)
    assert found["State"]["Name"] == "stopped"
    assert found["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert summary["message"] == "nothing was due"
    assert (home / "known_hosts").read_text() == pinned
    assert re.search(r"Runtime docker: ", again)
