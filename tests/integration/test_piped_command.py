"""The action plugin that runs a command on a worker with text on its standard input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from connections import BREAKS_AT_THE_END, BREAKS_IN_THE_MIDDLE, TO_A_WORKER, ssh, sudo
from ec2_support import outcomes, play

SECRET = "a-text-that-nobody-may-see"
LOCAL: dict[str, object] = {"ansible_connection": "local"}
MUCH = "x" * (1 << 20)


def pipe(
    folder: Path,
    worker: dict[str, object],
    *options: str,
    more: dict[str, object] | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Run one such task; return its result, with what the whole play said as `report`."""
    arguments = {"argv": ["cat"], "stdin": "a text", "fail_msg": "The text is lost"} | given
    task = {"name": "Pipe", "piped_command": {k: v for k, v in arguments.items() if v is not None}}
    play_ = {"hosts": "worker", "gather_facts": False, "tasks": [task | (more or {})]}
    report = play(folder, [play_], {"all": {"hosts": {"worker": worker}}}, *options)
    [result] = outcomes(report, "worker")
    return result | {"report": str(report)}


@pytest.fixture(params=["local", "ssh"])
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    return LOCAL if request.param == "local" else ssh(tmp_path, TO_A_WORKER)


def test_words_text_and_environment_arrive_as_they_are(tmp_path: Path, worker: dict[str, object]) -> None:
    words = ["it's", "a  b", "$HOME", "100%", "", "two\nlines", "\\n", 7]
    argv = ["sh", "-c", 'printf "<%s>" "$@" "$GIVEN"; echo; cat; echo warned >&2', "sh", *words]
    more: dict[str, object] = {"environment": {"GIVEN": "to it"}}
    done = pipe(tmp_path, worker, argv=argv, stdin=" one\n\u00e4", more=more)
    assert done["stdout"] == "".join(f"<{word}>" for word in [*words, "to it"]) + "\n one\n\u00e4"
    assert done["stdout_lines"] == done["stdout"].splitlines()
    assert done["stderr_lines"] == ["warned"]
    assert (done["rc"], done["changed"]) == (0, True)


def test_a_file_is_looked_for_where_a_roles_files_are(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "given").write_text("its text")
    assert pipe(tmp_path, LOCAL, stdin=None, stdin_file="given")["stdout"] == "its text"
    failed = pipe(tmp_path, LOCAL, stdin=None, stdin_file="missing")
    assert "piped_command: stdin_file missing cannot be read: " in failed["msg"]


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_password_for_sudo_comes_before_the_text(tmp_path: Path, pipelining: bool) -> None:
    done = pipe(
        tmp_path, LOCAL | sudo(tmp_path) | {"ansible_pipelining": pipelining}, argv=["wc", "-c"], stdin=MUCH
    )
    assert done["stdout"].strip() == str(len(MUCH))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo first; echo no space left. >&2; exit 3", "no space left"),
        ("echo said; exit 3", "said"),
        ("exit 3", "exit status 3"),
    ],
)
def test_a_command_that_fails_is_told_in_one_line(
    tmp_path: Path, worker: dict[str, object], script: str, reason: str
) -> None:
    """Whatever it has not read: the connection is not taken for a lost one."""
    failed = pipe(tmp_path, worker, argv=["sh", "-c", script], stdin=MUCH)
    assert failed["msg"] == f"The text is lost: {reason}."
    assert failed["rc"] == 3
    assert failed["failed"]
    more: dict[str, object] = {"failed_when": False}
    assert not pipe(tmp_path, worker, argv=["sh", "-c", script], more=more).get("failed")


def test_a_dry_run_runs_nothing_unless_the_task_says_so(tmp_path: Path) -> None:
    argv = ["touch", str(tmp_path / "touched")]
    assert pipe(tmp_path, LOCAL, "--check", argv=argv)["skipped"]
    assert not (tmp_path / "touched").exists()
    assert pipe(tmp_path, LOCAL, "--check", argv=argv, more={"check_mode": False})["rc"] == 0
    assert (tmp_path / "touched").exists()


def test_the_text_is_in_no_list_of_processes_and_no_result(tmp_path: Path, worker: dict[str, object]) -> None:
    """More of this, with all that Ansible says, is in test_workflow_settings.py."""
    seen = tmp_path / "seen"
    argv = ["sh", "-c", f"cat /proc/[0-9]*/cmdline 2>/dev/null >'{seen}'; cat >/dev/null"]
    done = pipe(tmp_path, worker, argv=argv, stdin=SECRET)
    assert done["rc"] == 0
    assert SECRET not in done["report"]
    assert b"/proc/[0-9]*/cmdline" in seen.read_bytes()
    assert SECRET.encode() not in seen.read_bytes()


@pytest.mark.parametrize("way", [BREAKS_IN_THE_MIDDLE, BREAKS_AT_THE_END])
def test_a_connection_that_breaks(tmp_path: Path, way: str) -> None:
    """The host is unreachable then; the task has failed where the play goes on with such hosts."""
    assert pipe(tmp_path, ssh(tmp_path, way), argv=["wc", "-c"], stdin=MUCH)["unreachable"]
    more: dict[str, object] = {"ignore_unreachable": True}
    failed = pipe(tmp_path, ssh(tmp_path, way), argv=["wc", "-c"], stdin=MUCH, more=more)
    assert failed["failed"]
    assert not failed.get("unreachable")
    assert failed["msg"] == "The text is lost: Connection reset by peer."


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"argv": []}, "piped_command: give argv, and stdin or stdin_file; none may be empty"),
        ({"stdin": ""}, "piped_command: give argv, and stdin or stdin_file; none may be empty"),
        ({"stdin": None}, "piped_command: give argv, and stdin or stdin_file; none may be empty"),
        ({"argv": None}, "missing required arguments: argv"),
        ({"fail_msg": None}, "missing required arguments: fail_msg"),
        ({"stdin_file": "x"}, "parameters are mutually exclusive: stdin|stdin_file"),
        ({"chdir": "/"}, "Unsupported parameters for (piped_command) module: chdir"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    refused = pipe(tmp_path, LOCAL, **{"stdin": SECRET} | given)
    assert words in refused["msg"]
    assert SECRET not in refused["report"]
