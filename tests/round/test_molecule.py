"""The Molecule scenarios, run as a role developer runs them: `molecule test --all`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from project import Project

SCENARIOS = sorted(path.parent.name for path in Path(__file__).parents[2].glob("molecule/*/molecule.yml"))
PATIENCE = 1700.0  # s, for all of them


def molecule(project: Project, folder: Path, *which: str) -> str:
    """Test scenarios; return what was said."""
    programs = Path(sys.executable).parent
    run = subprocess.run(
        [programs / "molecule", "test", *which],
        cwd=project.folder,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "MOLECULE_EPHEMERAL_DIRECTORY": str(folder),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return re.sub(r"\x1b\[[0-9;]*m", "", run.stdout + run.stderr) + f"\nexit status {run.returncode}"


@pytest.fixture(scope="module")
def everything(project: Project, tmp_path_factory: pytest.TempPathFactory) -> str:
    return molecule(project, tmp_path_factory.mktemp("molecule"), "--all")


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(project: Project, everything: str, scenario: str, tmp_path: Path) -> None:
    """Molecule ends with the first that fails: those after it are then tried one by one."""
    said = everything
    if f"{scenario} ➜ cleanup: Execut" not in said:
        assert not said.endswith("\nexit status 0"), f"{scenario} was left out: {said[-2000:]}"
        said = molecule(project, tmp_path, "--scenario-name", scenario)
        assert said.endswith("\nexit status 0"), said[-6000:]
    assert f"{scenario} ➜ verify: Executed: Successful" in said, said[-6000:]


def test_all_scenarios_together(everything: str) -> None:
    assert everything.endswith("\nexit status 0"), everything[-6000:]
