"""The role workflow_image: virtual environments, and inputs that are refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from image_support import COMMITS, make, small_clone
from role_support import Outcome


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small_clone(tmp_path / "source")


NO_ENGINE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Make a virtual environment where no engine answers, once."""
    folder = tmp_path_factory.mktemp("made")
    source = small_clone(folder / "source")
    return folder, make(folder, source, NO_ENGINE, venv_directory=str(folder / "venv"))


def test_auto_makes_a_virtual_environment_where_no_engine_answers(made: tuple[Path, Outcome]) -> None:
    folder, outcome = made
    assert outcome.status == 0, outcome.output
    assert outcome.facts["workflow_image_runtime_chosen"] == "venv"
    assert outcome.facts["workflow_image_runtime_reason"].endswith(
        "; the worker runs in a virtual environment instead"
    )
    assert outcome.facts["workflow_image_reference"] == ""
    interpreter = outcome.facts["workflow_image_interpreter"]
    assert Path(interpreter).is_relative_to(folder / "venv")
    subprocess.run([interpreter, "-c", "import pymysql"], check=True)


def test_another_commit_with_the_same_requirements_changes_nothing(made: tuple[Path, Outcome]) -> None:
    folder, outcome = made
    again = make(folder, folder / "source", NO_ENGINE, commit=COMMITS[1], venv_directory=str(folder / "venv"))
    assert again.changed == 0
    assert again.facts == outcome.facts


def test_an_interrupted_installation_is_done_again_and_old_ones_go(made: tuple[Path, Outcome]) -> None:
    folder, outcome = made
    interpreter = Path(outcome.facts["workflow_image_interpreter"])
    venvs = interpreter.parents[2]
    shutil.rmtree(interpreter.parents[1] / "lib")
    (interpreter.parents[1] / "complete").unlink()
    for name, changed in (("python3.11.0-older", 1_000_000), ("python3.11.0-oldest", 0)):
        (venvs / name).mkdir()
        os.utime(venvs / name, (0, changed))

    again = make(folder, folder / "source", runtime="venv", venv_directory=str(venvs))
    assert again.status == 0, again.output
    subprocess.run([interpreter, "-c", "import pymysql"], check=True)
    assert {path.name for path in venvs.iterdir()} == {interpreter.parents[1].name, "python3.11.0-older"}


def test_docker_is_refused_where_no_engine_answers(source: Path, tmp_path: Path) -> None:
    refusal = make(tmp_path, source, NO_ENGINE, runtime="docker").refusal()
    assert "docker is demanded, but no Docker engine answers: its socket does not exist" in refusal
    assert refusal.endswith("set workflow_image_runtime to auto or venv.")


def test_a_failed_installation_is_explained_and_never_taken_for_complete(
    source: Path, tmp_path: Path
) -> None:
    requirements = source / "requirements" / "worker.txt"
    requirements.write_text(re.sub("sha256:.{64}", f"sha256:{'0' * 64}", requirements.read_text()))
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
    assert re.search(r"Only \d+ MB free on /", refusal)
    assert not venvs.exists()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"version": "3.9.2", "enough": false}', "is Python 3.9.2, but the worker needs 3.11 or newer"),
        ('{"version": "3.11.2", "enough": true, "ensurepip": false}', "cannot make virtual environments"),
        (None, "cannot be run on this host"),
    ],
)
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
