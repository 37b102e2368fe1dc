"""One clone and one sandbox for all rounds that need none of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from project import Project, clone


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh clone of this tree."""
    origin = Project(clone(tmp_path_factory.mktemp("origin")), Path())
    origin.git("init", "--quiet", "--initial-branch=main")
    origin.git("add", "--all")
    origin.git("commit", "--quiet", "--message=The tree under test")
    folder = tmp_path_factory.mktemp("clone")
    made = Project(folder, folder / ".sandbox" / "venv")
    made.git("clone", "--quiet", str(origin.folder), ".")
    made.git("commit", "--quiet", "--allow-empty", "--message=A commit that only the clone has")
    return made


@pytest.fixture(scope="session")
def sandbox(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sandbox on which one round has been run, so that nothing is due."""
    home = tmp_path_factory.mktemp("sandbox")
    first = project.round(home)
    assert first.status == 0, first.output
    tables = {t["table"]: (t["due"], t["done"], t["failed"], t["skipped"]) for t in first.summary["tables"]}
    assert tables["svd.PopulationSVD"] == (22, 21, 0, 1)
    assert all(due == done + skipped > 0 for due, done, _, skipped in tables.values())
    (home / "first.log").write_text(first.output)
    shutil.copytree(first.artifacts or home, home / "first")
    return home
