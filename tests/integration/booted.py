"""A machine of the emulated EC2 that really boots, and what tests do on it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import ec2_support as ec2
import pytest

INSTANCE = "i-0000000000000c0de"


@dataclass
class Booted:
    """An instance and the container behind it; `run` is what a person at its keyboard would do."""

    api: Any
    directory: Path
    instance: str = INSTANCE

    @property
    def container(self) -> str:
        """Name of the machine's container."""
        return f"ec2-{hashlib.sha256(str(self.directory).encode()).hexdigest()[:10]}-{self.instance}"

    def run(self, *command: object, check: bool = True, **environment: str) -> str:
        """Run a command as root; return what it says."""
        given = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        done = subprocess.run(
            ["docker", "exec", *given, self.container, *map(str, command)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def put(self, source: Path, destination: str) -> None:
        """Copy a file to the machine."""
        subprocess.run(
            ["docker", "cp", str(source), f"{self.container}:{destination}"], check=True, capture_output=True
        )

    def state(self) -> str:
        """Return what the API says of the instance."""
        return ec2.state(self.api, self.instance)

    def on(self) -> None:
        """Have it running, and systemd ready."""
        if self.state() == "stopping":
            self.off()
        if self.state() == "stopped":
            ec2.started(self.api, self.instance)
        ec2.until(
            lambda: self.run("systemctl", "is-active", "multi-user.target", check=False) == "active\n", 60
        )

    def off(self, patience: float = 60) -> None:
        """Wait until the API says that it is stopped."""
        ec2.until(lambda: self.state() == "stopped", patience)

    def reason(self) -> str:
        """Return why it is stopped."""
        text: str = ec2.describe(self.api, self.instance)["StateReason"]["Message"]
        return text


@contextmanager
def booted(directory: Path, *images: str) -> Iterator[Booted]:
    """Start the emulated EC2 with one machine; remove both afterwards."""
    try:
        docker.from_env().close()
    except docker.errors.DockerException as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to have a Docker engine (.ci/engine.sh starts one): {error}")
        pytest.skip(f"no Docker engine answers here: {error}")
    made = _emulator("image", *images)
    options = ["--backend=container", f"--image={made['image']}", f"--key-file={directory}/key", "--grace=20"]
    started = _emulator("start", directory, f"--watch-pid={os.getpid()}", *options)
    try:
        yield Booted(ec2.client(started["url"]), directory)
    finally:
        ec2.call("release", directory, f"--watch-pid={os.getpid()}")
        ec2.call("remove", directory)


def _emulator(*arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "ec2_emulator", *map(str, arguments)],
        cwd=ec2.PROGRAM,
        input=json.dumps([{"id": INSTANCE, "tags": {}}]),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
