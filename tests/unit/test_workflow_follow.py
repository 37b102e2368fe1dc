"""The action plugin that follows a run: what it asks a worker, and what it takes home."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

sys.path.insert(0, str(Path(__file__).parents[2] / "roles" / "workflow_run" / "action_plugins"))
import workflow_follow


class Worker:
    """A connection to this machine that fails some times before a file comes home."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.resets = failures, 0
        self.transfers: list[str] = []

    def fetch_file(self, there: str, here: str) -> None:
        if self.failures:
            self.failures -= 1
            raise AnsibleConnectionFailure("Failed to connect to the host via ssh: connection reset")
        self.transfers.append(Path(there).name)
        Path(here).write_bytes(Path(there).read_bytes())

    def reset(self) -> None:
        self.resets += 1


class Follower:
    """The plugin on such a worker, and the lines that it shows."""

    def __init__(self, worker: Worker, patience: float = 0) -> None:
        self.plugin: Any = workflow_follow.ActionModule(SimpleNamespace(), worker, None, None, None, None)
        self.plugin._me, self.plugin._host, self.plugin._patience = "me", "cpu1", patience
        self.plugin._low_level_execute_command = self._execute
        self.plugin._show = self._show
        self.commands = 0
        self.shown: list[bytes] = []

    def _execute(self, command: str) -> dict[str, Any]:
        self.commands += 1
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}

    def _show(self, line: bytes) -> None:
        self.shown.append(line)

    def follow(self, directory: Path, artifacts: Path) -> tuple[dict[str, str], list[str]]:
        said = self.plugin._follow(str(directory), 0)
        return said, self.plugin._collect(said, str(directory), artifacts)


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """The directory of a run that has ended; log, one more result, and what is none."""
    directory = tmp_path / "a round's"
    (directory / "output").mkdir(parents=True)
    (directory / "exit_status").write_text("3\n")
    (directory / "cause").write_text("it was asked to stop\n")
    (directory / "output" / "log.txt").write_text("one\ntwo\n\u00e4")
    (directory / "output" / "summary.json").write_bytes(b"\0\r\n\xff")
    (directory / "output" / "other").touch()
    return directory


def test_a_run_that_has_ended_takes_two_commands(tmp_path: Path, ended: Path) -> None:
    worker = Worker()
    follower = Follower(worker)
    said, found = follower.follow(ended, tmp_path / "artifacts")
    assert follower.commands == 2
    assert not worker.transfers
    assert said["status"] == "3"
    assert follower.shown == [b"one", b"two", "\u00e4".encode()]
    assert found == ["log.txt", "summary.json"]
    for name in found:
        assert (tmp_path / "artifacts" / name).read_bytes() == (ended / "output" / name).read_bytes()
    assert (ended / "collected").exists()
    assert not list((ended / "followers").iterdir())


def test_a_log_of_many_answers_is_shown_to_its_end(tmp_path: Path, ended: Path) -> None:
    lines = [str(number).encode() for number in range(30000)]
    (ended / "output" / "log.txt").write_bytes(b"\n".join(lines))
    follower = Follower(Worker())
    follower.follow(ended, tmp_path)
    assert follower.shown == lines
    assert (tmp_path / "log.txt").read_bytes() == b"\n".join(lines)


def test_a_run_without_an_exit_status_is_lost(tmp_path: Path, ended: Path, monkeypatch: Any) -> None:
    """It left no lock, no log and no cause either."""
    (ended / "exit_status").unlink()
    (ended / "cause").unlink()
    (ended / "output" / "log.txt").unlink()
    monkeypatch.setattr(workflow_follow, "SCRIPT", workflow_follow.SCRIPT.replace("-lt 50", "-lt 1"))
    said, found = Follower(Worker()).follow(ended, tmp_path)
    assert (said["status"], said["cause"]) == ("lost", "")
    assert found == ["summary.json"]


def test_large_results_come_home_on_a_connection_that_is_lost_meanwhile(
    tmp_path: Path, ended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_follow.time, "sleep", lambda _: None)
    (ended / "output" / "report.html").write_bytes(b"x" * (workflow_follow.MOST + 1))
    worker = Worker(failures=2)
    _, found = Follower(worker, 60).follow(ended, tmp_path / "artifacts")
    assert found == ["log.txt", "summary.json", "report.html"]
    assert worker.resets == 2
    assert worker.transfers == ["report.html"]
    assert (tmp_path / "artifacts" / "report.html").stat().st_size == workflow_follow.MOST + 1


def test_a_connection_that_stays_lost_is_given_up(tmp_path: Path) -> None:
    follower = Follower(Worker(failures=99))
    with pytest.raises(AnsibleActionFail, match=r"was lost for 0 s .*connection reset"):
        follower.plugin._collect({"report.html": "-"}, "/rounds/r1", tmp_path)
    assert not follower.commands, "the launcher was told that the machine may go"


def test_results_that_cannot_be_kept_here_stay_there(tmp_path: Path, ended: Path) -> None:
    (tmp_path / "artifacts").touch()
    with pytest.raises(AnsibleActionFail, match=r"cannot be kept on the control node: .*artifacts"):
        Follower(Worker()).follow(ended, tmp_path / "artifacts")
    assert not (ended / "collected").exists()
