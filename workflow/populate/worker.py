"""A worker: one process that computes one key at a time, as its supervisor tells it."""

from __future__ import annotations

import faulthandler
import os
import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import datajoint as dj

from workflow.pipeline.connection import line_of
from workflow.populate import machine
from workflow.populate.attempt import Attempt, Outcome, reopen, steadily
from workflow.populate.claim import Queue
from workflow.populate.liveness import lock_name
from workflow.populate.packets import weigh_statements
from workflow.populate.troubles import is_alive

_inherited: list[Any] = []


@dataclass(frozen=True)
class Contract:
    """What a worker is told when it starts."""

    crew: int
    worker: int
    version: str  # commit and worker, for the rows that it computes
    threads: int  # of linear algebra


@dataclass(frozen=True)
class Ready:
    """A worker is connected and waits for its first key."""


@dataclass(frozen=True)
class Report:
    """A worker has finished a key and waits for the next."""

    outcome: Outcome
    peak_memory: int  # bytes


def work(queues: Sequence[Queue], channel: socket.socket, last_words: int, contract: Contract) -> None:
    """Compute what comes, until the supervisor closes the channel.

    Parameters
    ----------
    queues : sequence of Queue
        Of all tables of the run; their connection is closed and opened here.
    channel : socket
        To the supervisor: `Job` comes, or None at the end; `Ready` and `Report` go.
    last_words : int
        File descriptor for the traceback of a crash in compiled code.
    contract : Contract
        The rest.
    """
    faulthandler.enable(file=last_words, all_threads=False)
    machine.set_blas_threads(contract.threads)
    connection = dj.conn()
    weigh_statements(connection)
    connection.for_queues, connection.lock_name = False, lock_name(contract.crew, f"worker {contract.worker}")
    os.register_at_fork(after_in_child=lambda: _disown(connection))
    steadily(connection, lambda: reopen(connection) if not is_alive(connection) else None)
    talk = Connection(channel.detach())
    try:
        talk.send(Ready())
        while (job := talk.recv()) is not None:
            outcome = Attempt(queues[job.table], job, contract.crew, contract.version).run()
            talk.send(Report(outcome, peak_memory()))
    except (EOFError, ConnectionError):  # the supervisor is gone; the kernel is about to end us too
        return
    connection.close()


def _disown(connection: dj.Connection) -> None:
    """Keep a process that a computation forks away from our connection: two cannot talk at once."""
    _inherited.append(connection._conn)  # nor end it, as its destruction would
    if (line := line_of(connection._conn)) >= 0:  # nor keep it open when we are dead
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, line, inheritable=False)
        os.close(nothing)
    connection._conn, connection._is_closed = None, True


def peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
