"""The button start_process, its steps run for real on a fresh clone, the fleet being an emulated one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ec2_support import until
from jobs import Cancel, Job, annotations
from pressed import CPU, KEY, MEMORY, OWN, PASSWORD_OF_AWS, Lab

pytestmark = pytest.mark.timeout(1800)
BUTTON = "start_process.yaml"
ONE_TABLE = {"workers": "cpu1", "tables": "svd.PopulationSVD"}
HOSTILE = "{{ lookup('pipe', 'touch PWNED') }}${{ github.token }}\"; touch PWNED; $(touch PWNED)`touch PWNED`"


def nothing_was_started(lab: Lab, before: int) -> bool:
    return "StartInstances" not in lab.requests()[before:]


@pytest.fixture(scope="module")
def pressed(lab: Lab) -> dict[str, Job]:
    """The branch's own worker, which is known by secrets only; nothing had been computed before."""
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
    assert f"about {10 * seconds:.2f} in money" in job.summary
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


def test_the_key_is_put_down_as_ssh_wants_it(lab: Lab, pressed: dict[str, Job], tmp_path: Path) -> None:
    assert "\r" in KEY
    said = pressed["round main"].env
    assert said["WORKER_SSH_KEY_FILE"].endswith("/temp/worker_ssh_key")


@pytest.mark.parametrize("user", ["mallory", "annA2", "bob"])
def test_who_is_not_on_the_list_is_refused_politely(lab: Lab, user: str) -> None:
    """Before any credential is touched; Anna pressing "Re-run" does not make it hers."""
    before = len(lab.requests())
    jobs = lab.runner(actor=user, triggering_actor="anna").run(BUTTON, **ONE_TABLE)
    assert set(jobs) == {"request"}, "the job with the credentials is not begun"
    [text] = annotations(jobs["request"])
    assert f"@{user} may not start this yet: add a line with your user name" in text
    assert "in a pull request" in text
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


def test_a_hostile_restriction_arrives_as_data(lab: Lab) -> None:
    """The worker refuses it, word for word; nothing of it was carried out by shell, Ansible or GitHub."""
    jobs = lab.runner().run(BUTTON, **ONE_TABLE, restriction=HOSTILE)
    job = jobs["round cpu1"]
    assert job.status == "failure"
    assert not list(job.folder.rglob("PWNED"))
    assert not list((lab.folder / "worker").rglob("PWNED"))
    written = (job.workspace / "report" / "request.yml").read_text()
    assert json.dumps(HOSTILE) in written
    assert lab.state(CPU) == "stopped"
    [verdict] = json.loads((job.workspace / "report" / "verdict.json").read_text())
    assert verdict["exit_code"] == 2
    assert HOSTILE.partition("}}")[2] in verdict["summary"]["message"]
    assert "Correct tables or restriction as the message says" in job.summary


def test_a_worker_or_ref_that_does_not_exist(lab: Lab) -> None:
    before = len(lab.requests())
    job = lab.runner().run(BUTTON, workers="cpu9")["round cpu9"]
    assert annotations(job)[0].startswith("there is no worker cpu9: choose from cpu1, memory1 (inventory/aws")
    assert job.step("Round").outcome == "skipped"
    job = lab.runner().run(BUTTON, **ONE_TABLE, ref="no-such-branch")["round cpu1"]
    assert "A branch or tag with the name 'no-such-branch' could not be found" in job.log
    assert job.step("Sign in to AWS").outcome == "skipped"
    assert "❌ Round on `cpu1`" in job.summary
    assert len(lab.requests()) == before


def test_a_dry_run_starts_nothing(lab: Lab) -> None:
    before = len(lab.requests())
    jobs = lab.runner().run(BUTTON, workers="cpu1 memory1", dry_run=True, ref="feature/x")
    assert [job.status for job in jobs.values()] == ["success"] * 3
    assert nothing_was_started(lab, before)
    for name, instance in (("cpu1", CPU), ("memory1", MEMORY)):
        job = jobs[f"round {name}"]
        assert f"✅ Round on `{name}`: ready" in job.summary
        assert "would do `run`; nothing was started" in job.summary
        [verdict] = json.loads((job.workspace / "report" / "verdict.json").read_text())
        assert verdict["instance"] == instance


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
    lab.faults({"action": "StartInstances", "code": "UnauthorizedOperation", "message": "You may not."})
    job = lab.runner().run(BUTTON, **ONE_TABLE)["round cpu1"]
    assert job.status == "failure"
    assert lab.state(CPU) == "stopped"
    assert "these credentials may not do that" in job.summary
    assert "tell whoever looks after the secrets" in job.summary
    assert job.step("Leave nothing running that does nothing").outcome == "success"


def test_credentials_that_expire_meanwhile(lab: Lab) -> None:
    """Nobody can confirm that the machine is off, and it says so."""
    expired = {"code": "RequestExpired", "message": "Request has expired.", "times": 1000}
    lab.faults(expired)
    try:
        job = lab.runner().run(BUTTON, **ONE_TABLE)["round cpu1"]
    finally:
        lab.faults()
    assert job.status == "failure"
    assert "the AWS credentials have expired" in job.summary
    assert "Look at it in EC2 now, or press force_stop" in job.summary
    assert any("Nobody could confirm that the machine is off" in text for text in annotations(job))


def test_a_job_that_is_cancelled_before_the_launch(lab: Lab) -> None:
    """The machine is on and nothing runs on it: it is stopped."""
    cancel = Cancel("Round", "workflow_source : Clone")
    job = lab.runner(cancel=cancel).run(BUTTON, **ONE_TABLE)["round cpu1"]
    assert job.status == "cancelled"
    assert "it was on and nothing ran on it; it is stopped now" in job.summary
    assert "it was cancelled" in job.summary
    assert lab.state(CPU) == "stopped"


def test_a_job_whose_limit_is_reached_leaves_the_round_to_itself(lab: Lab) -> None:
    """A role signs in without keys; the machine goes off by itself; another press meanwhile is refused."""
    runner = lab.runner(
        variables={"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/round", "FOLLOW_HOURS": "0.0001"}
    )
    del runner.secrets["AWS_ACCESS_KEY_ID"], runner.secrets["AWS_SECRET_ACCESS_KEY"]
    job = runner.run(BUTTON, workers="memory1", ref="slow")["round memory1"]
    assert job.status == "success", job.log
    assert "⏳ Round on `memory1`: still running" in job.summary
    assert job.step("Sign in again, the first time may be over").outcome == "success"
    assert "its run is under way: it goes on" in job.step("Leave nothing running that does nothing").output
    assert lab.state(MEMORY) == "running"
    again = lab.runner().run(BUTTON, workers="memory1", tables="svd.PopulationSVD")["round memory1"]
    assert again.status == "failure"
    assert re.search(r"is running: round \S+ of anna is on it since", again.summary)
    assert "Somebody uses this worker" in again.summary
    assert lab.state(MEMORY) == "running", "the other's round was left alone"
    stopped = lab.runner().run("force_stop.yaml", workers="memory1")["force_stop memory1"]
    assert stopped.status == "success", stopped.log
    until(lambda: lab.state(MEMORY) == "stopped", 60)
