"""`make clean` stops what runs before it removes it, whether or not there is a virtual environment."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from databases import ROOT, database_folder
from embedded_support import postmaster, started


@pytest.fixture
def project() -> Iterator[Path]:
    """A project with the script alone, in a folder that the server's user may pass through."""
    with database_folder() as database:
        folder = database.with_name("project")
        (folder / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "clean", folder / "scripts")
        (folder / "artifacts").mkdir()
        yield folder


def clean(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([project / "scripts" / "clean"], capture_output=True, text=True, check=False)


def left(project: Path) -> list[str]:
    return sorted(path.name for path in project.iterdir())


def lives(process: psutil.Process) -> bool:
    """Whether it still runs; where nobody collects the dead, they stay as zombies."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_running_database_is_stopped_without_a_virtual_environment(project: Path) -> None:
    database = project / ".sandbox" / "database"
    database.parent.mkdir()
    started(database)
    server = postmaster(database)
    everything = [server, *server.children(recursive=True)]
    done = clean(project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not [process for process in everything if lives(process)]
    assert left(project) == ["scripts"]


def test_a_number_that_is_now_another_programs_is_left_alone(project: Path) -> None:
    data = project / ".sandbox" / "database" / "data"
    data.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as other:
        (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n")
        assert clean(project).returncode == 0
        assert lives(psutil.Process(other.pid))
        other.kill()
    assert left(project) == ["scripts"]


def test_machines_are_not_forgotten_for_want_of_a_virtual_environment(project: Path) -> None:
    network = project / ".sandbox" / "ec2" / "network.json"
    network.parent.mkdir(parents=True)
    network.write_text("{}")
    done = clean(project)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("clean: removing the machines of .sandbox needs .venv: run scripts/setup ")
    assert network.exists()
    assert left(project) == [".sandbox", "artifacts", "scripts"]
