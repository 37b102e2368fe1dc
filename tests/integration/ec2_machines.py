"""Emulated EC2 machines that really boot, for tests: containers, removed afterwards whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from ec2_support import PROGRAM, REPOSITORY, call, describe, emulator, state, until

BASE = "python:3.11-slim-bookworm"
sys.path.insert(0, str(REPOSITORY / "roles" / "instance_power" / "library"))


def engine_or_skip() -> None:
    """Without a container engine a test fails in CI and is skipped elsewhere."""
    try:
        docker.from_env().close()
    except docker.errors.DockerException as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to have a Docker engine (.ci/engine.sh starts one): {error}")
        pytest.skip(f"no Docker engine answers here: {error}")


def machine_image(*images: str, bare: bool = False) -> str:
    """Have the machines' image, with these images in its engine; or without an engine."""
    made = subprocess.run(
        [sys.executable, "-m", "ec2_emulator", "image", *(["--bare"] if bare else images)],
        cwd=PROGRAM,
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return str(json.loads(made.stdout)["image"])


class Machines:
    """Some instances and what a test does with them."""

    def __init__(self, ec2: Any, folder: Path) -> None:
        self.ec2 = ec2
        self.folder = folder
        self.known_hosts = folder / "known_hosts"

    def ssh(self, instance: str, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as root, once, at the instance's address of this moment."""
        address = describe(self.ec2, instance)["PublicIpAddress"]
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "2",
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": instance,
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        whom = ["-F", "none", "-i", str(self.folder / "key"), f"ubuntu@{address}"]
        line = ["ssh", *given, *whom, "sudo", "sh", "-c", f"'{command}'"]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)

    def tell(self, instance: str, command: str) -> str:
        """Run a command and return what it says."""
        done = self.ssh(instance, command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def boot(self, instance: str) -> dict[str, Any]:
        """Start an instance and wait until it answers; trust the keys on its console if none are pinned."""
        self.ec2.start_instances(InstanceIds=[instance])
        until(lambda: state(self.ec2, instance) == "running")
        if not self.known_hosts.exists() or instance not in self.known_hosts.read_text():
            keys = until(lambda: self.console_keys(instance))
            with self.known_hosts.open("a") as file:
                file.writelines(f"{instance} {key}\n" for key in keys)
        self.answers(instance)
        return describe(self.ec2, instance)

    def answers(self, instance: str) -> None:
        """Wait until an instance answers."""
        until(lambda: self.ssh(instance, "true").returncode == 0, 60)

    def console_keys(self, instance: str) -> list[str]:
        """Read the host keys as the role does."""
        from ec2_console_keys import host_keys

        return list(host_keys(self.ec2.get_console_output(InstanceId=instance)["Output"]))

    def stop(self, instance: str) -> None:
        """Stop an instance."""
        self.ec2.stop_instances(InstanceIds=[instance])
        until(lambda: state(self.ec2, instance) == "stopped")

    def order(self, *faults: dict[str, Any]) -> None:
        """Order what is to go wrong."""
        file = self.folder / "faults.json"
        file.with_suffix(".test").write_text(json.dumps(faults))
        file.with_suffix(".test").replace(file)


@contextmanager
def machines(folder: Path, instances: list[dict[str, Any]], image: str) -> Iterator[Machines]:
    """Run an emulator whose machines boot; they outlive it, as on AWS, until `remove`."""
    options = ("--backend=container", f"--image={image}", f"--key-file={folder / 'key'}", "--grace=20")
    with emulator(folder, instances, *options) as ec2:
        yield Machines(ec2, folder)


def remove(folder: Path) -> list[str]:
    """Remove a folder's machines for good."""
    done = call("remove", folder)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout)["removed"])


def left(folder: Path) -> list[str]:
    """List what is labelled with the folder in the engine."""
    found = []
    for what in (["ps", "--all"], ["volume", "ls"], ["network", "ls"]):
        kind = "{{.Names}}" if what[0] == "ps" else "{{.Name}}"
        line = ["docker", *what, "--filter", f"label=ec2-emulator.directory={folder}", "--format", kind]
        found += subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    return found
