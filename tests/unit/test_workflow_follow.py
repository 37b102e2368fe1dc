"""The action plugin that takes the results home, on a connection that is lost meanwhile."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

sys.path.insert(0, str(Path(__file__).parents[2] / "roles" / "workflow_run" / "action_plugins"))
import workflow_follow


class Worker:
    """A connection that fails some times before a file comes home."""

    def __init__(self, failures: int) -> None:
        self.failures, self.resets = failures, 0

    def fetch_file(self, there: str, here: str) -> None:
        if self.failures:
            self.failures -= 1
            raise AnsibleConnectionFailure("Failed to connect to the host via ssh: connection reset")
        Path(here).write_text(there)

    def reset(self) -> None:
        self.resets += 1


def follower(worker: Worker, patience: float) -> Any:
    """The plugin, as far as it is at the end of a run whose results are there."""
    made = workflow_follow.ActionModule(SimpleNamespace(), worker, None, None, None, None)
    made._me, made._host, made._patience = "me", "cpu1", patience
    made._low_level_execute_command = lambda _: {"rc": 0, "stdout": "log.txt\nsummary.json\n", "stderr": ""}
    return made


def test_results_come_home_on_a_connection_that_is_lost_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_follow.time, "sleep", lambda _: None)
    worker = Worker(failures=2)
    found = follower(worker, 60)._collect("/rounds/r1", tmp_path / "artifacts")
    assert found == ["log.txt", "summary.json"]
    assert worker.resets == 2
    for name in found:
        assert (tmp_path / "artifacts" / name).read_text() == f"/rounds/r1/output/{name}"


def test_a_connection_that_stays_lost_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"was lost for 0 s .*connection reset"):
        follower(Worker(failures=99), 0)._collect("/rounds/r1", tmp_path)
