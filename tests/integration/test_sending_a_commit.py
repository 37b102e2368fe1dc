"""A commit that the control node sends: what the worker has then, and what can break on the way."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import ec2_support
import pytest
from checkouts import git
from connections import BREAKS_AT_THE_END, BREAKS_IN_THE_MIDDLE, TO_A_WORKER, ssh, sudo
from role_support import Outcome, play

TO_A_WORKER_WITHOUT_GIT = 'PATH="{programs}" exec sh -c "$command"'


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than goes into a pipe at once."""
    folder = tmp_path_factory.mktemp("checkout")
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "data").write_bytes(os.urandom(1 << 20))
    git(folder, "add", "data")
    git(folder, "commit", "--quiet", "--message=much")
    return folder


def send(folder: Path, checkout: Path, *options: str, **more: object) -> Outcome:
    """Send the last commit; nothing stays on the control node, and no bundle on the worker."""
    temporary, worker = folder / "temporary", folder / "worker"
    temporary.mkdir()
    worker.mkdir(exist_ok=True)
    inputs = {
        "workflow_source_repository": str(checkout),
        "workflow_source_ship": True,
        "workflow_source_commit": git(checkout, "rev-parse", "HEAD"),
        "workflow_source_directory": str(worker / "source"),
    }
    environment = {"TMPDIR": str(temporary)}
    outcome = play("workflow_source", folder, (), environment, "main", options, **inputs, **more)
    assert not list(temporary.glob("*.workflow_source"))
    assert not (worker / "source.bundle").is_symlink()
    assert {path.name for path in worker.iterdir()} <= {"source"}, outcome.output
    return outcome


@pytest.mark.parametrize("connection", ["local", "ssh"])
def test_the_worker_is_at_the_commit_on_no_branch(tmp_path: Path, checkout: Path, connection: str) -> None:
    done = send(tmp_path, checkout, **(ssh(tmp_path, TO_A_WORKER) if connection == "ssh" else {}))
    assert done.status == 0, done.output
    source = tmp_path / "worker" / "source"
    assert git(source, "rev-parse", "HEAD") == git(checkout, "rev-parse", "HEAD")
    assert git(source, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert git(source, "status", "--porcelain") == ""
    assert (source / "data").read_bytes() == (checkout / "data").read_bytes()


def test_a_dry_run_sends_nothing(tmp_path: Path, checkout: Path) -> None:
    dry = send(tmp_path, checkout, "--check")
    assert dry.status == 0, dry.output
    assert not (tmp_path / "worker" / "source").exists()


def test_a_password_for_sudo_comes_before_the_bundle(tmp_path: Path, checkout: Path) -> None:
    """Without pipelining too, where Ansible would make a terminal of standard input."""
    done = send(tmp_path, checkout, **sudo(tmp_path), ansible_pipelining=False)
    assert "changed: [localhost]" in done.output
    assert (tmp_path / "worker" / "source" / "data").is_file(), done.output


@pytest.mark.parametrize("connection", ["local", "ssh"])
def test_a_full_disk_is_named(tmp_path: Path, checkout: Path, connection: str) -> None:
    """Whatever is left to send: the connection is not taken for a lost one."""
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "source.bundle").symlink_to("/dev/full")
    said = send(tmp_path, checkout, **(ssh(tmp_path, TO_A_WORKER) if connection == "ssh" else {})).output
    assert "on the worker: cat: write error: No space left on device. The disk is full: free space" in said


def test_a_worker_without_git_is_told(tmp_path: Path, checkout: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("cat", "rm", "sh"):
        (programs / name).symlink_to(str(shutil.which(name)))
    said = send(tmp_path, checkout, **ssh(tmp_path, TO_A_WORKER_WITHOUT_GIT.format(programs=programs))).output
    words = r" \(workflow_source_version HEAD\): on the worker: sh: .*git: not found\. Check the repository, "
    assert re.search(rf"{checkout} could not be fetched at \w+{words}", said), said


@pytest.mark.parametrize("way", [BREAKS_IN_THE_MIDDLE, BREAKS_AT_THE_END])
def test_a_connection_that_breaks_is_no_failed_clone(tmp_path: Path, checkout: Path, way: str) -> None:
    said = send(tmp_path, checkout, **ssh(tmp_path, way))
    assert said.status == 4, said.output
    assert "unreachable=1" in said.output
    assert "could not be fetched" not in said.output


def test_a_round_that_goes_on_after_a_lost_connection_says_so(tmp_path: Path, checkout: Path) -> None:
    """It ignores lost connections, so that it can still stop its machine."""
    task = {"ansible.builtin.import_role": {"name": "workflow_source"}}
    given = {
        "workflow_source_repository": str(checkout),
        "workflow_source_ship": True,
        "workflow_source_commit": git(checkout, "rev-parse", "HEAD"),
        "workflow_source_directory": str(tmp_path / "source"),
    }
    one = {"hosts": "worker", "gather_facts": False, "ignore_unreachable": True, "tasks": [task]}
    variables = given | ssh(tmp_path, BREAKS_IN_THE_MIDDLE)
    done = ec2_support.play(tmp_path, [one], {"all": {"hosts": {"worker": variables}}})
    said = ec2_support.refusal(done, "worker")
    assert said.startswith(f"The connection to worker was lost while it got {checkout} at ")


def test_what_is_in_the_way_is_not_touched(tmp_path: Path, checkout: Path) -> None:
    """A folder that is no clone; a clone at another commit is refused as such."""
    source = tmp_path / "worker" / "source"
    source.mkdir(parents=True)
    (source / "mine").touch()
    assert "already exists and is not an empty directory" in send(tmp_path, checkout).output
    assert [path.name for path in source.iterdir()] == ["mine"]
    (source / "mine").unlink()
    git(source, "init", "--quiet")
    git(source, "commit", "--quiet", "--allow-empty", "--message=mine")
    (tmp_path / "temporary").rmdir()
    said = send(tmp_path, checkout).refusal()
    assert f"{source} is at {git(source, 'rev-parse', 'HEAD')} instead of" in said
