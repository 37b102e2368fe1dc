"""A lab's fork of this tree, with an emulated fleet and a database, on which its workflows run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ec2_support import describe, emulator
from runner import Runner
from stand_ins import STAND_INS

ROOT = Path(__file__).resolve().parents[2]
CPU, MEMORY, OWN = "i-0123456789abcdef0", "i-0fedcba9876543210", "i-00000000000c0de00"
DATABASE = ROOT / "roles" / "embedded_database" / "files" / "embedded_database.py"
PASSWORD_OF_AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#: As people write it: byte order mark and line ends of Windows, an @, odd case, comments behind names.
LIST = "\ufeff# May press\r\n@Anna  # the postdoc\r\n\r\n\tBOB-2 #\r\nrobot[bot]\r\nd_acme"
FLEET = """---
all:
  hosts:
    localhost: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  children:
    workers:
      children:
        cpu_optimized: {hosts: {cpu1: {instance_power_instance_id: %s}}}
        memory_optimized: {hosts: {memory1: {instance_power_instance_id: %s}}}
        gpu_optimized:
    feature_x: {children: {memory_optimized: }}
"""
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\r\nb3BlbnNzaC1rZXktdjEAAAAA\r\n-----END OPENSSH PRIVATE KEY-----"


#: Stands for the worker: it waits until a file `go` is there or it is told to end; --at-once for nothing.
TOY = '''"""Stands for the worker."""
import json, signal, sys, time
from pathlib import Path

folder, asked = Path(sys.argv[sys.argv.index("--output") + 1]), []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
print("at work", flush=True)
deadline = time.monotonic() + (0 if "--at-once" in sys.argv else 300)
while not asked and not (folder / "go").exists() and time.monotonic() < deadline:
    time.sleep(0.1)
table = {"table": "toy.Toy", "due": 2, "done": 2, "failed": 0, "skipped": 0, "seconds": 0.1}
summary = {"verdict": "stopped" if asked else "succeeded", "message": "", "tables": [table], "keys": []}
summary["arguments"] = sys.argv[1:]
(folder / "summary.json").write_text(json.dumps(summary))
(folder / "report.html").write_text("<html></html>")
sys.exit(4 if asked else 0)
'''


@dataclass
class Lab:
    """The fork, and what it works on."""

    folder: Path
    origin: Path
    ec2: Any
    url: str
    secrets: dict[str, str]
    count: int = 0

    def runner(self, **more: Any) -> Runner:
        """Make a runner that the lab's secrets are known to."""
        self.count += 1
        folder = self.folder / f"runs-{self.count}"
        environ = {
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": self.url,
            "NO_PROXY": "127.0.0.1",
            "LANG": "C.UTF-8",
            "ANSIBLE_NOCOLOR": "1",
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        }
        known = {"secrets": dict(self.secrets), "environ": environ, "first_id": 1000 * self.count}
        return Runner(folder, self.origin, STAND_INS, **known, **more)

    def with_a_role(self, variables: dict[str, str] | None = None, **more: Any) -> Runner:
        """Make a runner that signs in by a role, without keys."""
        role = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/round"}
        made = self.runner(variables=role | (variables or {}), **more)
        del made.secrets["AWS_ACCESS_KEY_ID"], made.secrets["AWS_SECRET_ACCESS_KEY"]
        return made

    def state(self, instance: str = CPU) -> str:
        """Ask EC2 how an instance is."""
        return str(describe(self.ec2, instance)["State"]["Name"])

    def faults(self, *faults: dict[str, Any]) -> None:
        """Order what is to go wrong."""
        (self.folder / "ec2" / "faults.json").write_text(json.dumps(faults))

    def let_go(self, worker: str) -> None:
        """Let the toy on a worker come to its end."""
        latest = max((self.folder / "worker" / worker / "rounds").glob("2*/output"))
        (latest / "go").touch()

    def requests(self) -> str:
        """Read what was asked of EC2."""
        return (self.folder / "ec2" / "server.log").read_text()

    def load_sample(self) -> None:
        """Load the small sample, with which there is something to compute."""
        self._with_database(sys.executable, "-m", "workflow", "sample", "--size", "small")

    def python(self, script: str) -> None:
        """Run Python statements in the lab's database with all tables bound."""
        prologue = "from workflow.settings import load; from workflow import commands\n"
        prologue += "commands._open(load())\nfrom workflow.pipeline import exp2, img, lab, stimanal, svd\n"
        self._with_database(sys.executable, "-c", prologue + script)

    def _with_database(self, *command: str) -> None:
        subprocess.run(
            [sys.executable, DATABASE, "exec", "--directory", self.folder / "database", "--", *command],
            cwd=ROOT,
            env={**os.environ, "WORKFLOW_UPSTREAM": "declare"},
            check=True,
            timeout=300,
        )


def edits(folder: Path, connection: dict[str, Any]) -> dict[str, Any]:
    """What the lab writes into inventory/aws/group_vars/workers.yml: machines that are this computer."""
    machine = f"{folder}/ec2/machines/{{{{ instance_power_instance_id }}}}"
    home = f"{folder}/worker/{{{{ inventory_hostname }}}}"
    return {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
        "instance_power_poll_seconds": 0.2,
        "instance_power_known_hosts": "",
        "instance_deadline_identity_file": f"{machine}/instance-id",
        "instance_deadline_poweroff_command": ["touch", f"{machine}/poweroff"],
        "instance_deadline_directory": f"{home}/deadline",
        "instance_deadline_process_file": f"{machine}/processes",
        "workflow_run_process_file": f"{machine}/processes",
        "workflow_run_collect_seconds": 10,
        "instance_power_sweep_pause_seconds": 1,
        "round_home": home,
        "workflow_image_runtime": "venv",
        "workflow_image_python": sys.executable,
        "workflow_image_venv_directory": f"{folder}/environments",
        "workflow_image_ca_bundle": os.environ.get("PIP_CERT", ""),
        "workflow_settings_backend": "postgresql",
        "workflow_settings_user": connection["user"],
        "workflow_settings_port": connection["port"],
        "workflow_settings_database_name": connection["name"],
        "round_environment": {"WORKFLOW_UPSTREAM": "declare"},
    }


def borrow_environment(folder: Path) -> None:
    """Have the worker's virtual environment as if it had been made: it borrows the packages of this one."""
    find = ROOT / "roles" / "workflow_image" / "files" / "find_venv.py"
    requirements = ROOT / "requirements" / "worker.txt"
    asked = subprocess.run([sys.executable, find, folder, requirements], check=True, capture_output=True)
    place = Path(json.loads(asked.stdout)["path"])
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, timeout=60)
    packages = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    (place / packages / "borrowed.pth").write_text(f"{Path(sys.prefix) / packages}\n")
    (place / "complete").touch()


def copy_tree(folder: Path) -> None:
    """Copy what git would track of this tree."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def lend_environment(folder: Path) -> None:
    """Have the control node's virtual environment as if just made: it is of the packages of this one."""
    (folder / ".venv").mkdir()
    for name in ("bin", "include", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (folder / ".venv" / "control").touch()


def publish(folder: Path, *branches: str) -> None:
    """Make a folder a repository of one commit, with further branches."""
    git = ["git", "-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    begin = ["init", "--quiet", "--initial-branch=main"]
    commit = ["commit", "--quiet", "--message=Everything"]
    for words in (begin, ["add", "--all"], commit, *(["branch", branch] for branch in branches)):
        subprocess.run([*git, *words], cwd=folder, check=True)


def documented_caller() -> str:
    """Read the workflow that docs/operations.md gives as an example of one that calls the button."""
    page = (ROOT / "docs" / "operations.md").read_text()
    [found] = re.findall(r"^```yaml caller\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return str(found)


def fork_of(folder: Path, own: dict[str, Any]) -> Path:
    """Make the lab's repository: this tree, what a lab changes in it, and further branches."""
    origin = folder / "origin"
    copy_tree(origin)
    variables = origin / "inventory" / "aws" / "group_vars" / "workers.yml"
    variables.write_text(yaml.safe_dump(yaml.safe_load(variables.read_text()) | own))
    (origin / "inventory" / "aws" / "hosts.yml").write_text(FLEET % (CPU, MEMORY))
    workflows = origin / ".github" / "workflows"
    (workflows / "start_process_allow_list").write_bytes(LIST.encode())
    (workflows / "nightly.yaml").write_text(documented_caller())
    publish(origin, "memory1", "feature/x")
    return origin


@contextmanager
def on_a_branch(origin: Path, branch: str) -> Iterator[None]:
    """Commit what is changed meanwhile to a branch of its own, which begins at main."""
    git = ["git", "-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    subprocess.run([*git, "checkout", "--quiet", "-B", branch, "main"], cwd=origin, check=True)
    yield
    subprocess.run([*git, "commit", "--quiet", "--all", "--message=Changed"], cwd=origin, check=True)
    subprocess.run([*git, "checkout", "--quiet", "main"], cwd=origin, check=True)


def fork(folder: Path, connection: dict[str, Any]) -> Path:
    """Make the repository of a lab whose machines are this computer, with a toy, and without scripts."""
    origin = fork_of(folder, edits(folder, connection))
    with on_a_branch(origin, "toy"):
        (origin / "workflow" / "__main__.py").write_text(TOY)
    with on_a_branch(origin, "elsewhere"):
        shutil.rmtree(origin / ".github" / "scripts")
    return origin


@contextmanager
def open_lab(folder: Path) -> Iterator[Lab]:
    """Start database and fleet, fork."""
    place = folder / "database"
    subprocess.run([sys.executable, DATABASE, "start", "--directory", place], check=True, timeout=120)
    declared = [
        {"id": CPU, "name": "cpu1"},
        {"id": MEMORY, "name": "memory1"},
        {"id": OWN, "name": "own"},
    ]
    try:
        connection = json.loads((place / "connection.json").read_text())
        secrets = {
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": PASSWORD_OF_AWS,
            "SSH_KEY": KEY,
            "DJ_HOST": connection["host"],
            "DJ_PASS": (place / "password").read_text().strip(),
            "main_instance_id": OWN,
            "main_instance_ip": "192.0.2.7",
        }
        with emulator(folder / "ec2", declared) as ec2:
            made = Lab(folder, fork(folder, connection), ec2, ec2.meta.endpoint_url, secrets)
            borrow_environment(folder / "environments")
            yield made
    finally:
        subprocess.run([sys.executable, DATABASE, "stop", "--directory", place], check=True, timeout=120)
