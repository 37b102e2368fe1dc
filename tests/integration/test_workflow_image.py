"""The role workflow_image and the Dockerfile: image and virtual environment, made for real on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from role_play import ROOT, Outcome, play

BASE = "python:3.11-slim-bookworm"
FACTS = tuple(
    f"workflow_image_{name}" for name in ("runtime_chosen", "runtime_reason", "reference", "interpreter")
)
COMMITS = [digit * 40 for digit in "abcdef"]
MEGABYTE = 1_000_000


def certificates() -> str:
    """Name the file with this machine's certificates where one is set, for builds behind an inspecting proxy."""
    named = (os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE"))
    return next((path for path in named if path and Path(path).is_file()), "")


def make(folder: Path, source: Path, environment: dict[str, str] | None = None, **inputs: Any) -> Outcome:
    """Run the role; names are given without their prefix."""
    given = {"source": str(source), "commit": COMMITS[0], "ca_bundle": certificates(), **inputs}
    return play(
        "workflow_image", folder, FACTS, environment, **{f"workflow_image_{k}": v for k, v in given.items()}
    )


def copy_tree(destination: Path) -> Path:
    """Copy the part of the repository that a build reads."""
    shutil.copytree(ROOT / "workflow", destination / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    (destination / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "worker.txt", destination / "requirements")
    for name in ("Dockerfile", ".dockerignore"):
        shutil.copy(ROOT / name, destination)
    return destination


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Make a clone that is small: one requirement of the real ones, and a Dockerfile without packages."""
    folder = tmp_path / "source"
    (folder / "requirements").mkdir(parents=True)
    locked = (ROOT / "requirements" / "worker.txt").read_text()
    one = re.search(r"^pymysql==.*\n(?:[ ]+--hash.*\n)+", locked, re.MULTILINE)
    assert one, "requirements/worker.txt no longer has pymysql"
    (folder / "requirements" / "worker.txt").write_text(one[0])
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nARG COMMIT\nLABEL commit=${{COMMIT}}\n")
    return folder


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to have a Docker engine (.ci/engine.sh starts one): {error}")
        pytest.skip(f"no Docker engine answers here: {error}")
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
    program = (
        "import os, matplotlib.pyplot, numpy.testing, pandas, psycopg2, pymysql, scipy.linalg, scipy.signal, workflow;"
        "matplotlib.pyplot.figure().savefig('/tmp/figure.png');"
        "print(os.getuid(), os.environ['HOME'], os.path.exists(workflow.__cached__), os.access('/app', os.W_OK))"
    )
    assert in_container(engine, built[1], "-c", program, entrypoint="python").split() == [
        "10001",
        "/tmp",
        "True",
        "False",
    ]


def test_the_certificates_stay_out_of_the_image(
    engine: docker.DockerClient, built: tuple[Path, Outcome]
) -> None:
    program = "import pathlib; print([str(p) for d in ('/app', '/opt', '/tmp') for p in pathlib.Path(d).rglob('ca-bundle*')])"
    assert in_container(engine, built[1], "-c", program, entrypoint="python").strip() == "[]"


def test_a_second_call_changes_nothing(built: tuple[Path, Outcome], image_name: str, tmp_path: Path) -> None:
    again = make(tmp_path, built[0], name=image_name, version="1.2.3")
    assert again.status == 0, again.output
    assert again.changed == 0
    assert again.facts == built[1].facts
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


def test_old_images_go_but_one_in_use_stays(
    engine: docker.DockerClient, source: Path, tmp_path: Path
) -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    container = None
    try:
        for commit in COMMITS[:4]:
            outcome = make(tmp_path, source, name=name, commit=commit, keep=2)
            assert outcome.status == 0, outcome.output
            container = container or engine.containers.create(f"{name}:{commit}", ["true"])
        tags = {tag for image in engine.images.list(name) for tag in image.tags}
        assert tags == {f"{name}:{commit}" for commit in (COMMITS[0], COMMITS[2], COMMITS[3])}
    finally:
        if container:
            container.remove()
        for image in engine.images.list(name):
            engine.images.remove(image.tags[0])


def test_another_base_builds_again(engine: docker.DockerClient, source: Path, tmp_path: Path) -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    label = 'LABEL org.opencontainers.image.base.name="${BASE_IMAGE}"'
    (source / "Dockerfile").write_text(f"ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\nARG BASE_IMAGE\n{label}\n")
    engine.images.get(BASE).tag(name, "base")
    try:
        assert make(tmp_path, source, name=name).changed > 0
        assert make(tmp_path, source, name=name).changed == 0
        assert make(tmp_path, source, name=name, base=f"{name}:base").changed > 0
        assert (
            engine.images.get(f"{name}:{COMMITS[0]}").labels["org.opencontainers.image.base.name"]
            == f"{name}:base"
        )
    finally:
        engine.images.remove(f"{name}:{COMMITS[0]}")
        engine.images.remove(f"{name}:base")


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        (f"FROM {BASE}\nRUN echo 'ERROR: no such thing' && exit 7\n", "step 2/2 (RUN echo 'ERROR: no such thing' && exit 7) failed: exit status 7: ERROR: no such thing; mend"),
        (f"FROM {BASE}\nCOPY nothing /\n", "step 2/2 (COPY nothing /) failed: COPY failed: file not found"),
        (f"FROM {BASE}\nNONSENSE\n", "dockerfile parse error line 2: "),
        ("FROM 127.0.0.1:1/nothing:1\n", "step 1/1 (FROM 127.0.0.1:1/nothing:1) failed: "),
    ],
)  # fmt: skip
def test_a_dockerfile_that_fails_is_named_with_the_step_and_a_fix(
    engine: docker.DockerClient, source: Path, tmp_path: Path, dockerfile: str, said: str
) -> None:
    (source / "Dockerfile").write_text(dockerfile)
    outcome = make(tmp_path, source, runtime="docker", name="test-fails")
    refusal = outcome.refusal()
    assert f"{source}/Dockerfile: {said}" in refusal
    assert refusal.endswith(("run again.", "another in workflow_image_base."))
    assert not engine.images.list("test-fails")


def test_the_last_lines_of_a_failed_build_are_shown(
    engine: docker.DockerClient, source: Path, tmp_path: Path
) -> None:
    (source / "Dockerfile").write_text(f"FROM {BASE}\nRUN seq --format=printed%g 100 && false\n")
    outcome = make(tmp_path, source, runtime="docker", name="test-fails")
    assert '"printed100"' in outcome.output
    assert '"printed50"' not in outcome.output
    assert "exit status 1: printed100;" not in outcome.refusal()  # the engine's own last word follows it


def test_a_full_disk_is_refused_before_building(
    engine: docker.DockerClient, source: Path, tmp_path: Path
) -> None:
    outcome = make(tmp_path, source, runtime="docker", name="test-full", minimum_free_mb=10**9)
    assert re.search(
        r"Only \d+ MB free on /.*; .* needs 1000000000 MB .*docker image prune\.$", outcome.refusal()
    )
    assert not engine.images.list("test-full")


@pytest.fixture
def no_engine(tmp_path: Path) -> dict[str, str]:
    return {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}


def test_auto_makes_a_virtual_environment_where_no_engine_answers(
    source: Path, tmp_path: Path, no_engine: dict[str, str]
) -> None:
    outcome = make(tmp_path, source, no_engine, venv_directory=str(tmp_path / "venv"))
    assert outcome.status == 0, outcome.output
    assert outcome.facts["workflow_image_runtime_chosen"] == "venv"
    assert outcome.facts["workflow_image_runtime_reason"].endswith(
        "; the worker runs in a virtual environment instead"
    )
    assert outcome.facts["workflow_image_reference"] == ""
    interpreter = outcome.facts["workflow_image_interpreter"]
    assert Path(interpreter).is_relative_to(tmp_path / "venv")
    subprocess.run([interpreter, "-c", "import pymysql"], check=True)

    again = make(tmp_path, source, no_engine, venv_directory=str(tmp_path / "venv"))
    assert again.changed == 0
    assert again.facts == outcome.facts


def test_docker_is_refused_where_no_engine_answers(
    source: Path, tmp_path: Path, no_engine: dict[str, str]
) -> None:
    refusal = make(tmp_path, source, no_engine, runtime="docker").refusal()
    assert "docker is demanded, but no Docker engine answers: its socket does not exist" in refusal
    assert refusal.endswith("set workflow_image_runtime to auto or venv.")


def test_an_interrupted_installation_is_done_again_and_old_ones_go(source: Path, tmp_path: Path) -> None:
    venvs = tmp_path / "venv"
    outcome = make(tmp_path, source, runtime="venv", venv_directory=str(venvs))
    interpreter = Path(outcome.facts["workflow_image_interpreter"])
    shutil.rmtree(interpreter.parents[1] / "lib")
    (interpreter.parents[1] / "complete").unlink()
    for age, name in enumerate(("python3.11.0-older", "python3.11.0-oldest"), start=1):
        (venvs / name).mkdir()
        os.utime(venvs / name, (0, 2_000_000 - age * 1_000_000))

    outcome = make(tmp_path, source, runtime="venv", venv_directory=str(venvs))
    assert outcome.status == 0, outcome.output
    subprocess.run([interpreter, "-c", "import pymysql"], check=True)
    assert {path.name for path in venvs.iterdir()} == {interpreter.parents[1].name, "python3.11.0-older"}


def test_a_failed_installation_is_explained_and_never_taken_for_complete(
    source: Path, tmp_path: Path
) -> None:
    requirements = source / "requirements" / "worker.txt"
    requirements.write_text(re.sub("sha256:.{64}", f"sha256:{'0' * 64}", requirements.read_text()))
    for _ in range(2):
        outcome = make(tmp_path, source, runtime="venv", venv_directory=str(tmp_path / "venv"))
        refusal = outcome.refusal()
        assert f"{requirements}: ERROR: THESE PACKAGES DO NOT MATCH THE HASHES" in refusal
        assert refusal.endswith("use an index that serves the locked files.")
        assert "Expected sha256" in outcome.output
        assert not list((tmp_path / "venv").glob("*/complete"))


def test_a_full_disk_is_refused_before_installing(source: Path, tmp_path: Path) -> None:
    venvs = tmp_path / "venv"
    refusal = make(
        tmp_path, source, runtime="venv", venv_directory=str(venvs), minimum_free_mb=10**9
    ).refusal()
    assert refusal.endswith("name a directory on another disk in workflow_image_venv_directory.")
    assert not list(venvs.iterdir())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"version": "3.9.2", "enough": false, "ensurepip": true}', "is Python 3.9.2, but the worker needs 3.11 or newer"),
        ('{"version": "3.11.2", "enough": true, "ensurepip": false}', "cannot make virtual environments"),
        (None, "cannot be run on this host"),
    ],
)  # fmt: skip
def test_an_unfit_interpreter_is_refused(source: Path, tmp_path: Path, answer: str | None, said: str) -> None:
    python = tmp_path / "python"
    if answer:
        python.write_text(f"#!/bin/sh\necho '{answer}'\n")
        python.chmod(0o755)
    venvs = tmp_path / "venv"
    refusal = make(tmp_path, source, runtime="venv", python=str(python), venv_directory=str(venvs)).refusal()
    assert f"workflow_image_python: {python} {said}; install Python 3.11" in refusal
    assert not venvs.exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"runtime": "podman"},
            "value of workflow_image_runtime must be one of: auto, docker, venv, got: podman",
        ),
        ({"commit": "main"}, "workflow_image_commit: 'main' is not a commit id"),
        ({"source": "/nowhere"}, "workflow_image_source: /nowhere has no requirements/worker.txt"),
        ({"ca_bundle": "/nowhere.crt"}, "workflow_image_ca_bundle: /nowhere.crt is not a file on this host"),
    ],
)
def test_wrong_inputs_are_refused(source: Path, tmp_path: Path, wrong: dict[str, str], said: str) -> None:
    given = {"runtime": "venv", "venv_directory": str(tmp_path / "venv"), "source": source, **wrong}
    outcome = make(tmp_path, **{**given, "source": Path(given["source"])})
    assert outcome.status == 2, outcome.output
    assert said in outcome.output
    assert not (tmp_path / "venv").exists()


def test_credentials_in_addresses_are_not_shown(
    tmp_path: Path, engine: docker.DockerClient, source: Path
) -> None:
    (source / "Dockerfile").write_text(
        f"FROM {BASE}\nARG HTTPS_PROXY\nRUN echo at ${{HTTPS_PROXY}} && false\n"
    )
    proxy = {"HTTPS_PROXY": "http://someone:swordfish@127.0.0.1:1"}
    outcome = make(tmp_path, source, runtime="docker", name="test-fails", build_args=proxy)
    assert '"at http://…@127.0.0.1:1"' in outcome.output
    assert "swordfish" not in outcome.output
