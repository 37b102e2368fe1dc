"""A repository whose image takes a second to build and computes nothing: it waits, and ends as it is told."""

from __future__ import annotations

import subprocess
from pathlib import Path

#: Arguments: VERB EXIT_STATUS --output FOLDER. It ends when FOLDER/go is there, or is told to by SIGTERM.
PROGRAM = '''"""Stands for run_workflow."""
import json, signal, sys, time
from pathlib import Path

status, folder = int(sys.argv[2]), Path(sys.argv[4])
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
print("at work", flush=True)
deadline = time.monotonic() + 600
while not asked and not (folder / "go").exists() and time.monotonic() < deadline:
    time.sleep(0.1)
print("through", flush=True)
verdict = "stopped" if asked else "succeeded" if status == 0 else "failed"
table = {"table": "toy.Toy", "due": 2, "done": 2 - status, "failed": status, "skipped": 0, "seconds": 0.1}
summary = {"verdict": verdict, "message": "", "tables": [table], "keys": []}
(folder / "summary.json").write_text(json.dumps(summary))
(folder / "report.html").write_text("<html></html>")
sys.exit(4 if asked else status)
'''

DOCKERFILE = """ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG COMMIT
ARG VERSION
COPY program.py /program.py
ENTRYPOINT ["python3", "/program.py"]
"""

#: Branches, and what a build of them does besides.
BRANCHES = {
    "main": "",
    "broken": "RUN echo almost there && exit 42\n",
    "endless": "RUN sleep 600\n",
}


def toy_repository(folder: Path) -> Path:
    """Make it, with its branches; `main` is checked out."""

    def git(*words: str) -> None:
        identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
        subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)

    (folder / "requirements").mkdir(parents=True)
    git("init", "--quiet", "--initial-branch=main")
    (folder / "requirements" / "worker.txt").touch()
    (folder / "program.py").write_text(PROGRAM)
    for branch, more in BRANCHES.items():
        git("checkout", "--quiet", "-B", branch)
        (folder / "Dockerfile").write_text(DOCKERFILE + more)
        git("add", "--all")
        git("commit", "--quiet", f"--message={branch}")
    git("checkout", "--quiet", "main")
    return folder
