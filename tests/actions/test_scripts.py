"""The scripts behind the buttons, one by one: what they refuse, what they write, and that it stays data."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jobs import read_file_of_values
from pressed import KEY, LIST, ROOT

SCRIPTS = ROOT / ".github" / "scripts"
sys.path.insert(0, str(SCRIPTS))

import allowed  # noqa: E402
import commands  # noqa: E402
import fleet  # noqa: E402
import markdown  # noqa: E402
import remedies  # noqa: E402
import request  # noqa: E402
import rounds  # noqa: E402
import summary  # noqa: E402
import workers  # noqa: E402


@pytest.mark.parametrize("user", ["anna", "ANNA", "Bob-2", "robot[bot]", "D_acme"])
def test_the_list_as_people_write_it(user: str, tmp_path: Path) -> None:
    assert ask(tmp_path, LIST.encode(), user).stdout == "on the list\n"


@pytest.mark.parametrize(
    ("user", "again"),
    [
        *[(user, user) for user in ("ann", "annA2", "bob", "postdoc", "May", "robot", "dependabot[bot]")],
        *[(user, user) for user in ("anna bob-2", "@anna", "anna\nbob-2", "anna#", "ann\u0430", "")],
        *[("anna", "mallory"), ("mallory", "anna"), ("anna", ""), ("", "anna"), ("anna", "anna\r")],
    ],
)
def test_who_is_not_listed(user: str, again: str, tmp_path: Path) -> None:
    """Neither who begins like one who is, nor somebody else's "Re-run", nor one of whom nothing is known."""
    done = ask(tmp_path, LIST.encode(), user, again)
    assert done.returncode == 1
    [line] = done.stdout.splitlines()
    assert line.startswith("::error title=Not on the list::")
    assert "may not start this yet: add a line with your user name" in line or "give ACTOR and" in line


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("bob, carl", 2),
        ("@@bob", 2),
        ("bob\rmallory", 2),
        ("bob\u2028mallory", 2),
        ("mal\u200blory", 2),
        ("*", 2),
        ("\xff", 2),
    ],
)
def test_a_list_with_anything_but_names_is_refused(line: str, number: int, tmp_path: Path) -> None:
    done = ask(tmp_path, f"anna\n{line}\n".encode("latin-1" if line == "\xff" else "utf-8"), "anna")
    assert f"line {number} of start_process_allow_list is no user name" in done.stdout


@pytest.mark.parametrize("end", ["\r", "\u2028", "\u0085", "\f"])
def test_a_comment_hides_no_name(end: str, tmp_path: Path) -> None:
    """What a reviewer sees as one line is one."""
    done = ask(tmp_path, f"anna # the postdoc{end}mallory\n".encode(), "mallory")
    assert "@mallory may not start this yet" in done.stdout


def ask(folder: Path, text: bytes, actor: str, again: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script in a repository with a list of its own."""
    shutil.copytree(SCRIPTS, folder / "scripts")
    (folder / "workflows").mkdir()
    (folder / "workflows" / "start_process_allow_list").write_bytes(text)
    return run(
        folder / "scripts" / "allowed.py", ACTOR=actor, TRIGGERING_ACTOR=actor if again is None else again
    )


def test_our_own_list_is_empty_until_a_lab_fills_it() -> None:
    assert allowed.names(allowed.LIST.read_text()) == []


def run(script: str | Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPTS / script, *arguments],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_refusal_is_on_the_page_too(tmp_path: Path) -> None:
    page = tmp_path / "page"
    done = run("request.py", "check", **GIVEN, WORKERS="<img src=x>", GITHUB_STEP_SUMMARY=str(page))
    assert done.returncode == 1
    assert page.read_text().startswith("## ❌ The request is refused\n\n```text\nworkers: '<img'")


GIVEN = {"BRANCH": "main", "GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "2", "GITHUB_WORKSPACE": "/work space"}


def test_a_request_without_inputs() -> None:
    made = request.read(GIVEN)
    assert made.workers == ["main"]
    assert made.arguments == ["run"]
    written = request.variables(made, GIVEN)
    assert written["round_request"] == "7-2"
    assert (written["instance_deadline_hours"], written["workflow_run_limit_hours"]) == (24.0, 23.0)
    assert written["round_follow"] is True


def test_a_request_with_everything() -> None:
    inputs = {"WORKERS": "cpu1, memory1 cpu1", "TABLES": "svd.* lds.LDS", "RESTRICTION": ' {"a": "b c"} '}
    made = request.read(
        {**GIVEN, **inputs, "FOLLOW": "false", "DEADLINE": "0.5", "REF": "v1.0", "JOIN": "true"}
    )
    assert made.workers == ["cpu1", "memory1"]
    assert made.arguments == ["run", "--tables", "svd.*", "--tables", "lds.LDS", "--where", '{"a": "b c"}']
    assert request.variables(made, GIVEN)["workflow_run_limit_hours"] == 0.375


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"WORKERS": "a;b"}, "workers: 'a;b'"),
        ({"WORKERS": "!cpu1"}, "workers: '!cpu1'"),
        ({"WORKERS": "all:&x"}, "workers: 'all:&x'"),
        ({"TABLES": "$(id)"}, "tables: '$(id)'"),
        ({"RESTRICTION": "a\u2028b"}, "restriction has an invisible character"),
        ({"RESTRICTION": "x" * 2001}, "more than 2000 characters"),
        ({"REF": "a..b"}, "ref 'a..b'"),
        ({"REF": "-x"}, "ref '-x'"),
        ({"FOLLOW": "maybe"}, "follow is 'maybe': give true or false"),
        ({"DEADLINE": "nan"}, "deadline is 'nan'"),
        ({"DRY_RUN": "True"}, "dry_run is 'True': give true or false"),
        ({"JOIN": "$(id)"}, "join is '$(id)': give true or false"),
        ({"DEADLINE": "169"}, "give hours, from 0.5 to 168"),
        ({"FOLLOW_HOURS": "7"}, "the variable FOLLOW_HOURS is '7'"),
    ],
)
def test_what_a_request_must_not_be(inputs: dict[str, str], words: str) -> None:
    with pytest.raises(commands.RefusedError) as refused:
        request.read({**GIVEN, **inputs})
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("branch", "name"), [("main", "main"), ("feature/x-1", "feature_x_1"), ("größe", "gr__e")]
)
def test_the_worker_of_a_branch(branch: str, name: str) -> None:
    assert request.own_worker(branch) == name


def test_written_strings_are_marked_as_data(tmp_path: Path) -> None:
    hostile = "{{ 7 * 7 }} \" ' : # \u00e9 \U0001f42d !unsafe ${{ x }}"
    text = request.as_data({"a": [hostile, 1, True, 0.5], "b": {}})
    assert text.count("!unsafe") == 2  # the tag, and the word in the string

    class Loader(yaml.SafeLoader):
        """Knows the tag, as Ansible does."""

    Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
    assert yaml.load(text, Loader) == {"a": [hostile, 1, True, 0.5], "b": {}}


LISTED: dict[str, Any] = {
    "all": {"children": ["ungrouped", "workers", "feature_x", "empty"]},
    "ungrouped": {"hosts": ["localhost"]},
    "workers": {"hosts": ["gpu1"], "children": ["cpu_optimized"]},
    "cpu_optimized": {"hosts": ["cpu2", "cpu1"]},
    "feature_x": {"children": ["cpu_optimized"], "hosts": ["no_worker"]},
}


@pytest.mark.parametrize(
    ("names", "workers"),
    [
        (["cpu2"], ["cpu2"]),
        (["cpu_optimized"], ["cpu1", "cpu2"]),
        (["cpu2", "cpu_optimized", "cpu2"], ["cpu2", "cpu1"]),
        (["feature_x"], ["cpu1", "cpu2"]),
        (["workers"], ["cpu1", "cpu2", "gpu1"]),
        (["all"], ["all"]),
        (["localhost", "unheard_of"], ["localhost", "unheard_of"]),
    ],
)
def test_groups_stand_for_their_workers(names: list[str], workers: list[str]) -> None:
    """A host that is no worker is none here either; what nobody knows may be known by secrets."""
    assert fleet.of(LISTED).resolve(names) == workers


def test_a_group_without_workers_is_refused() -> None:
    with pytest.raises(commands.RefusedError, match="the group empty has no worker: put one into it"):
        fleet.of(LISTED).resolve(["cpu1", "empty"])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the script reads of a repository: the shipped inventory, scripts, an environment."""
    for name in (".github/scripts", "inventory/aws"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def test_the_script_hands_workers_on(checkout: Path) -> None:
    """The shipped inventory has no worker yet; a lab's has, and its groups may have a branch's name."""
    script, output = checkout / ".github" / "scripts" / "request.py", checkout / "output"
    done = run(script, "check", **GIVEN, WORKERS="cpu1", GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    assert read_file_of_values(output) == {"workers": '["cpu1"]', "known_workers": "", "own_worker": "main"}
    hosts = checkout / "inventory" / "aws" / "hosts.yml"
    hosts.write_text(re.sub(r"^(\s*)# (\s*\w+:)", r"\1\2", hosts.read_text(), flags=re.MULTILINE))
    done = run(script, "check", **GIVEN, GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    assert read_file_of_values(output)["workers"] == '["cpu1"]'
    assert read_file_of_values(output)["known_workers"] == "cpu1 memory1"


def test_an_inventory_that_cannot_be_read_is_refused(checkout: Path) -> None:
    (checkout / "inventory" / "aws" / "hosts.yml").write_text("all: [\n")
    done = run(checkout / ".github" / "scripts" / "request.py", "check", **GIVEN, GITHUB_OUTPUT="/dev/null")
    assert (
        done.returncode,
        "the inventory cannot be read: correct inventory/aws/hosts.yml" in done.stdout,
    ) == (1, True)
    assert "YAML parsing failed" in done.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"KNOWN_WORKERS": "cpu1 cpu2"},
            "there is no worker gpu1: choose from cpu1, cpu2 or a group (inventory/aws",
        ),
        (
            {},
            "there is no worker gpu1: there is none yet (inventory/aws/hosts.yml); or set the secrets gpu1_",
        ),
        ({"SSH_KEY": "ssh-ed25519 AAAA"}, "the secret SSH_KEY is no private key"),
    ],
)
def test_a_worker_that_nobody_knows(given: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(commands.RefusedError) as refused:
        workers.put_down({"WORKER": "gpu1", "WORKERS": "gpu1", "RUNNER_TEMP": str(tmp_path), **given})
    assert str(refused.value).startswith(words)


def test_the_key_file(tmp_path: Path) -> None:
    path = workers.key_file(KEY, tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().splitlines()[0] == "-----BEGIN OPENSSH PRIVATE KEY-----"
    assert path.read_text().endswith("-----END OPENSSH PRIVATE KEY-----\n")
    assert "\r" not in path.read_text()
    with pytest.raises(commands.RefusedError, match="the secret SSH_KEY is no private key") as refused:
        workers.key_file("ssh-ed25519 SECRET", tmp_path)
    assert "SECRET" not in str(refused.value)


def test_a_worker_from_secrets() -> None:
    made: Any = workers.from_secrets("main", "i-0123456789abcdef0", "192.0.2.7")
    [host] = made["all"]["children"]["workers"]["hosts"].values()
    assert host == {"instance_power_instance_id": "i-0123456789abcdef0", "ansible_host": "192.0.2.7"}
    for instance, address in (("i-{{ x }}", ""), ("i-0123456789abcdef0", "-oProxyCommand=x y")):
        with pytest.raises(commands.RefusedError, match="the secret main_instance_") as refused:
            workers.from_secrets("main", instance, address)
        assert (address or instance) not in str(refused.value)


def test_annotations_hold_no_command() -> None:
    said = commands.annotate("error", "a:b,c", "100% wrong\n::set-env name=x::y\r")
    assert said == "::error title=a%3Ab%2Cc::100%25 wrong%0A::set-env name=x::y%0D"
    assert "\n" not in said


NASTY = "a|b`c``d\n<img src=x onerror=alert(1)> [x](http://y) @anna \x1b[31m"


def test_markdown_is_text() -> None:
    cell = markdown.code(NASTY)
    assert "\n" not in cell
    assert cell.startswith("```")
    assert cell.endswith("```")
    assert "a\\|b" in cell
    assert "\x1b" not in cell
    shown = markdown.block("```\n# big\n````x")
    assert shown.startswith("`````text\n")
    assert shown.endswith("\n`````")


@pytest.mark.parametrize(
    ("done", "skipped", "failed", "whole", "bar"),
    [
        (0, 0, 0, 0, "····"),
        (4, 0, 0, 4, "🟩🟩🟩🟩"),
        (0, 0, 1, 1000, "🟥⬜⬜⬜"),
        (999, 0, 1, 1000, "🟩🟩🟩🟥"),
        (1, 0, 0, 2, "🟩🟩⬜⬜"),
        (2, 2, 0, 4, "🟩🟩🟨🟨"),
        (0, 3, 1, 4, "🟨🟨🟨🟥"),
        (21, 1, 0, 22, "🟩🟩🟩🟩"),
    ],
)
def test_bars(done: int, skipped: int, failed: int, whole: int, bar: str) -> None:
    """One failure among a thousand is seen."""
    assert markdown.bar(done, skipped, failed, whole, 4) == bar


def test_prices() -> None:
    assert rounds.price("", "cpu1") is None
    assert rounds.price("0.5", "cpu1") == 0.5
    assert rounds.price("cpu1=0.71, memory1=2", "memory1") == 2.0
    assert rounds.price("cpu1=0.71", "memory1") is None
    for wrong in ("dear", "0,71", "cpu1=0,71", "cpu1=0.71,memory1=2"):
        with pytest.raises(commands.RefusedError, match=f"the variable WORKER_PRICE_PER_HOUR has '{wrong}'"):
            rounds.price(wrong, "cpu1")


def result(**more: Any) -> dict[str, Any]:
    empty = {"failure": "", "task": "", "cause": "", "detached": False, "left": False, "planned": ""}
    plain = {"worker": "cpu1", "instance": "i-1", "round": "r", "commit": "c" * 40, "artifacts": ""}
    return {**empty, **plain, "exit_code": 0, "machine_seconds": 5400, "summary": {}, **more}


def failed(number: int, reason: str = "it broke") -> dict[str, Any]:
    return {"table": f"t.T{number}", "outcome": "failed", "reason": reason, "key": {}}


def test_a_page_with_hostile_names() -> None:
    table = {"table": NASTY, "due": 2, "done": 1, "failed": 1, "skipped": 0, "seconds": 1.0}
    told = rounds.Told(
        result(exit_code=1, summary={"verdict": "failed", "tables": [table], "keys": [failed(1, NASTY)]}),
        0.5,
        "javascript:x",
    )
    page = told.page()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert rows[2].replace("\\|", "").count("|") == rows[0].count("|")
    assert "javascript" not in page
    assert "on for 1 h 30 min, which costs about 0.75 (at 0.5 an hour)" in page
    assert all("\n" not in note for note in told.annotations())


def test_errors_that_differ_in_names_only_are_one() -> None:
    """With the first keys, so that one knows which recordings to look at; and what to do about each kind."""
    many = [
        {
            **failed(1, f"trace of ROI {{'roi': {number}}} has {number} NaN"),
            "key": {"subject": 7, "roi": number},
        }
        for number in range(12)
    ]
    many += [failed(2, "the worker was killed (SIGKILL) by the kernel, which was out of memory")]
    summary_of_run = {"verdict": "failed", "tables": [], "keys": many}
    page = rounds.Told(
        result(exit_code=1, summary=summary_of_run), None, "", {"tables": "t.*", "ref": ""}
    ).page()
    assert (
        "12 keys of `t.T1` (`subject 7, roi 0`; `subject 7, roi 1`; `subject 7, roi 2` …), such as:" in page
    )
    assert page.count("has 0 NaN") == 1
    assert "has 5 NaN" not in page
    assert "\n- `t.T1`: Correct the data or the code" in page
    assert "\n- `t.T2`: It needs more memory than the machine has" in page
    assert "Asked for: tables `t.*`." in page


def test_a_page_of_many_errors_names_the_first() -> None:
    many = [failed(number) for number in range(8)] + [failed(0)]
    told = rounds.Told(
        result(exit_code=1, summary={"verdict": "failed", "tables": [], "keys": many}), None, ""
    )
    page = told.page()
    assert page.index("2 keys of `t.T0`") < page.index("1 key of `t.T1`")
    assert "… and 3 more kinds of error" in page
    assert len(told.annotations()) == rounds.MOST_ERRORS


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"exit_code": 3, "summary": {"verdict": "unreachable", "message": "no answer"}},
            "check the secrets DJ_HOST",
        ),
        ({"exit_code": 4, "summary": {"verdict": "stopped"}, "cause": "asked"}, "it goes on from there"),
        ({"exit_code": 1}, "ended with exit code 1; the log says why"),
        ({"exit_code": -1}, "lost before its results came home"),
        ({"failure": "i-1 is running: round r of bob is on it"}, "status shows who, force_stop stops it"),
        ({"failure": "i-1 is stopping: x"}, "again in a minute"),
        ({"failure": "AWS has no capacity"}, "or on another worker"),
        (
            {"failure": "the AWS credentials have expired; sign in"},
            "press the button again. If it happens again",
        ),
        ({"failure": "AWS does not accept these credentials"}, "tell whoever looks after the secrets"),
        ({"failure": "cpu1 did not answer within 600 s"}, "Try once more"),
        ({"failure": "something new"}, "show this page to whoever looks after the workers"),
        ({"detached": True}, "⏳"),
        ({"planned": "run"}, "would do `run`; nothing was started"),
        ({"summary": {"verdict": "succeeded", "message": "nothing was due"}}, "nothing was due"),
        (
            {
                "summary": {
                    "verdict": "succeeded",
                    "message": "2 keys are reserved by others",
                    "tables": [{"table": "t.T", "due": 0, "held": 2}],
                }
            },
            "2 keys are reserved by others",
        ),
    ],
)
def test_every_end_has_its_words(more: dict[str, Any], words: str) -> None:
    assert words in rounds.Told(result(**more), None, "").page()


def test_the_page_of_a_round_without_a_verdict(tmp_path: Path) -> None:
    log = tmp_path / "playbook.log"
    log.write_text(
        "2026-11-22 10:00:00,123 p=1 u=x n=ansible INFO| fatal: [cpu1]: FAILED! => \n    msg: why\n"
    )
    page, notes = summary.of_round(
        {"WORKER": "cpu1", "OUTCOME": "failure", "SETTLED": "failure"}, tmp_path, log
    )
    assert "❌ Round on `cpu1`: it ended before its verdict" in page
    assert "fatal: [cpu1]: FAILED!" in page
    assert "2026-11-22" not in page
    assert "[!CAUTION]" in page
    assert [note.startswith("::error title=") for note in notes] == [True, True]


def test_the_page_of_the_other_buttons(tmp_path: Path) -> None:
    log = tmp_path / "playbook.log"
    log.write_text(
        "fatal: [cpu1]: FAILED! => \n    changed: false\n    msg: 'it is\n        wrong'\n\nPLAY\n"
    )
    page, [note] = summary.of_playbook("force_stop", {"OUTCOME": "failure"}, tmp_path, log)
    assert "❌ force_stop failed" in page
    assert summary.reason(log.read_text().splitlines()) == "it is wrong"
    assert note == "::error title=force_stop::it is wrong"
    (tmp_path / "verdict.json").write_text(json.dumps([["cpu1: stopped", "round r: ended"]]))
    looked = {"OUTCOME": "success", "DRY_RUN": "true"}
    assert summary.of_playbook("force_stop", looked, tmp_path, log)[0].startswith(
        "## ✅ Looked, and stopped nothing"
    )
    assert summary.of_playbook("setup", looked, tmp_path, log)[0].startswith(
        "## ✅ Looked, and changed nothing"
    )
    page, notes = summary.of_playbook("status", {"OUTCOME": "success"}, tmp_path, log)
    assert "cpu1: stopped\nround r: ended" in page
    assert notes == []
    (tmp_path / "verdict.json").write_text("[]")
    assert "there is no worker yet" in summary.of_playbook("status", {"OUTCOME": "success"}, tmp_path, log)[0]


def test_the_page_of_a_job_that_was_cancelled(tmp_path: Path) -> None:
    """What was found afterwards is on it, and what to do where nobody found out."""
    (tmp_path / "settled.json").write_text(json.dumps(["its run is under way: it goes on"]))
    given = {"WORKER": "cpu1", "OUTCOME": "cancelled", "SETTLED": "success"}
    page, [_] = summary.of_round(given, tmp_path, tmp_path / "none")
    assert "❌ Round on `cpu1`: it was cancelled" in page
    assert "looked at: `its run is under way: it goes on`.\n\nTo end that run, press force_stop." in page
    for kind in ("force_stop", "setup"):
        page, notes = summary.of_playbook(
            kind, {"OUTCOME": "cancelled", "SETTLED": "cancelled"}, tmp_path, tmp_path / "no"
        )
        assert page.startswith(f"## ❌ {kind} was cancelled")
        assert "[!CAUTION]" in page
        assert len(notes) == 2


def test_what_to_do_about_keys() -> None:
    assert "larger worker" in remedies.of_key("MemoryError: Unable to allocate 8 GiB")
    assert "stays done" in remedies.of_key("the connection to the database was lost")
    assert "Correct the data or the code" in remedies.of_key("ValueError: no spikes")


def test_of_a_long_log_the_end_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "playbook.log"
    log.write_text("\n".join(f"line {number} {'x' * 200}" for number in range(60)) + "\nstopped: i-1\n")
    shown = summary.said(log)
    assert "stopped: i-1\n" in shown
    assert "line 0 " not in shown
