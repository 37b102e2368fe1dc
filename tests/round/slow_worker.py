"""The real worker, computing `slow_pipeline`, on machines that have its dependencies from the beginning.

So its build there is that of changed code and takes seconds; the first build of all is test_rehearsal.py's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ec2_machines import BASE, engine_or_skip, machine_image
from image_support import certificates
from project import ROOT, Project

DEPENDENCIES = "datajoint-round-dependencies:latest"
_CODE = "# Layer 3"
"""Where the Dockerfile has done with dependencies."""

_BASE = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n"
BRANCHES = {
    "broken": f"{_BASE}RUN echo almost there && exit 42\n",
    "endless": f"{_BASE}RUN sleep 600\n",
}
"""Dockerfiles of branches that cannot be built."""


def machines_with_dependencies() -> str:
    """Have the image of machines whose engine has the worker's dependencies, built as on a machine."""
    engine_or_skip()
    lock = ROOT / ".cache" / "dependencies.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as turn, tempfile.TemporaryDirectory() as folder:
        fcntl.flock(turn, fcntl.LOCK_EX)  # who comes second finds it made
        context = Path(folder)
        (context / "Dockerfile").write_text((ROOT / "Dockerfile").read_text().partition(_CODE)[0])
        (context / "requirements").mkdir()
        shutil.copy(ROOT / "requirements" / "worker.txt", context / "requirements")
        arguments = [f"BASE_IMAGE={BASE}"]
        if bundle := certificates():
            shutil.copyfile(bundle, context / "ca-bundle.crt")
            arguments.append("CA_BUNDLE=ca-bundle.crt")
        given = [word for argument in arguments for word in ("--build-arg", argument)]
        built = subprocess.run(
            ["docker", "build", "--quiet", "--tag", DEPENDENCIES, *given, context],
            env=os.environ
            | {"DOCKER_BUILDKIT": "0"},  # the builder, and the cache, of the role workflow_image
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert built.returncode == 0, built.stdout + built.stderr
        return machine_image(BASE, DEPENDENCIES)


def slow_project(project: Project, folder: Path) -> Project:
    """Clone a project whose `main`, checked out, computes `slow_pipeline` on that base."""
    folder.mkdir(parents=True)
    made = Project(folder, project.environments)
    made.git("clone", "--quiet", str(project.folder), ".")
    dockerfile = folder / "Dockerfile"
    _, mark, code = dockerfile.read_text().partition(_CODE)
    assert mark, f"the Dockerfile has no {_CODE}"
    dockerfile.write_text(f"{_BASE}{mark}{code}")
    shutil.copy(Path(__file__).with_name("slow_pipeline.py"), folder / "workflow")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message=A slow pipeline")
    for branch, text in BRANCHES.items():
        made.git("checkout", "--quiet", "-b", branch)
        dockerfile.write_text(text)
        made.git("commit", "--quiet", "--all", f"--message={branch}")
        made.git("checkout", "--quiet", "main")
    return made
