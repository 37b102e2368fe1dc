"""A machine of the emulated EC2 that really boots, and what tests do on it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ec2_support as ec2
from ec2_machines import engine_or_skip, machine_image, machines, remove

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
    engine_or_skip()
    try:
        with machines(directory, [{"id": INSTANCE}], machine_image(*images)) as started:
            yield Booted(started.ec2, directory)
    finally:
        remove(directory)
