"""What a dead worker died of, in plain words."""

from __future__ import annotations

import os
import signal

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS}


def cause_of_death(status: int, peak_memory: int, out_of_memory: bool) -> str:
    """Say how a process ended.

    Parameters
    ----------
    status : int
        As ``os.wait`` gives it.
    peak_memory : int
        The most memory that it had, in bytes.
    out_of_memory : bool
        Whether the kernel has ended some process for want of memory meanwhile.

    Returns
    -------
    str
        Continues a sentence that begins with the worker.
    """
    memory = f"it had {peak_memory / 2**30:.2g} GiB at most"
    if not os.WIFSIGNALED(status):
        code = os.waitstatus_to_exitcode(status)
        return "ended" if code == 0 else f"ended with exit code {code}: the computation ended its own process"
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {number}"
    if number == signal.SIGKILL and out_of_memory:
        return f"was killed (SIGKILL) by the kernel, which was out of memory; {memory}"
    if number == signal.SIGKILL:
        return f"was killed (SIGKILL), by somebody or by the kernel for want of memory; {memory}"
    if number in _CRASHES:
        return f"crashed ({name}) in compiled code; {memory}"
    if number == signal.SIGXCPU:
        return f"was ended ({name}): it had used up its processor time"
    return f"was ended by a signal ({name})"


def last_words(file: int) -> str:
    """Read, and close, the file where Python's fault handler wrote the traceback of a crash."""
    with os.fdopen(file, "rb") as written:
        written.seek(0)
        text = written.read(65536).decode(errors="replace")
    return text.partition("\nExtension modules:")[0].strip()
