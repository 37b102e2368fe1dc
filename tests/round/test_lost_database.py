"""The stop drill where the database goes: the machine is stopped, and the next round does what was left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from control_node import ControlNode
from project import Project, machine_state


def test_a_database_that_is_lost_during_a_run(project: Project, tmp_path: Path) -> None:
    def given(seconds: str) -> dict[str, object]:
        environment = {
            "WORKFLOW_MODULES": "tests.round.slow_pipeline",
            "WORKFLOW_PATIENCE": "2",
            "SLOW_SECONDS": seconds,
        }
        return {"round_environment": environment, "round_prepare_command": []}

    node = ControlNode(project.command(tmp_path, given("1")), project.folder)
    try:
        node.says("slow_pipeline.Slow: ")
        program = project.folder / "roles" / "embedded_database" / "files" / "embedded_database.py"
        subprocess.run([sys.executable, program, "stop", "--directory", tmp_path / "database"], check=True)
        assert node.end() == 2, node.output[-3000:]
    finally:
        if node.process.poll() is None:
            node.kill()
    assert "the connection to the database was lost" in " ".join(node.output.split()), node.output[-3000:]
    assert machine_state(tmp_path)["state"] == "stopped"
    [first] = (tmp_path / "artifacts").glob("*/summary.json")
    done = sum(table["done"] for table in json.loads(first.read_text())["tables"])

    again = project.round(tmp_path, **given("0"))
    assert again.status == 0, again.output
    [table] = again.summary["tables"]
    assert table["failed"] == 0
    assert 0 < table["due"] == table["done"] <= 40 - done, "what was done is not due again, the rest is"
