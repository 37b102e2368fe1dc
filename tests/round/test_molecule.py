"""The Molecule scenarios, run as a role developer runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from project import Project

SCENARIOS = sorted(path.parent.name for path in Path(__file__).parents[2].glob("molecule/*/molecule.yml"))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(project: Project, scenario: str, tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    run = subprocess.run(
        [programs / "molecule", "test", "--scenario-name", scenario],
        cwd=project.folder,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    output = re.sub(r"\x1b\[[0-9;]*m", "", run.stdout + run.stderr)
    assert f"{scenario} ➜ verify: Executed: Successful" in output
