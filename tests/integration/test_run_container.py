"""The container of a run on this machine: what it may do, and an engine that refuses it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from image_support import BASE, connect
from local_rounds import Rounds
from role_support import Outcome, play

ROUND = "20260101T000000Z-0123456-test"
LOOK = r"""
id -u; hostname; grep -E '^(CapBnd|NoNewPrivs):' /proc/self/status; cat /proc/1/comm
printf '%s\n' "$AWKWARD"; echo "<$EMPTY>"; echo "$WORKFLOW_ROUND $WORKFLOW_IMAGE"
cat /run/secrets/datajoint/user
for place in / /output /tmp /run/secrets/datajoint "$MOUNTED"; do
    if touch "$place/x" 2>/dev/null; then echo "writes $place"; fi
done
ls "$MOUNTED"; cat /sys/class/net/*/address; echo "$@"
"""


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    client = connect()
    yield client
    client.close()


def run(folder: Path, surroundings: dict[str, str] | None = None, **inputs: Any) -> Outcome:
    """Run the role with a shell for a worker, and follow it to its end."""
    (folder / "rounds" / ROUND / "secrets").mkdir(parents=True)
    (folder / "rounds" / ROUND / "secrets" / "user").write_text("someone\n")
    given = {
        "round": ROUND,
        "directory": str(folder / "rounds" / ROUND),
        "secrets": str(folder / "rounds" / ROUND / "secrets"),
        "artifacts": str(folder / "artifacts"),
        "runtime": "docker",
        "image": BASE,
        "arguments": ["sh", "-c", LOOK, "look"],
        "container_user": str(os.getuid()),
        "container_network": "none",
        **inputs,
    }
    own = Rounds(folder / "home").environment | (surroundings or {})
    facts = ("workflow_run_exit_code",)
    return play("workflow_run", folder, facts, own, **{f"workflow_run_{k}": v for k, v in given.items()})


def test_the_container_is_confined_and_gone_in_the_end(engine: docker.DockerClient, tmp_path: Path) -> None:
    mounted = tmp_path / "a folder"
    mounted.mkdir()
    (mounted / "file").touch()
    awkward = 'it\'s  $HOME "100%" \\1'
    outcome = run(
        tmp_path,
        environment={"AWKWARD": awkward, "EMPTY": "", "MOUNTED": str(mounted)},
        container_mounts=[str(mounted)],
    )
    assert outcome.status == 0, outcome.output
    assert (tmp_path / "artifacts" / "log.txt").read_text().splitlines() == [
        str(os.getuid()),
        "localhost",
        *("CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "docker-init"),
        *(awkward, "<>", f"{ROUND} {BASE}", "someone"),
        *("writes /output", "writes /tmp"),
        *("file", "00:00:00:00:00:00"),
        "--output /output",
    ]
    assert not engine.containers.list(all=True, filters={"label": f"datajoint-round={ROUND}"})


@pytest.mark.parametrize(
    ("inputs", "surroundings", "said"),
    [
        ({"image": "test-nowhere:1"}, {}, "Error response from daemon: No such image: test-nowhere:1."),
        (
            {},
            {"DOCKER_HOST": "unix:///nowhere/docker.sock"},
            "Cannot connect to the Docker daemon at unix:///",
        ),
    ],
)
def test_a_container_that_cannot_be_created_is_told_in_one_line(
    engine: docker.DockerClient,
    tmp_path: Path,
    inputs: dict[str, str],
    surroundings: dict[str, str],
    said: str,
) -> None:
    refusal = run(tmp_path, surroundings, **inputs).refusal()
    assert "The run was not launched: the container could not be created: " in refusal
    assert said in refusal
    assert not (tmp_path / "rounds" / ROUND / "launcher").exists()


def test_an_engine_that_does_not_answer_is_told(tmp_path: Path) -> None:
    """A second stands for the minute that the engine has."""
    rounds = Rounds(tmp_path / "home")
    shims = {"docker": "exec sleep 300", "timeout": 'shift 2\nPATH=${PATH#*:} exec timeout 1 "$@"'}
    for name, script in shims.items():
        (tmp_path / "shims" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "shims" / name).chmod(0o755)
    refused = rounds.launch("r1", str(tmp_path / "shims" / "docker"), "create", container="round")
    assert refused.returncode == 1
    assert "could not be created: the Docker engine does not answer: see journalctl" in refused.stderr


def test_a_machine_without_docker_is_told(tmp_path: Path) -> None:
    refused = Rounds(tmp_path / "home").launch("r1", "/nowhere/docker", "create", container="round")
    assert refused.returncode == 1
    assert "the container could not be created: timeout: failed to run command" in refused.stderr
