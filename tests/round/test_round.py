"""Rounds of operation from a fresh clone: what comes home, what is left behind, what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ec2_support import describe
from lab_fleet import lab_fleet
from project import INSTANCE, Project, cloud, states

STOPPED = {INSTANCE: "stopped"}


@pytest.fixture(scope="module")
def ec2(sandbox: Path) -> Iterator[Any]:
    """The sandbox's EC2, from the first test on that asks it between rounds."""
    with cloud(sandbox / "ec2") as client:
        yield client


def test_the_first_round_brings_results_home_and_stops_the_machine(project: Project, sandbox: Path) -> None:
    output = (sandbox / "first.log").read_text()
    assert "svd.PopulationSVD: 22 of 22, 0 failed" in output, "the log is followed live"
    assert re.search(r"svd\.PopulationSVD +22 +21 +0 +1 ", output), "the verdict has its table"
    summary = json.loads((sandbox / "first" / "summary.json").read_text())
    assert summary["commit"] == project.git("rev-parse", "HEAD")
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{7}-[0-9a-f]{4}", summary["round"])
    assert (sandbox / "first" / "log.txt").read_text().strip()
    assert "<html" in (sandbox / "first" / "report.html").read_text()
    with cloud(sandbox / "ec2") as client:
        assert states(client) == STOPPED
        tags = {tag["Key"]: tag["Value"] for tag in describe(client, INSTANCE)["Tags"]}
    assert (tags["round"], tags["round_commit"]) == (summary["round"], summary["commit"])
    assert tags["round_owner"]
    assert tags["round_deadline"] > tags["round_started"]


def test_no_secret_is_left_behind(sandbox: Path) -> None:
    """The password is in no log, result or file of the worker, and no credential file remains."""
    password = (sandbox / "database" / "password").read_text().strip()
    assert len(password) >= 16
    assert password not in (sandbox / "first.log").read_text()
    assert not list(sandbox.glob("worker/rounds/*/secrets"))
    for one in sandbox.glob("worker/rounds/2*"):
        assert not Path("/run/datajoint-round", one.name, "secrets").exists()
    for path in [*sandbox.glob("worker/rounds/*/*"), *sandbox.glob("first/*"), *sandbox.glob("ec2/**/*")]:
        if path.is_file():
            assert password not in path.read_text(errors="replace"), path


def test_no_process_is_left_behind(sandbox: Path) -> None:
    """Server, emulator, timer and launcher have all ended."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes()
        except OSError:  # it ended meanwhile
            continue
        assert str(sandbox).encode() not in command, command


def test_the_second_round_finds_nothing_due(project: Project, sandbox: Path) -> None:
    again = project.round(sandbox)
    assert again.status == 0, again.output
    assert again.summary["message"] == "nothing was due"
    assert "nothing was due" in again.reason()
    assert again.artifacts is not None
    assert sorted(path.name for path in again.artifacts.iterdir()) == [
        "log.txt",
        "report.html",
        "summary.json",
    ]


def test_a_round_with_failing_keys_says_which(project: Project, sandbox: Path, ec2: Any) -> None:
    """The rest is done, the exit status is not 0, the machine is stopped; mended, the next round is good."""
    poison = """
row = (img.ROIdeltaF - img.ROIBad).to_dicts(limit=1)[0]
epoch = {name: row[name] for name in exp2.SessionEpoch().primary_key}
(svd.PopulationSVD & epoch).delete(prompt=False)
img.ROIdeltaF.update1({**row, 'dff_trace': {'not': 'an array'}})
"""
    _with_tables(project, sandbox, poison)
    failed = project.round(sandbox)
    assert failed.status == 2, failed.output
    assert failed.summary["verdict"] == "failed"
    assert {t["table"]: t["failed"] for t in failed.summary["tables"] if t["failed"]} == {
        "svd.PopulationSVD": 1
    }
    assert "failed: svd.PopulationSVD" in failed.reason()
    assert "not a vector of numbers" in failed.reason()
    assert states(ec2) == STOPPED
    mend = """
import numpy as np
for row in img.ROIdeltaF.to_dicts():
    if isinstance(row['dff_trace'], dict):
        epoch = {name: row[name] for name in exp2.SessionEpoch().primary_key}
        like = (img.ROIdeltaF & epoch).to_dicts(order_by='roi_number DESC', limit=1)[0]['dff_trace']
        img.ROIdeltaF.update1({**row, 'dff_trace': np.random.default_rng(1).standard_normal(np.size(like))})
"""
    _with_tables(project, sandbox, mend)
    mended = project.round(sandbox)
    assert mended.status == 0, mended.output
    tables = {t["table"]: (t["due"], t["done"], t["failed"], t["skipped"]) for t in mended.summary["tables"]}
    assert tables["svd.PopulationSVD"] == (1, 1, 0, 0)
    assert all(due == done + skipped for due, done, _, skipped in tables.values())


REFUSED: list[tuple[dict[str, Any], str, bool]] = [
    ({"workflow_source_repository": "/no/such/repository"}, "/no/such/repository cannot be read", False),
    (
        {"workflow_source_version": "no-such-branch"},
        "workflow_source_version no-such-branch does not exist",
        False,
    ),
    ({"instance_power_instance_id": "i-0badbadbadbadbad0"}, "i-0badbadbadbadbad0", False),
    (
        {
            "ec2_emulator_instances": [
                {"id": "i-00000000000000001", "name": "a", "shutdown_behavior": "terminate"}
            ],
            "instance_power_instance_id": "i-00000000000000001",
        },
        "would be terminated",
        False,
    ),
    (
        {
            "ec2_emulator_instances": [{"id": f"i-0000000000000000{i}", "name": "twin"} for i in (2, 3)],
            "instance_power_instance_id": "",
            "instance_power_tags": {"Name": "twin"},
        },
        "2 instances match",
        False,
    ),
    ({"workflow_settings_password": ""}, "workflow_settings_password is empty", False),
    ({"workflow_settings_password": "wrong"}, "check DJ_USER and DJ_PASS", True),
    (
        {
            "workflow_settings_host": "127.0.0.1",
            "workflow_settings_port": 1,
            "workflow_run_container_mounts": [],
        },
        "cannot be reached",
        True,
    ),
    ({"round_arguments": ["run", "--tables", "svd.Nothing"]}, "--tables svd.Nothing: no such table", True),
    (
        {
            "workflow_image_minimum_free_mb": 10**9,
            "workflow_image_venv_directory": "{{ sandbox_home }}/full",
        },
        "MB",
        True,
    ),
    ({"follow": "perhaps"}, "follow is perhaps: give true or false", False),
    ({"instance_deadline_hours": 0}, "instance_deadline_hours is 0", False),
    ({"instance_deadline_hours": 23}, "must be less than instance_deadline_hours (23)", False),
]


@pytest.mark.parametrize(("variables", "words", "starts"), REFUSED, ids=[case[1][:30] for case in REFUSED])
def test_bad_input_is_refused_and_the_machine_is_stopped(
    project: Project, sandbox: Path, ec2: Any, variables: dict[str, Any], words: str, starts: bool
) -> None:
    """What can be known beforehand is refused before the machine starts; it is stopped in any case."""
    folder = sandbox / ("others" if "ec2_emulator_instances" in variables else "ec2")
    log = folder / "server.log"
    before = log.read_text().count("StartInstances") if log.exists() else 0
    if others := variables.get("ec2_emulator_instances"):
        with cloud(folder, others) as client:
            refused = project.round(sandbox, ec2_emulator_directory=str(folder), **variables)
            assert states(client) == {one["id"]: "stopped" for one in others}
    else:
        refused = project.round(sandbox, **variables)
        assert states(ec2) == STOPPED
    assert refused.status == 2, refused.output
    assert words in refused.reason(), refused.output
    assert "Traceback" not in refused.output
    assert log.read_text().count("StartInstances") == before + starts


def _with_tables(project: Project, sandbox: Path, script: str) -> None:
    """Run Python statements in the sandbox's database with all tables bound."""
    prologue = "from workflow.settings import load; from workflow import commands\n"
    prologue += "commands._open(load())\nfrom workflow.pipeline import exp2, img, lab, stimanal, svd\n"
    program = project.folder / "roles" / "embedded_database" / "files" / "embedded_database.py"
    subprocess.run(
        [
            sys.executable,
            program,
            "exec",
            "--directory",
            sandbox / "database",
            "--",
            sys.executable,
            "-c",
            prologue + script,
        ],
        cwd=project.folder,
        env={**os.environ, "WORKFLOW_UPSTREAM": "declare"},
        check=True,
    )


@pytest.fixture
def fleet(project: Project, tmp_path: Path) -> Path:
    """The inventory of the lab's fleet, with its examples."""
    return lab_fleet(project.folder, tmp_path)


def test_a_round_on_the_aws_inventory(project: Project, sandbox: Path, fleet: Path) -> None:
    """The fleet's inventory drives the same API calls; here the API is the emulated one."""
    connection = json.loads((sandbox / "database" / "connection.json").read_text())
    declared: dict[str, Any] = {
        "ec2_emulator_directory": str(sandbox / "fleet"),
        "ec2_emulator_instances": [
            {"id": "i-0123456789abcdef0", "name": "cpu1"},
            {"id": "i-0fedcba9876543210", "name": "memory1"},
        ],
        "instance_power_endpoint_url": "{{ hostvars.localhost.ec2_emulator_endpoint }}",
        "instance_power_access_key": "sandbox",
        "instance_power_secret_key": "sandbox",
        "instance_power_poll_seconds": 0.2,
        "instance_power_known_hosts": "",  # this machine has no console
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "round_home": str(sandbox / "fleet-worker") + "/{{ inventory_hostname }}",
        "round_artifacts": str(sandbox / "artifacts") + "/{{ round }}/{{ inventory_hostname }}",
        "instance_deadline_directory": str(sandbox / "fleet-worker") + "/{{ inventory_hostname }}",
        "instance_deadline_identity_file": str(sandbox / "fleet/machines")
        + "/{{ instance_power_instance_id }}/instance-id",
        "instance_deadline_poweroff_command": [
            "touch",
            str(sandbox / "fleet/machines") + "/{{ instance_power_instance_id }}/poweroff",
        ],
        "instance_deadline_process_file": str(sandbox / "fleet/machines")
        + "/{{ instance_power_instance_id }}/processes",
        "workflow_source_repository": str(project.folder),
        "workflow_image_python": sys.executable,
        "embedded_database_directory": str(sandbox / "database"),
        "workflow_settings_backend": "postgresql",
        "workflow_settings_port": connection["port"],
        "workflow_settings_database_name": connection["name"],
        "round_environment": {"WORKFLOW_UPSTREAM": "declare"},
    }
    secrets = {
        "DJ_HOST": connection["host"],
        "DJ_USER": connection["user"],
        "DJ_PASS": (sandbox / "database" / "password").read_text().strip(),
    }
    with cloud(sandbox / "fleet", declared["ec2_emulator_instances"]) as client:
        outcome = project.round(sandbox, str(fleet), secrets, **declared)
        assert states(client) == {"i-0123456789abcdef0": "stopped", "i-0fedcba9876543210": "stopped"}
    assert outcome.status == 0, outcome.output
    assert "cpu1: succeeded" in outcome.reason()
    assert "memory1: succeeded" in outcome.reason()


def test_inventories_are_complete(project: Project, fleet: Path) -> None:
    """Every inventory parses and gives every worker what the roles require."""
    for inventory in ("inventory/sandbox", fleet, "inventory/local"):
        listed = subprocess.run(
            [Path(sys.executable).with_name("ansible-inventory"), "-i", inventory, "--list"],
            cwd=project.folder,
            env=os.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        hosts = json.loads(listed.stdout)["_meta"]["hostvars"]
        workers = {host: variables for host, variables in hosts.items() if host != "localhost"}
        assert workers
        for variables in workers.values():
            assert {
                "workflow_source_repository",
                "round_home",
                "round_artifacts",
                "workflow_settings_host",
            } <= set(variables)


def test_a_control_node_that_is_killed(project: Project, sandbox: Path, ec2: Any) -> None:
    """The machine is still claimed; the next round is told by whom; force_stop frees it; nothing is lost."""
    process = subprocess.Popen(
        project.command(sandbox, {}),
        cwd=project.folder,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "workflow_source : Clone" in line:
            break
    process.kill()
    process.communicate()
    assert states(ec2) == {INSTANCE: "running"}

    refused = project.round(sandbox)
    assert refused.status == 2
    assert re.search(
        r"i-0000000000000da7a is running: round \d{8}T\d{6}Z-[0-9a-f]{7}-[0-9a-f]{4} of \S+ is on it",
        refused.reason(),
    )

    command = project.command(sandbox, {})
    command[command.index("run.yml")] = "playbooks/force_stop.yml"
    stopped = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=False)
    assert stopped.returncode == 0, stopped.stdout
    assert states(ec2) == STOPPED
    again = project.round(sandbox)
    assert again.status == 0, again.output


def test_a_round_on_the_local_inventory(project: Project, sandbox: Path) -> None:
    """Without EC2 nothing is started or stopped; everything else is the same."""
    connection = json.loads((sandbox / "database" / "connection.json").read_text())
    outcome = project.round(
        sandbox,
        "local",
        {
            "DJ_HOST": connection["host"],
            "DJ_USER": connection["user"],
            "DJ_PASS": (sandbox / "database" / "password").read_text().strip(),
        },
        ansible_connection="local",
        ansible_python_interpreter=sys.executable,
        workflow_image_python=sys.executable,
        workflow_source_repository=str(project.folder),
        round_home=str(sandbox / "local"),
        round_artifacts=str(sandbox / "artifacts") + "/{{ round }}",
        embedded_database_directory=str(sandbox / "database"),
        workflow_settings_backend="postgresql",
        workflow_settings_port=connection["port"],
        workflow_settings_database_name=connection["name"],
        round_environment={"WORKFLOW_UPSTREAM": "declare"},
    )
    assert outcome.status == 0, outcome.output
    assert "workstation: succeeded" in outcome.reason()
    assert "Ask EC2" not in outcome.output


def test_a_machine_that_never_answers_is_stopped(project: Project, sandbox: Path, ec2: Any) -> None:
    """No connection, no deadline, no launcher: the control node stops the machine and says why."""
    own = project.folder / "inventory" / "sandbox" / "host_vars" / "sandbox.yml"
    own.parent.mkdir()
    own.write_text("{ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}\n")
    try:
        lost = project.round(sandbox, round_connect_timeout=2)
    finally:
        own.unlink()
        own.parent.rmdir()
    assert lost.status == 2, lost.output
    assert "Wait until the machine answers" in lost.reason()
    assert states(ec2) == STOPPED
