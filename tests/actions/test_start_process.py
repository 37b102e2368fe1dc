"""The button start_process, its steps run for real on a fresh clone, the fleet being an emulated one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import Any

import pytest
from ec2_support import until
from jobs import Event, Job, WorkflowError, annotations
from pressed import CPU, MEMORY, OWN, PASSWORD_OF_AWS, Lab, on_a_branch

pytestmark = pytest.mark.timeout(1800)
BUTTON = "start_process.yaml"
ONE_TABLE = {"workers": "cpu1", "tables": "svd.PopulationSVD"}
HOSTILE = "{{ lookup('pipe', 'touch PWNED') }}${{ github.token }}\"; touch PWNED; $(touch PWNED)`touch PWNED`"


EXPIRED = {"code": "RequestExpired", "message": "Request has expired."}


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a step as a lost runner would."""
    os.killpg(process.pid, signal.SIGKILL)


def caller(lab: Lab, *changes: tuple[str, str]) -> str:
    """Commit a changed nightly.yaml to a branch with workers of its own; return the branch."""
    with on_a_branch(lab.origin, "feature/x"):
        path = lab.origin / ".github" / "workflows" / "nightly.yaml"
        text = path.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
    return "feature/x"


def nothing_was_started(lab: Lab, before: int) -> bool:
    return "StartInstances" not in lab.requests()[before:]


@pytest.fixture(scope="module")
def pressed(lab: Lab) -> dict[str, Job]:
    """The branch's own worker, which is known by secrets only; nothing had been computed before."""
    lab.load_sample()
    return lab.runner(variables={"WORKER_PRICE_PER_HOUR": "cpu1=3 36000"}).run(
        BUTTON, tables="svd.PopulationSVD"
    )


def test_the_button_runs_a_round_and_tells(lab: Lab, pressed: dict[str, Job]) -> None:
    job = pressed["round main"]
    assert job.status == "success", job.log
    assert job.group == "worker-main"
    assert lab.state(OWN) == "stopped"
    [verdict] = json.loads((job.workspace / "report" / "verdict.json").read_text())
    assert (verdict["instance"], verdict["exit_code"]) == (OWN, 0)
    assert verdict["commit"] == job.contexts["github"]["sha"]
    assert "✅ Round on `main`: succeeded" in job.summary
    assert re.search(r"\| `svd\.PopulationSVD` \| 🟩+ \| 22 \| 21 \| 0 \| 1 \|", job.summary), job.summary
    seconds = verdict["machine_seconds"]
    assert seconds > 3
    assert f"which costs about {10 * seconds:.2f} (at 36000 an hour)" in job.summary
    assert "Asked for: tables `svd.PopulationSVD`." in job.summary
    assert "[Download report, summary and log](https://github.invalid/lab/round/" in job.summary
    kept = {file.name for file in job.artifacts["round-main-1"]}
    assert {"log.txt", "summary.json", "report.html", "verdict.json"} == kept
    assert annotations(job) == []


def test_no_secret_is_shown_or_left(lab: Lab, pressed: dict[str, Job]) -> None:
    """Neither in a log nor in a file that is kept; the key is gone."""
    job = pressed["round main"]
    secrets = {lab.secrets["DJ_PASS"], PASSWORD_OF_AWS, "b3BlbnNzaC1rZXktdjEAAAAA"}
    for file in [
        *job.folder.glob("files/*-log"),
        *job.folder.glob("artifacts/**/*.*"),
        *job.workspace.glob("report/*"),
    ]:
        if file.is_file():
            assert not [one for one in secrets if one in file.read_text(errors="replace")], file
    assert not (job.folder / "temp" / "worker_ssh_key").exists()
    assert not (job.workspace / "inventory" / "aws" / "from_secrets.yml").exists()


@pytest.mark.parametrize(
    ("actor", "again", "refused"),
    [("annA2", "anna", "annA2"), ("anna", "mallory", "mallory"), ("dependabot[bot]", "", "dependabot[bot]")],
)
def test_who_is_not_on_the_list_is_refused_politely(lab: Lab, actor: str, again: str, refused: str) -> None:
    """Before any credential is touched; "Re-run" makes nobody's press Anna's, nor Anna's Mallory's."""
    before = len(lab.requests())
    jobs = lab.runner(actor=actor, triggering_actor=again).run(BUTTON, **ONE_TABLE)
    assert set(jobs) == {"request"}, "the job with the credentials is not begun"
    [text] = annotations(jobs["request"])
    assert f"@{refused} may not start this yet: add a line with your user name" in text
    assert "in a pull request" in text
    assert text in jobs["request"].summary
    assert len(lab.requests()) == before


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"workers": HOSTILE}, "workers: "),
    ({"workers": "cpu1,--check"}, "workers: '--check' is no name"),
    ({"tables": '"; rm -rf /; "'}, "tables: "),
    ({"tables": "--output /etc"}, "tables: '--output' is no name"),
    ({"restriction": "a = 1\n::set-output name=x::y"}, "restriction has an invisible character"),
    ({"ref": "--upload-pack=touch PWNED"}, "ref '--upload-pack=touch PWNED' is no branch"),
    ({"ref": "$(touch PWNED)"}, "ref '$(touch PWNED)' is no branch"),
    ({"deadline": 0}, "deadline is '0': give hours, from 0.5 to 168"),
    ({"deadline": "1; touch PWNED"}, "deadline is '1; touch PWNED'"),
]


@pytest.mark.parametrize(("inputs", "words"), REFUSED, ids=[case[1][:30] for case in REFUSED])
def test_bad_input_is_refused_in_one_line(lab: Lab, inputs: dict[str, Any], words: str) -> None:
    before = len(lab.requests())
    jobs = lab.runner().run(BUTTON, **{**ONE_TABLE, **inputs})
    assert set(jobs) == {"request"}
    [text] = annotations(jobs["request"])
    assert text.startswith(words)
    assert len(lab.requests()) == before
    assert not list(jobs["request"].folder.rglob("PWNED"))


def test_a_worker_or_ref_that_does_not_exist(lab: Lab) -> None:
    before = len(lab.requests())
    job = lab.runner().run(BUTTON, workers="cpu9")["round cpu9"]
    [text, told] = annotations(job)
    assert text.startswith("there is no worker cpu9: choose from cpu1, memory1 or a group (inventory/aws")
    assert text in job.summary
    assert told == "nothing was started; the log of the steps says where"
    assert job.step("Round").outcome == "skipped"
    job = lab.runner().run(BUTTON, **ONE_TABLE, ref="no-such-branch")["round cpu1"]
    assert "A branch or tag with the name 'no-such-branch' could not be found" in job.log
    assert job.step("Sign in to AWS").outcome == "skipped"
    assert "❌ Round on `cpu1`: nothing was started" in job.summary
    job = lab.runner().run(BUTTON, workers="cpu1 gpu_optimized")["request"]
    assert annotations(job) == [
        "the group gpu_optimized has no worker: put one into it in inventory/aws/hosts.yml"
    ]
    assert len(lab.requests()) == before


def test_another_workflow_calls_it(lab: Lab) -> None:
    """As documented, by a group's name and on a branch with its own workers; dry, and the cache is empty.

    What the first job installs is there for all others, and no call takes another's place in a queue.
    """
    before = len(lab.requests())
    runner = lab.runner(branch=caller(lab, ("with: {", "with: {dry_run: true, ")), cached={})
    jobs = runner.run("nightly.yaml")
    assert set(jobs) == {"cpu / request", "cpu / round cpu1", "own / request", "own / round memory1"}
    assert [job.status for job in jobs.values()] == ["success"] * 4
    assert len(set(runner.groups)) == 3
    assert nothing_was_started(lab, before)
    for name, instance, planned in (
        ("cpu / round cpu1", CPU, "run --tables svd.*"),
        ("own / round memory1", MEMORY, "run --where subject_id = 463190"),
    ):
        job = jobs[name]
        worker = name.split()[-1]
        assert f"✅ Round on `{worker}`: ready" in job.summary
        assert f"would do `{planned}`; nothing was started" in job.summary
        [verdict] = json.loads((job.workspace / "report" / "verdict.json").read_text())
        assert verdict["instance"] == instance
        assert job.group == f"worker-{worker}"
    installed = runner.installed.read_text().splitlines()
    assert [line.split()[-1] for line in installed] == ["requirements/control.txt", "."], "once, cold"
    steps = [[step.outcome for step in job.steps if step.name.startswith("Install")] for job in jobs.values()]
    assert steps == [["success"], ["skipped"], ["skipped"], ["skipped"]], "and not again, warm"


def test_what_a_call_needs(lab: Lab) -> None:
    """An actor on the list, and secrets; GitHub itself refuses one that may not have a token."""
    before = len(lab.requests())
    branch = caller(lab, ("workflow_dispatch:", "issue_comment:"), ("    secrets: inherit\n", ""))
    jobs = lab.runner(branch=branch, event="issue_comment", actor="mallory").run("nightly.yaml")
    assert set(jobs) == {"cpu / request", "own / request"}
    assert "@mallory may not start this yet" in annotations(jobs["cpu / request"])[0]
    job = lab.runner(branch=branch, event="schedule").run("nightly.yaml")["cpu / round cpu1"]
    assert job.step("Sign in to AWS").output.startswith("Credentials could not be loaded")
    assert "❌ Round on `cpu1`: nothing was started" in job.summary
    branch = caller(lab, ("      id-token: write # to sign in to AWS without keys\n", ""))
    with pytest.raises(WorkflowError, match="is requesting 'id-token: write', but is only allowed"):
        lab.runner(branch=branch, event="schedule").run("nightly.yaml")
    assert len(lab.requests()) == before


def test_in_another_repository_it_says_where_it_belongs(lab: Lab) -> None:
    jobs = lab.runner(branch="elsewhere").run(BUTTON)
    assert set(jobs) == {"request"}
    assert annotations(jobs["request"]) == [
        "start_process works in its own repository only: see docs/operations.md"
    ]


def test_failing_keys_are_told_in_plain_words(lab: Lab, pressed: dict[str, Job]) -> None:
    poison = """
row = (img.ROIdeltaF - img.ROIBad).to_dicts(limit=1)[0]
epoch = {name: row[name] for name in exp2.SessionEpoch().primary_key}
(svd.PopulationSVD & epoch).delete(prompt=False)
img.ROIdeltaF.update1({**row, 'dff_trace': {'not': 'an array'}})
"""
    lab.python(poison)
    job = lab.runner().run(BUTTON, **ONE_TABLE)["round cpu1"]
    assert job.status == "failure"
    assert lab.state(CPU) == "stopped"
    assert "❌ Round on `cpu1`: failed" in job.summary
    assert "🟥" in job.summary
    assert "1 key of `svd.PopulationSVD`" in job.summary
    assert "not a vector of numbers" in job.summary
    assert "only what failed is computed again" in job.summary
    assert any("1 of svd.PopulationSVD failed" in text for text in annotations(job))
    assert "report.html" in {file.name for file in job.artifacts["round-cpu1-1"]}


def test_a_round_that_fails_before_its_launch_leaves_nothing_on(lab: Lab) -> None:
    """Mallory, who presses "Re-run failed jobs", skips the job that checks the list, and is refused."""
    lab.faults({"action": "StartInstances", "code": "UnauthorizedOperation", "message": "You may not."})
    runner = lab.runner()
    jobs = runner.run(BUTTON, **ONE_TABLE, ref="toy")
    job = jobs["round cpu1"]
    assert job.status == "failure"
    assert lab.state(CPU) == "stopped"
    assert "these credentials may not do that" in job.summary
    assert "tell whoever looks after the secrets" in job.summary
    assert job.step("Leave nothing running that does nothing").outcome == "success"
    before = len(lab.requests())
    runner.triggering_actor = "mallory"
    again = runner.run_failed_again(BUTTON, jobs, **ONE_TABLE, ref="toy")
    assert again["request"] is jobs["request"]
    assert "@mallory may not start this yet" in annotations(again["round cpu1"])[0]
    assert again["round cpu1"].step("Sign in to AWS").outcome == "skipped"
    assert len(lab.requests()) == before


def test_credentials_that_are_expired(lab: Lab) -> None:
    """Nobody can confirm that the machine is off, and it says so."""
    lab.faults({**EXPIRED, "times": 1000})
    try:
        job = lab.runner().run(BUTTON, **ONE_TABLE)["round cpu1"]
    finally:
        lab.faults()
    assert job.status == "failure"
    assert "the AWS credentials have expired" in job.summary
    assert "The sign-in at AWS ended too early" in job.summary
    assert "Look at it in EC2 now, or press force_stop" in job.summary
    assert any("Nobody could confirm that the machine is off" in text for text in annotations(job))


def test_credentials_that_expire_while_the_run_is_followed(lab: Lab) -> None:
    """It comes to its end; the control node cannot confirm the stop, signs in again, and does confirm it."""

    def expire(process: object) -> None:
        lab.faults({**EXPIRED, "access_key": "ASIAROLE0", "times": 1000})
        lab.let_go("cpu1")

    runner = lab.with_a_role(events=[Event("Round", "cpu1 | at work", expire)])
    try:
        job = runner.run(BUTTON, workers="cpu1", ref="toy")["round cpu1"]
    finally:
        lab.faults()
    assert job.status == "failure"
    [verdict] = json.loads((job.workspace / "report" / "verdict.json").read_text())
    assert verdict["exit_code"] == 0, "the run itself succeeded"
    assert re.search("the AWS credentials have expired;.* sign in again", verdict["failure"])
    assert job.step("Sign in again, the first time may be over").outcome == "success"
    assert job.step("Leave nothing running that does nothing").outcome == "success"
    assert lab.state(CPU) == "stopped"
    assert re.search(r"Afterwards the machine was looked at: `.*it is stopped", job.summary), job.summary
    assert "CAUTION" not in job.summary
    assert "press the button again" in job.summary


def test_jobs_that_end_before_the_launch(lab: Lab) -> None:
    """One fails for good, one is cancelled: each machine is on and nothing runs on it, and it is stopped."""
    words = "TASK [workflow_source : Clone"
    runner = lab.runner(events=[Event("Round", words, kill), Event("Round", words)])
    jobs = runner.run(BUTTON, workers="cpu1 memory1", ref="toy")
    for name, instance, status in (("cpu1", CPU, "failure"), ("memory1", MEMORY, "cancelled")):
        job = jobs[f"round {name}"]
        assert job.status == status
        assert "it was on and nothing ran on it; it is stopped now" in job.summary
        assert lab.state(instance) == "stopped"
    assert "it ended before its verdict" in jobs["round cpu1"].summary
    assert "it was cancelled" in jobs["round memory1"].summary


def test_a_job_that_is_cancelled_while_it_follows(lab: Lab) -> None:
    """The run goes on. A dry run of force_stop leaves it alone; a real one asks it, and stops the machine."""
    runner = lab.runner(events=[Event("Round", "memory1 | at work")])
    job = runner.run(BUTTON, workers="memory1", ref="toy")["round memory1"]
    assert job.status == "cancelled"
    assert "its run is under way: it goes on" in job.summary
    assert "press force_stop" in job.summary
    assert lab.state(MEMORY) == "running"
    looked = lab.runner().run("force_stop.yaml", workers="memory1", dry_run=True)["force_stop memory1"]
    assert looked.status == "success", looked.log
    assert "✅ Looked, and stopped nothing" in looked.summary
    assert re.search(r"of memory1 is running, and round \S+ is at work on it", looked.summary), looked.summary
    assert lab.state(MEMORY) == "running"
    output = lab.folder / "worker" / "memory1" / "rounds" / "current" / "output"
    assert output.is_dir()
    assert not (output.parent / "collected").exists()
    assert not (output / "summary.json").exists(), "it is at work still"
    stopped = lab.runner().run("force_stop.yaml", workers="memory1")["force_stop memory1"]
    assert stopped.status == "success", stopped.log
    assert "✅ Stopped" in stopped.summary
    assert "was asked first; what it had not done is due again" in stopped.summary
    assert "summary.json" in {file.name for file in stopped.artifacts["stopped-memory1-1"]}
    assert lab.state(MEMORY) == "stopped"


def test_a_job_whose_limit_is_reached_leaves_the_round_to_itself(lab: Lab) -> None:
    """A role signs in without keys; the machine goes off by itself; another press meanwhile is refused."""
    runner = lab.with_a_role(variables={"FOLLOW_HOURS": "0.0001"})
    job = runner.run(BUTTON, workers="memory1", ref="toy")["round memory1"]
    assert job.status == "success", job.log
    assert "⏳ Round on `memory1`: still running" in job.summary
    assert job.step("Sign in again, the first time may be over").outcome == "success"
    assert "its run is under way: it goes on" in job.step("Leave nothing running that does nothing").output
    assert lab.state(MEMORY) == "running"
    again = lab.runner().run(BUTTON, workers="memory1", tables="svd.PopulationSVD")["round memory1"]
    assert again.status == "failure"
    assert re.search(r"is running: round \S+ of anna is on it since", again.summary)
    assert "Somebody uses this worker" in again.summary
    assert "which is not of this request" in again.summary, again.summary
    assert lab.state(MEMORY) == "running", "the other's round was left alone"
    lab.let_go("memory1")
    until(lambda: lab.state(MEMORY) == "stopped", 60)


def test_a_job_that_does_not_follow(lab: Lab) -> None:
    """It ends when the run has begun; the machine goes off by itself.

    Its hostile restriction arrives as data, word for word: nothing of it was carried out by shell, Ansible or
    GitHub on the way.
    """
    job = lab.runner().run(BUTTON, workers="cpu1", ref="toy", restriction=HOSTILE, follow=False)["round cpu1"]
    assert job.status == "success", job.log
    assert "⏳ Round on `cpu1`: still running" in job.summary
    assert "cpu1 | at work" not in job.log
    assert lab.state(CPU) == "running"
    lab.let_go("cpu1")
    until(lambda: lab.state(CPU) == "stopped", 60)
    home = lab.folder / "worker"
    said = json.loads((home / "cpu1" / "rounds" / "current" / "output" / "summary.json").read_text())
    assert said["arguments"][:3] == ["run", "--where", HOSTILE]
    assert not [*job.folder.rglob("PWNED"), *home.rglob("PWNED")]
    assert json.dumps(HOSTILE) in (job.workspace / "report" / "request.yml").read_text()
