"""The Dockerfile and the role workflow_image: the real image, built from the real tree."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from image_support import BASE, COMMITS, Outcome, connect, copy_tree, make

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = connect()
    yield client
    client.close()


@pytest.fixture(scope="module")
def image_name(engine: docker.DockerClient) -> Iterator[str]:
    """Give a name of our own to the images that tests build, and remove them at the end."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    for image in engine.images.list(name):
        for tag in image.tags:
            if tag.startswith(f"{name}:"):
                engine.images.remove(tag)


@pytest.fixture(scope="module")
def built(
    engine: docker.DockerClient, image_name: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """Build the real Dockerfile from the real tree, once."""
    folder = tmp_path_factory.mktemp("built")
    source = copy_tree(folder / "source")
    return source, make(folder, source, name=image_name, version="1.2.3")


def test_auto_builds_the_image_where_an_engine_answers(built: tuple[Path, Outcome], image_name: str) -> None:
    _, outcome = built
    assert outcome.status == 0, outcome.output
    assert outcome.facts["workflow_image_runtime_chosen"] == "docker"
    assert re.fullmatch(r"Docker Engine \S+ answers", outcome.facts["workflow_image_runtime_reason"])
    assert outcome.facts["workflow_image_reference"] == f"{image_name}:{COMMITS[0]}"
    assert outcome.facts["workflow_image_interpreter"] == ""


def test_the_image_is_labelled_unprivileged_and_small(
    engine: docker.DockerClient, built: tuple[Path, Outcome]
) -> None:
    image = engine.images.get(built[1].facts["workflow_image_reference"])
    assert image.labels["org.opencontainers.image.revision"] == COMMITS[0]
    assert image.labels["org.opencontainers.image.version"] == "1.2.3"
    assert image.labels["org.opencontainers.image.base.name"] == BASE
    assert image.attrs["Config"]["User"] == "10001:10001"
    added = image.attrs["Size"] - engine.images.get(BASE).attrs["Size"]
    assert added <= 450 * MEGABYTE


def in_container(engine: docker.DockerClient, outcome: Outcome, *command: str, **options: Any) -> str:
    """Run a command in the image as a round does: nothing writable but /tmp, no capability, no network."""
    printed = engine.containers.run(
        outcome.facts["workflow_image_reference"],
        list(command),
        **options,
        cap_drop=["ALL"],
        init=True,
        network_mode="none",
        read_only=True,
        remove=True,
        tmpfs={"/tmp": ""},
    )
    return str(printed, "utf-8")


def test_the_command_line_runs_read_only(engine: docker.DockerClient, built: tuple[Path, Outcome]) -> None:
    assert "run_workflow" in in_container(engine, built[1])  # --help is what it does unless told otherwise


def test_the_libraries_work_read_only_and_the_code_is_compiled(
    engine: docker.DockerClient, built: tuple[Path, Outcome]
) -> None:
    program = """
import os, matplotlib.pyplot, numpy.testing, pandas, psycopg2, pymysql, scipy.linalg, scipy.signal, workflow
matplotlib.pyplot.figure().savefig("/tmp/figure.png")
print(os.getuid(), os.environ["HOME"], os.path.exists(workflow.__cached__), os.access("/app", os.W_OK))
"""
    printed = in_container(engine, built[1], "-c", program, entrypoint="python")
    assert printed.split() == ["10001", "/tmp", "True", "False"]


def test_the_certificates_stay_out_of_the_image(
    engine: docker.DockerClient, built: tuple[Path, Outcome]
) -> None:
    program = """
import pathlib
print([str(path) for top in ("/app", "/opt", "/tmp") for path in pathlib.Path(top).rglob("ca-bundle*")])
"""
    assert in_container(engine, built[1], "-c", program, entrypoint="python").strip() == "[]"


def test_a_second_call_changes_nothing(built: tuple[Path, Outcome], image_name: str, tmp_path: Path) -> None:
    again = make(tmp_path, built[0], name=image_name, version="1.2.3")
    assert again.status == 0, again.output
    assert again.changed == 0
    assert again.facts == built[1].facts
    assert "Build the image]" in built[1].output
    assert "Build the image]" not in again.output


def test_new_code_reuses_the_layer_of_the_dependencies(
    engine: docker.DockerClient, built: tuple[Path, Outcome], image_name: str, tmp_path: Path
) -> None:
    source = copy_tree(tmp_path / "source")
    (source / "workflow" / "new_module.py").write_text('"""A change."""\n')
    outcome = make(tmp_path, source, name=image_name, commit=COMMITS[1])
    assert outcome.status == 0, outcome.output
    before, after = (
        engine.images.get(f"{image_name}:{commit}").attrs["RootFS"]["Layers"] for commit in COMMITS[:2]
    )
    dependencies = (
        len(engine.images.get(BASE).attrs["RootFS"]["Layers"]) + 2
    )  # copied requirements, installed
    assert before[:dependencies] == after[:dependencies]
    assert before[-1] != after[-1]
