"""What runs on this computer, told so that a process id used again is never taken for the old one."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
ON_LINUX = (PROC / "self" / "stat").exists()
PRECISION = 0.011 if ON_LINUX else 1.0
"""Seconds by which `Process.started` may lie before the true start: a clock tick, whole seconds with `ps`."""

PLAYBOOK = re.compile(r"((?! -).)*\bansible-playbook( |$)|\S+ -m ansible playbook ")
"""Command line of a run: as a script, perhaps behind its interpreter, or as a module."""


@dataclass(frozen=True)
class Process:
    """One process, at the moment it was looked at.

    Attributes
    ----------
    pid, parent, group : int
        Process id, parent's id and process group's id.
    started : float
        When it started, in seconds on the clock of `now`. Together with `pid` it names a process for good.
    ended : bool
        True for a zombie: it has ended and only waits to be reaped.
    command : str
        Its command line, arguments separated by blanks.
    """

    pid: int
    parent: int
    group: int
    started: float
    ended: bool
    command: str


def now() -> float:
    """Seconds on the clock of `Process.started`: since boot on Linux, since 1970 elsewhere."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if ON_LINUX else time.time()


def boot() -> str:
    """Name this boot of the computer ('' where the system does not tell)."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def look(pid: int) -> Process | None:
    """Describe one process; None when there is none with this id."""
    return _from_proc(pid) if ON_LINUX else next(iter(_from_ps(["-p", str(pid)])), None)


def members(group: int) -> list[Process]:
    """List the living processes of a process group (zombies do not count)."""
    everything: Iterable[Process | None]
    if ON_LINUX:
        everything = (_from_proc(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdigit())
    else:
        everything = _from_ps(["-A"])
    return [process for process in everything if process and process.group == group and not process.ended]


def controlling_playbook(pid: int) -> Process | None:
    """Find the ansible-playbook run that a process belongs to.

    Ansible forks its workers, so the nearest ancestor with this name is usually a worker that ends with its
    task. A fork keeps its parent's command line: the run itself is the last one of the equal ones.
    """
    found = None
    process = look(pid)
    while process and process.parent > 1:
        process = look(process.parent)
        if found and (process is None or process.command != found.command):
            break
        if process and PLAYBOOK.match(process.command):
            found = process
    return found


def _from_proc(pid: int) -> Process | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
        command = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, group, *rest = stat[stat.rindex(")") + 2 :].split()
    started = int(rest[16]) / os.sysconf("SC_CLK_TCK")
    words = command.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return Process(pid, int(parent), int(group), started, state in "ZX", words)


def _from_ps(selection: list[str]) -> list[Process]:
    columns = "pid=,ppid=,pgid=,state=,lstart=,command="
    answer = subprocess.run(
        ["ps", *selection, "-ww", "-o", columns],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
    )
    found = []
    for line in answer.stdout.splitlines():
        pid, parent, group, state, *words = line.split(None, 9)
        started = time.mktime(time.strptime(" ".join(words[:5]), "%a %b %d %H:%M:%S %Y"))
        command = words[5] if len(words) > 5 else ""
        found.append(Process(int(pid), int(parent), int(group), started, state.startswith("Z"), command))
    return found
