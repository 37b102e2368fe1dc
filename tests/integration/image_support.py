"""What the tests of the role workflow_image share: its call, a small clone, the copy of the real tree."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import docker
import pytest
from role_support import ROOT, Outcome, play

BASE = "python:3.11-slim-bookworm"
FACTS = tuple(
    f"workflow_image_{name}" for name in ("runtime_chosen", "runtime_reason", "reference", "interpreter")
)
COMMITS = [digit * 40 for digit in "abcdef"]


def certificates() -> str:
    """Name the file with this machine's certificates where one is set, for builds behind a proxy."""
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


def small_clone(folder: Path) -> Path:
    """Make a clone that is small: one requirement of the real ones, and a Dockerfile without packages."""
    (folder / "requirements").mkdir(parents=True)
    locked = (ROOT / "requirements" / "worker.txt").read_text()
    one = re.search(r"^pymysql==.*\n(?:[ ]+--hash.*\n)+", locked, re.MULTILINE)
    assert one, "requirements/worker.txt no longer has pymysql"
    (folder / "requirements" / "worker.txt").write_text(one[0])
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nARG COMMIT\nLABEL commit=${{COMMIT}}\n")
    return folder


def connect() -> docker.DockerClient:
    """Connect to the engine; without one the test fails in CI and is skipped elsewhere."""
    try:
        return docker.from_env()
    except docker.errors.DockerException as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to have a Docker engine (.ci/engine.sh starts one): {error}")
        pytest.skip(f"no Docker engine answers here: {error}")
