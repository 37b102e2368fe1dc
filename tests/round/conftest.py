"""One clone and one sandbox for all rounds that need none of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from project import Project, clone


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh clone of this tree."""
    folder = tmp_path_factory.mktemp("clone")
    made = Project(clone(folder), tmp_path_factory.mktemp("environments"))
    made.git("init", "--quiet", "--initial-branch=main")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message=The tree under test")
    return made


@pytest.fixture(scope="session")
def sandbox(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sandbox on which one round has been run, so that nothing is due."""
    home = tmp_path_factory.mktemp("sandbox")
    first = project.round(home)
    assert first.status == 0, first.output
    assert [(t["due"], t["done"], t["skipped"]) for t in first.summary["tables"]] == [(22, 21, 1)]
    (home / "first.log").write_text(first.output)
    shutil.copytree(first.artifacts or home, home / "first")
    return home
