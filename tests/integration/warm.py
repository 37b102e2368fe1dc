"""Run Python as ``subprocess.run`` does, in a process that has already imported what takes long.

Most of the processor time of a short run of ours goes into importing the libraries that it stands on. So one
process per test process imports them once, none of our own modules among them, and a run is a fork of it:
with its own arguments, environment, working directory and output, and the exit code that it would have had.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import pickle
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

#: What our package and DataJoint import; DataJoint itself reads the environment when it is imported.
LIBRARIES = (
    *("numpy", "pandas", "networkx", "networkx.algorithms", "pydantic_settings", "pyparsing"),
    *("pymysql", "psycopg2", "scipy.linalg", "scipy.optimize", "scipy.signal", "tqdm"),
)


@dataclass(frozen=True)
class Run:
    """Arguments of an interpreter (``-c`` or ``-m`` first), its environment and working directory."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str


class WarmPython:
    """Our end: starts the process when it is first needed, and ends it with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._door = ""

    def run(
        self, arguments: list[str], environment: dict[str, str], folder: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run Python to its end; what it has written, and its exit code."""
        if self._process is None:
            self._start()
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(self._door)
                order = pickle.dumps(Run(arguments, environment, str(folder)))
                socket.send_fds(line, [len(order).to_bytes(8, "big")], [output.fileno(), errors.fileno()])
                line.sendall(order)
                answer = line.recv(16)
            assert answer, "the process that had everything imported is gone"
            texts = []
            for written in (output, errors):
                written.seek(0)
                texts.append(io.TextIOWrapper(io.BytesIO(written.read())).read())
        status = os.waitstatus_to_exitcode(int(answer))
        return subprocess.CompletedProcess([sys.executable, *arguments], status, *texts)

    def _start(self) -> None:
        folder = tempfile.mkdtemp(prefix="warm-")
        self._door = f"{folder}/door"
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._door],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        atexit.register(self._end, folder)

    def _end(self, folder: str) -> None:
        assert self._process is not None
        self._process.communicate()  # it reads the end of its input
        Path(self._door).unlink()
        Path(folder).rmdir()


def _serve(door: str) -> Run:
    """Fork for every order; returns in the fork that is to carry it out."""
    for name in LIBRARIES:
        import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(door)
        listening.listen(16)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listening, sys.stdin], [], [])
            if sys.stdin in ready:
                os._exit(0)
            line, _ = listening.accept()
            if os.fork() == 0:
                break
            line.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, handles, _, _ = socket.recv_fds(line, 8, 2)
    with line.makefile("rb") as stream:
        run: Run = pickle.loads(stream.read(int.from_bytes(size, "big")))
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        line.sendall(str(status).encode())
        os._exit(0)
    line.close()
    _become(run, handles)
    return run


def _become(run: Run, handles: list[int]) -> None:
    """Take over what a new process would have been given."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, handle in enumerate((nothing, *handles)):
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(run.folder)
    os.environ.clear()
    os.environ.update(run.environment)
    paths = [path for path in run.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[0:1] = ["" if run.arguments[0] == "-c" else str(Path.cwd()), *paths]
    sys.argv = [run.arguments[0], *run.arguments[2:]]


if __name__ == "__main__":
    order = _serve(sys.argv[1])
    if order.arguments[0] == "-c":
        exec(compile(order.arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy._run_module_as_main(order.arguments[1])  # type: ignore[attr-defined]
