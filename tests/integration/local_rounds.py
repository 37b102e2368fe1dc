"""Runs on this machine, launched as a round launches them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from role_support import ROOT

LAUNCH = ROOT / "roles" / "workflow_run" / "files" / "workflow_run_launch"
STATE = LAUNCH.with_name("workflow_run_state")


class Rounds:
    """A folder of rounds on this machine.

    Where it has systemd, the launcher takes us for a user who may not use it. We may be in a unit ourselves.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        shims = home.with_name("shims")
        shims.mkdir(exist_ok=True)
        (shims / "id").write_text("#!/bin/sh\necho 1000\n")
        (shims / "id").chmod(0o755)
        path = os.pathsep.join((str(shims), os.environ["PATH"]))
        self.environment = os.environ | {"PATH": path, "INVOCATION_ID": "of another unit"}

    def launch(
        self, name: str, *command: str, limit: int = 60, poweroff: str = "", container: str = ""
    ) -> subprocess.CompletedProcess[str]:
        folder = self.home / "rounds" / name
        (folder / "secrets").mkdir(parents=True)
        words = ["start", "", folder / "secrets", limit, 1, 1, "", poweroff, container, *command]
        return subprocess.run(
            [shutil.copy(LAUNCH, folder / "launch"), *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def read(self, file: str) -> str:
        path = self.home / "rounds" / "current" / file
        return path.read_text().strip() if path.exists() else ""

    def state(self) -> dict[str, str]:
        said = subprocess.run([STATE, self.home, "5"], capture_output=True, text=True, check=True).stdout
        return dict(line.split("=", 1) for line in said.partition("\n\n")[0].splitlines())
