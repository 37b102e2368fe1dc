"""The emulated EC2, started for a test, and what tests do with it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

REPOSITORY = Path(__file__).parents[2]
PROGRAM = REPOSITORY / "roles" / "ec2_emulator" / "files"
INSTANCE = "i-0123456789abcdef0"


def call(
    *arguments: object, instances: list[dict[str, Any]] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the emulator's command line."""
    return subprocess.run(
        [sys.executable, "-m", "ec2_emulator", *map(str, arguments)],
        cwd=PROGRAM,
        input=json.dumps(instances or []),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def start(directory: Path, instances: list[dict[str, Any]], *options: object) -> dict[str, Any]:
    done = call("start", directory, "--lag=0.2", "--grace=0.5", *options, instances=instances)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def emulator(directory: Path, instances: list[dict[str, Any]], *options: object) -> Iterator[Any]:
    """Run the emulator for this test process; yield a client."""
    url = start(directory, instances, f"--watch-pid={os.getpid()}", *options)["url"]
    try:
        yield client(url)
    finally:
        done = call("release", directory, f"--watch-pid={os.getpid()}")
        assert done.returncode == 0, done.stderr


def client(url: str, access_key: str = "any") -> Any:
    return boto3.client(
        "ec2",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id=access_key,
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}, proxies={"http": ""}),
    )


def describe(ec2: Any, instance: str = INSTANCE) -> dict[str, Any]:
    return ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def state(ec2: Any, instance: str = INSTANCE) -> str:
    return describe(ec2, instance)["State"]["Name"]


def started(ec2: Any, instance: str = INSTANCE) -> None:
    ec2.start_instances(InstanceIds=[instance])
    until(lambda: state(ec2, instance) == "running")


@contextmanager
def process_group(script: str) -> Iterator[subprocess.Popen]:
    """Run a shell as leader of its own process group, and end the group."""
    with subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE) as leader:
        try:
            yield leader
        finally:
            if leader.poll() is None:
                os.killpg(leader.pid, signal.SIGKILL)


def until(condition: Callable[[], Any], patience: float = 120.0) -> Any:
    """Wait until something is the case, and return it."""
    deadline = time.monotonic() + patience
    while not (outcome := condition()):
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.02)
    return outcome


def play(
    folder: Path, plays: list[dict[str, Any]], inventory: dict[str, Any], *options: str, **environment: str
) -> dict[str, Any]:
    """Run plays; return what the JSON callback tells, with the exit status as `rc`."""
    (folder / "play.yml").write_text(json.dumps(plays))
    (folder / "inventory.yml").write_text(json.dumps(inventory))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "inventory.yml", "play.yml", *options],
        cwd=folder,
        env=os.environ
        | {
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(REPOSITORY / "roles"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        }
        | environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert "{" in done.stdout, done.stdout + done.stderr
    text = done.stdout[done.stdout.index("{\n") :]
    return json.JSONDecoder().raw_decode(text)[0] | {"rc": done.returncode}


def outcomes(report: dict[str, Any], host: str) -> list[dict[str, Any]]:
    """List a host's task results in order, each with its task's name."""
    tasks = [task for one in report["plays"] for task in one["tasks"] if host in task["hosts"]]
    return [task["hosts"][host] | {"task": task["task"]["name"].split(" : ")[-1]} for task in tasks]


def refusal(report: dict[str, Any], host: str) -> str:
    """Return the message with which a host failed."""
    failed = [one for one in outcomes(report, host) if one.get("failed")]
    assert failed, f"{host} did not fail"
    return failed[-1]["msg"]
