"""Who uses a server and when it ends: one server per folder, shared by the runs that registered for it.

Every run that uses a server has a file `watchers/<pid>` in the folder. The server ends when none of them
names a living process any more, so it never outlives its users and never leaves one of them alone. A file
lock keeps "nobody is left, I end" and "it answers, I use it" apart.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import processes

START_SECONDS = 180.0
ANSWER_SECONDS = 20.0
USER = "*[0-9]"
"""Pattern of the files of registered processes; one that is being written has a suffix."""


class SessionError(Exception):
    """A server cannot be had or be ended; the message says why and what to do."""


def public_key(file: Path) -> str:
    """Return the public half of a private SSH key, which is made if it is missing."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "emulated-ec2", "-f", file], check=True
        )
    return file.with_name(f"{file.name}.pub").read_text().strip()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep all other starts, releases and ends on this folder waiting."""
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start(
    directory: Path, declared: list[dict[str, Any]], watch: int, backend: str, options: list[str]
) -> dict[str, Any]:
    """Register a process for the folder's server, starting it unless it runs; return once it listens.

    Parameters
    ----------
    directory : Path
        Folder of the server, its machines and its log; made if it does not exist.
    declared : list of dict
        Declared instances, complete.
    watch : int
        Process id whose life the server shares.
    backend : str
        What the machines are: `localhost` or `container`.
    options : list of str
        Further options of the server.

    Returns
    -------
    dict
        `url` and `pid` of the server, `gateway` at which its machines reach this computer, the `network` that
        they are in, and `started`: whether it was started just now.
    """
    watched = processes.look(watch)
    if watched is None or watched.ended:
        raise SessionError(f"there is no process {watch} to watch")
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        server = living(directory)
        if server and (server["instances"], server["backend"]) != (declared, backend):
            raise SessionError(
                f"a server with other instances runs on {directory} (process {server['pid']}); "
                "wait until the round that uses it has ended, or choose another ec2_emulator_directory"
            )
        users = directory / "watchers"
        users.mkdir(exist_ok=True)
        for gone in {int(file.name) for file in users.glob(USER)} - set(watchers(directory)):
            (users / str(gone)).unlink()
        watcher = users / str(watch)
        fresh = watcher.with_suffix(".new")
        fresh.write_text(repr(watched.started))
        fresh.replace(watcher)
        started = server is None
        try:
            server = server or _spawn(directory, declared, ["--backend", backend, *options])
        except SessionError:
            watcher.unlink()
            raise
    return {key: server[key] for key in ("url", "pid", "gateway", "network")} | {"started": started}


def release(directory: Path, watch: int) -> dict[str, Any]:
    """Unregister a process; when it was the last one, return once the server has ended.

    Returns
    -------
    dict
        `released`: whether it was registered; `ended`: whether the server has ended.
    """
    if not directory.exists():
        return {"released": False, "ended": False}
    with locked(directory):
        server = living(directory)
        watcher = directory / "watchers" / str(watch)
        released = watcher.exists()
        watcher.unlink(missing_ok=True)
        others = watchers(directory)
    if server is None or others:
        return {"released": released, "ended": False}
    deadline = time.monotonic() + START_SECONDS
    while _runs(server):
        if time.monotonic() > deadline:
            raise SessionError(f"server process {server['pid']} does not end; see {directory}/server.log")
        time.sleep(0.02)
    return {"released": released, "ended": True}


def watchers(directory: Path) -> list[int]:
    """List the living processes that are registered."""
    found = []
    for file in (directory / "watchers").glob(USER):
        process = processes.look(int(file.name))
        try:
            started = file.read_text()
        except FileNotFoundError:
            continue  # released just now
        if process and not process.ended and repr(process.started) == started:
            found.append(process.pid)
    return found


def living(directory: Path) -> dict[str, Any] | None:
    """Read where the folder's server answers; None when none runs.

    Raises
    ------
    SessionError
        When its process lives and does not answer.
    """
    server = _announced(directory)
    if server is None or not _runs(server):
        return None
    try:
        # No proxy: the server is on this computer.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{server['url']}/health", timeout=ANSWER_SECONDS):
            return server
    except OSError as error:
        if not _runs(server):
            return None
        raise SessionError(
            f"the server on {directory} (process {server['pid']}) does not answer: {error}; "
            f"end it with `kill {server['pid']}` and run again"
        ) from error


def announce(directory: Path, url: str, also: dict[str, Any]) -> None:
    """Tell where this process answers, and what else others must know of it."""
    me = processes.look(os.getpid())
    if me is None:
        raise SessionError("this process cannot find itself; is /proc mounted?")
    server = {"url": url, "pid": me.pid, "started": me.started} | also
    fresh = directory / "endpoint.json.new"
    fresh.write_text(json.dumps(server, indent=1) + "\n")
    fresh.replace(directory / "endpoint.json")


def _announced(directory: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((directory / "endpoint.json").read_text())
    except FileNotFoundError:
        return None
    return found


def _runs(server: dict[str, Any]) -> bool:
    process = processes.look(server["pid"])
    return bool(process and not process.ended and process.started == server["started"])


def _spawn(directory: Path, declared: list[dict[str, Any]], options: list[str]) -> dict[str, Any]:
    (directory / "endpoint.json").unlink(missing_ok=True)
    with (directory / "server.log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.server", str(directory), *options],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            text=True,
        )
    if child.stdin:
        with child.stdin as pipe:
            pipe.write(json.dumps(declared))
    deadline = time.monotonic() + START_SECONDS
    while not (server := _announced(directory)):
        if child.poll() is not None:
            raise SessionError(f"the server ended at its start: {_last_line(directory / 'server.log')}")
        if time.monotonic() > deadline:
            child.kill()
            raise SessionError(
                f"no answer of the server within {START_SECONDS:.0f} s; see {directory}/server.log"
            )
        time.sleep(0.02)
    return server


def _last_line(file: Path) -> str:
    return (file.read_text().strip().splitlines() or ["(it said nothing)"])[-1]
