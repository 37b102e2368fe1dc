"""The container engine: how it is reached, how machines run in it, and how all that was made is removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, NotFound

from .backend import BackendError

DIRECTORY_LABEL = "ec2-emulator.directory"
INSTANCE_LABEL = "ec2-emulator.instance"


@contextmanager
def errors(doing: str) -> Iterator[None]:
    """Turn the engine's errors into `BackendError`."""
    try:
        yield
    except (DockerException, OSError) as error:
        text = " ".join(str(getattr(error, "explanation", None) or error).split())
        raise BackendError(f"{doing}: {text}") from error


def connect() -> docker.DockerClient:
    """Reach the engine of DOCKER_HOST, or of this computer."""
    with errors("no container engine answers (start Docker, or set DOCKER_HOST)"):
        return docker.from_env(max_pool_size=50)


def isolation(info: dict[str, Any]) -> dict[str, Any]:
    """Say with which options systemd and an engine run inside a container, given the outer engine's `info`.

    With control groups v1 all capabilities but SYS_RESOURCE, which some hosts withhold, are enough. With v2
    systemd needs a writable tree of its own, and only privileged containers get one.
    """
    if info.get("CgroupVersion") == "2":
        return {"privileged": True, "cgroupns": "private"}
    return {
        "cap_add": ["ALL"],
        "cap_drop": ["SYS_RESOURCE"],
        "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
        "cgroupns": "host",
        "volumes": ["/sys/fs/cgroup:/sys/fs/cgroup:rw"],
    }


def isolation_flags(info: dict[str, Any]) -> list[str]:
    """Say the same to `docker run`."""
    flags = []
    for name, value in isolation(info).items():
        flag = "--" + name.removesuffix("s" if name == "volumes" else "").replace("_", "-")
        flags += [flag] if value is True else [f"{flag}={one}" for one in _listed(value)]
    return flags


def remove(directory: Path) -> list[str]:
    """Remove every container, volume and network that this folder's emulator made; return their names."""
    client = connect()
    wanted = {"label": f"{DIRECTORY_LABEL}={directory}"}
    gone = []
    with errors(f"the machines of {directory} cannot be removed"):
        for container in client.containers.list(all=True, filters=wanted):
            container.remove(force=True)
            gone.append(container.name)
        for thing in [*client.volumes.list(filters=wanted), *client.networks.list(filters=wanted)]:
            try:
                thing.remove()
            except NotFound:
                continue
            gone.append(thing.name)
    return gone


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
