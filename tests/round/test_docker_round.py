"""Rounds in runtime docker: the container's limits, and a build that fails."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from project import INSTANCE, Project, cloud, states

from workflow import __version__

WATCH = """
for try in $(seq 1800); do
    container=$(docker ps --quiet --filter label=datajoint-round)
    [ -z "$container" ] || exec docker inspect $container
    sleep 0.1
done
"""


@pytest.fixture(scope="module")
def ec2(sandbox: Path) -> Iterator[Any]:
    with cloud(sandbox / "ec2") as client:
        yield client


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    """The engine; without one the test fails in CI and is skipped elsewhere."""
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to have a Docker engine (.ci/engine.sh starts one): {error}")
        pytest.skip(f"no Docker engine answers here: {error}")
    yield client
    client.close()


def test_a_round_in_a_container(
    project: Project, sandbox: Path, engine: docker.DockerClient, ec2: Any
) -> None:
    """The image carries the commit; the container is confined, sees the database, and is gone afterwards."""
    watched = subprocess.Popen(
        ["sh", "-c", WATCH],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        done = project.round(sandbox, workflow_image_runtime="auto")
        seen, _ = watched.communicate(timeout=10)
    finally:
        watched.kill()
        watched.communicate()
    assert done.status == 0, done.output
    assert "Runtime docker: Docker Engine" in done.output
    assert done.summary["verdict"] == "succeeded"
    [container] = json.loads(seen)
    assert container["Config"]["User"] not in ("", "0", "root")
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["HostConfig"]["Init"]
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    password = (sandbox / "database" / "password").read_text().strip()
    assert password not in seen
    commit = project.git("rev-parse", "HEAD")
    image = engine.images.get(f"datajoint-round:{commit}")
    assert image.labels["org.opencontainers.image.revision"] == commit
    assert image.labels["org.opencontainers.image.version"] == __version__
    assert container["Image"] == image.id
    assert not engine.containers.list(all=True, filters={"label": f"datajoint-round={done.summary['round']}"})
    assert states(ec2) == {INSTANCE: "stopped"}


def test_a_dockerfile_that_fails_shows_the_end_of_the_build(
    project: Project, sandbox: Path, engine: docker.DockerClient, ec2: Any
) -> None:
    """The step that failed and its last lines are shown; the machine is stopped."""
    assert engine.ping()
    good = project.git("rev-parse", "HEAD")
    dockerfile = project.folder / "Dockerfile"
    base = next(line for line in dockerfile.read_text().splitlines() if line.startswith("FROM"))
    dockerfile.write_text(f"ARG BASE_IMAGE\n{base}\nRUN echo almost there && exit 42\n")
    project.git("commit", "--all", "--quiet", "--message=A broken Dockerfile")
    try:
        failed = project.round(sandbox, workflow_image_runtime="docker")
    finally:
        project.git("reset", "--hard", "--quiet", good)
    assert failed.status == 2
    assert "almost there" in failed.output
    assert "42" in failed.reason()
    assert "Dockerfile" in failed.reason()
    assert states(ec2) == {INSTANCE: "stopped"}
