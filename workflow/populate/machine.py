"""What this machine has: cores, memory, software, the processes on it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from workflow import __version__

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_SET_THREADS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)

#: Environment variables by which somebody may have chosen the number of BLAS threads.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """How many cores this process may use, by its affinity and its control group."""
    available = len(os.sched_getaffinity(0))
    quota = _quota()
    return max(1, min(available, int(quota + 0.5)) if quota else available)


def _quota() -> float | None:
    """Cores that the control group grants; None for no limit."""
    version2 = _words("/sys/fs/cgroup/cpu.max")
    if len(version2) == 2 and version2[0] != "max":
        return int(version2[0]) / int(version2[1])
    quota = _words("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period = _words("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return int(quota[0]) / int(period[0])
    return None


def free_memory() -> int:
    """Bytes that new processes may take, by the kernel's estimate and the control group.

    A control group's usage counts files that were read and can be dropped from memory at any time.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    free = int(found.group(1)) * 1024 if found else 2**62
    version2, version1 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/memory"
    for group, limit, usage, inactive in (
        (version2, "max", "current", "inactive_file"),
        (version1, "limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
    ):
        most, used = _words(f"{group}.{limit}"), _words(f"{group}.{usage}")
        if most and used and most[0] != "max":
            droppable = re.search(rf"^{inactive} (\d+)$", _text(f"{group}.stat"), re.MULTILINE)
            free = min(free, int(most[0]) - int(used[0]) + (int(droppable[1]) if droppable else 0))
    return max(0, free)


def software() -> str:
    """Name the versions of whatever results depend on besides the commit."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("datajoint", "numpy", "scipy"))
    return f"workflow {__version__}, python {platform.python_version()}, {packages}"


def oom_kills() -> int:
    """How often the kernel has ended a process for want of memory, here or in our control group."""
    total = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        found = re.search(r"^oom_kill (\d+)", _text(path), re.MULTILINE)
        total += int(found.group(1)) if found else 0
    return total


def place() -> str:
    """Names the kernel's run and process table that our process ids belong to."""
    boot = _text("/proc/sys/kernel/random/boot_id").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def started(pid: int) -> int:
    """When a process started, in the kernel's ticks since boot; 0 if there is none, or a dead one."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else 0


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def reap_orphans(child: int) -> None:
    """As a container's first process, bury what computations started and left behind; not our own child."""
    if os.getpid() != 1:
        return
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
        if ended.si_pid == child:
            return
        os.waitpid(ended.si_pid, 0)


def set_blas_threads(count: int) -> None:
    """Let this process's linear algebra use so many threads, unless somebody chose a number for it.

    The library that NumPy and SciPy bring reads its environment only when it is loaded, and a worker is a
    copy of a process that has loaded it.
    """
    if any(os.environ.get(name) for name in THREAD_VARIABLES):
        return
    libraries = set(re.findall(r"(/\S+openblas\S*\.so\S*)", _text("/proc/self/maps")))
    for path in sorted(libraries):
        library = ctypes.CDLL(path)
        for name in _SET_THREADS:
            if hasattr(library, name):
                getattr(library, name)(ctypes.c_int(count))


def _words(path: str) -> list[str]:
    return _text(path).split()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
