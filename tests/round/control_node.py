"""An ansible-playbook run as a control node of its own, which can be watched and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

from ec2_support import until

QUICK_SSH = "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=1 -o ServerAliveCountMax=3"


class ControlNode:
    """An ansible-playbook run in a session of its own, with what it says."""

    def __init__(self, command: list[str], folder: Path, **more: str) -> None:
        environment = {"ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1", "ANSIBLE_SSH_ARGS": QUICK_SSH, **more}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.output += line

    def says(self, words: str) -> None:
        """Wait until it has said something."""
        until(lambda: words in self.output or self.process.poll() is not None, 900)
        assert words in self.output, self.output[-3000:]

    def end(self) -> int:
        """Wait for its end; return its exit status."""
        status = self.process.wait(900)
        self.reader.join(30)
        if self.process.stdout:
            self.process.stdout.close()
        return status

    def kill(self) -> None:
        """Kill it and all that it started, as a lost computer would go."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.end()
