"""The stop drill where the database goes: the machine is stopped, and the next round does what was left."""

from __future__ import annotations

import json
from pathlib import Path

from control_node import ControlNode
from databases import embedded_database, embedded_server
from ec2_support import until
from project import INSTANCE, Project, cloud, states
from shared_queue import SharedQueue


def test_a_database_that_is_lost_during_a_run(project: Project, tmp_path: Path) -> None:
    def given(seconds: str) -> dict[str, object]:
        environment = {
            "WORKFLOW_MODULES": "tests.round.slow_pipeline",
            "WORKFLOW_PATIENCE": "2",
            "WORKFLOW_HEARTBEAT": "0.5",
            "SLOW_SECONDS": seconds,
        }
        return {"round_environment": environment, "round_prepare_command": []}

    directory = tmp_path / "database"
    with cloud(tmp_path / "ec2") as ec2:
        node = ControlNode(project.command(tmp_path, given("1")), project.folder)
        try:
            node.says("slow_pipeline.Slow: ")
            queue = SharedQueue(directory, embedded_server(directory))
            held = until(queue.in_hand)
            assert embedded_database("stop", directory).returncode == 0
            assert node.end() == 2, node.output[-3000:]
        finally:
            if node.process.poll() is None:
                node.kill()
        assert "the connection to the database was lost" in " ".join(node.output.split()), node.output[-3000:]
        assert states(ec2) == {INSTANCE: "stopped"}
        [first] = (tmp_path / "artifacts").glob("*/summary.json")
        done = sum(table["done"] for table in json.loads(first.read_text())["tables"])

        assert embedded_database("start", directory).returncode == 0
        left = queue.keys()
        assert queue.findings() == []
        assert all(left[step] in {"pending", "reserved"} for step in held), left
        again = project.round(tmp_path, **given("0"))
        assert again.status == 0, again.output
        [table] = again.summary["tables"]
        assert table["failed"] == 0
        assert 0 < table["due"] == table["done"] <= 40 - done, "what was done is not due again, the rest is"
        assert queue.unfinished() == []
        assert embedded_database("stop", directory).returncode == 0
        assert states(ec2) == {INSTANCE: "stopped"}
