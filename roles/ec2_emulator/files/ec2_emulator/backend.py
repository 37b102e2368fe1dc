"""The seam between an emulated instance and the machine behind it."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from . import processes

log = logging.getLogger("ec2_emulator")

GONE = -1.0
"""In place of the start of a process group that is no more."""


class BackendError(Exception):
    """The machine did not do what it was told; the message says what is the matter."""


@dataclass(frozen=True)
class Addresses:
    """Where a machine can be reached: at a public address for this boot, at a private one for good."""

    public: str
    private: str


class Backend(ABC):
    """What an emulated instance needs of a machine. `start` and `stop` may take their time."""

    gateway = "127.0.0.1"
    """Address at which the machines reach this computer."""

    subnet = "127.0.0.0/8"
    """Network that their own addresses are of."""

    @abstractmethod
    def start(self, instance_id: str, elastic: str = "") -> Addresses:
        """Switch the machine on, with the Elastic IP as its address if there is one; raise `BackendError`."""

    @abstractmethod
    def stop(self, instance_id: str) -> None:
        """Switch the machine off, whatever runs on it; return when it is off, else raise `BackendError`.

        Also called after the machine switched itself off, to tidy up. Calling it twice does no harm.
        """

    @abstractmethod
    def is_off(self, instance_id: str) -> bool:
        """Tell whether the machine has switched itself off. Asked several times a second while it runs."""

    @abstractmethod
    def destroy(self, instance_id: str) -> None:
        """Remove a machine for good, with its disk."""

    @abstractmethod
    def console(self, instance_id: str) -> str:
        """Return what the machine wrote on its console since its start."""

    @abstractmethod
    def take_address(self, allocation_id: str) -> str:
        """Give an Elastic IP; raise `BackendError` where there are none."""

    @abstractmethod
    def release_address(self, allocation_id: str) -> None:
        """Take an Elastic IP back."""

    @abstractmethod
    def move(self, instance_id: str, before: str, elastic: str) -> str:
        """Change the public address of a machine that runs (to a new one, without Elastic IP); return it."""


class LocalhostBackend(Backend):
    """Machines that are all this computer, which is never powered off.

    A machine is a folder. `instance-id` exists while it runs; creating `poweroff` is its way to power itself
    off; `processes` lists the leaders of the process groups that run on it, one process id per line, and they
    are what a stop ends. `boot.json` is this class's own memory: when the machine was started, and which
    process each listed id meant when it was first seen.

    Parameters
    ----------
    directory : Path
        Folder of the machines' folders.
    grace : float
        Seconds between SIGTERM and SIGKILL.
    """

    address = "127.0.0.1"

    def __init__(self, directory: Path, grace: float = 5.0) -> None:
        self.directory = directory
        self.grace = grace

    def start(self, instance_id: str, elastic: str = "") -> Addresses:
        """Forget the last run and announce the instance id."""
        folder = self._folder(instance_id)
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in ("poweroff", "processes"):
            (folder / left_over).unlink(missing_ok=True)
        self._remember(folder, {"boot": processes.boot(), "started": processes.now(), "groups": {}})
        (folder / "instance-id").write_text(f"{instance_id}\n")
        return Addresses(self.address, self.address)

    def is_off(self, instance_id: str) -> bool:
        """Look for `poweroff`, and note the process groups listed by now, while their ids are fresh."""
        self._groups(self._folder(instance_id))
        return (self._folder(instance_id) / "poweroff").exists()

    def stop(self, instance_id: str) -> None:
        """End the listed process groups: SIGTERM, then SIGKILL after the grace."""
        folder = self._folder(instance_id)
        groups = self._groups(folder)
        for number, patience in ((signal.SIGTERM, self.grace), (signal.SIGKILL, self.grace)):
            for group in groups:
                _signal(group, number)
            deadline = time.monotonic() + patience
            while groups := [group for group in groups if processes.members(group)]:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
        if groups:
            raise BackendError(f"process groups {groups} of {instance_id} do not end")
        (folder / "instance-id").unlink(missing_ok=True)

    def destroy(self, instance_id: str) -> None:
        """Do nothing: the disk is this computer's."""

    def console(self, instance_id: str) -> str:
        """Return nothing: there is no console of its own."""
        return ""

    def take_address(self, allocation_id: str) -> str:
        """Refuse: there is but one address."""
        raise BackendError("machines that are this computer have no addresses to choose from")

    def release_address(self, allocation_id: str) -> None:
        """Do nothing: none was given."""

    def move(self, instance_id: str, before: str, elastic: str) -> str:
        """Leave everything as it is."""
        return before

    def _groups(self, folder: Path) -> list[int]:
        """Return the living process groups of a machine: known ones that still exist, and new ones listed.

        An id counts only if it led its own group when first seen, and its process had started after the
        machine and before the list was written. It counts no longer once its group is gone, and never again.
        """
        try:
            memory = json.loads((folder / "boot.json").read_text())
        except FileNotFoundError:
            return []
        known: dict[str, float] = memory["groups"]
        groups = {pid: started if _is_group(int(pid), started) else GONE for pid, started in known.items()}
        listed, written = _listed(folder / "processes")
        if memory["boot"] == processes.boot():
            earliest, latest = memory["started"] - processes.PRECISION, written + processes.PRECISION
            for pid in listed - set(known):
                leader = processes.look(int(pid))
                if leader is None or not earliest <= leader.started <= latest:
                    groups[pid] = GONE
                elif leader.group == leader.pid:
                    groups[pid] = leader.started
        if groups != known:
            self._remember(folder, memory | {"groups": groups})
        return [int(pid) for pid, started in groups.items() if started != GONE and int(pid) != os.getpgrp()]

    def _folder(self, instance_id: str) -> Path:
        return self.directory / instance_id

    @staticmethod
    def _remember(folder: Path, memory: dict[str, object]) -> None:
        fresh = folder / "boot.json.new"
        fresh.write_text(json.dumps(memory))
        fresh.replace(folder / "boot.json")


def _listed(file: Path) -> tuple[set[str], float]:
    """Read the process ids in a file, and when it was written; a line that is no id is of no account."""
    try:
        lines = file.read_text(errors="replace").splitlines()
        age = time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return set(), 0.0
    pids = {str(int(line)) for line in lines if line.strip().isdecimal() and int(line) > 1}
    return pids, processes.now() - age


def _is_group(pid: int, started: float) -> bool:
    """Tell whether a process group still is the one whose leader started then.

    A leader may end before its group. Its id is not given to another process while the group lives.
    """
    leader = processes.look(pid)
    if started == GONE or (leader and leader.started != started):
        return False
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        log.warning("process group %d belongs to another user", pid)
    return True


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        log.info("process group %d ended by itself", group)
    except PermissionError as error:
        raise BackendError(f"process group {group} belongs to another user and cannot be ended") from error
    else:
        log.info("%s to process group %d", number.name, group)
