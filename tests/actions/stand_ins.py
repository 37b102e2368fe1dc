"""What stands in for the actions that the workflows use: each takes only the inputs that the action has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from jobs import Job, StepFailedError, WorkflowError
from runner import Runner

Action = Callable[[Job, dict[str, str], Runner], dict[str, str]]


def known(*names: str) -> Callable[[Action], Action]:
    """Refuse inputs that the action does not have."""

    def decorate(action: Action) -> Action:
        def checked(job: Job, given: dict[str, str], runner: Runner) -> dict[str, str]:
            if set(given) - set(names):
                raise WorkflowError(f"the action has no input {set(given) - set(names)}")
            return action(job, given, runner)

        return checked

    return decorate


@known("repository", "ref", "path", "fetch-depth", "fetch-tags", "persist-credentials", "sparse-checkout")
def checkout(job: Job, given: dict[str, str], runner: Runner) -> dict[str, str]:
    """Clone, and leave the wanted commit checked out."""
    place = job.workspace / given.get("path", "")
    ref = given.get("ref") or job.contexts["github"]["sha"]
    if ref.startswith("-"):
        raise StepFailedError(f"{ref}: no ref")
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", runner.repository, place], check=True)
    for name in (f"refs/remotes/origin/{ref}", f"refs/tags/{ref}", ref):
        done = subprocess.run(
            ["git", "checkout", "--quiet", "--detach", name, "--"],
            cwd=place,
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return {"ref": ref, "commit": ref}
    raise StepFailedError(f"A branch or tag with the name '{ref}' could not be found")


#: A Python that makes a virtual environment of what this test has, and writes down what pip is to install.
LENT = """#!/bin/sh
case "$*" in
"-m venv .venv")
    mkdir -p .venv/bin && cp "$0" .venv/bin/python && ln -s {own}/bin/ansible* .venv/bin/
    ;;
"-m pip install "*) echo "$*" >>{installed} ;;
*) exec {real} "$@" ;;
esac
"""


@known("python-version", "python-version-file", "cache", "cache-dependency-path", "check-latest")
def setup_python(job: Job, given: dict[str, str], runner: Runner) -> dict[str, str]:
    """Put a Python into the path."""
    tools = job.folder / "tools"
    tools.mkdir()
    real = Path(os.path.realpath(sys.executable))
    lent = LENT.format(own=sys.prefix, real=real, installed=runner.installed)
    for name in ("python", "python3"):
        if runner.cached is None:
            (tools / name).symlink_to(real)
        else:
            (tools / name).write_text(lent)
            (tools / name).chmod(0o755)
    job.path.append(str(tools))
    version = ".".join(map(str, sys.version_info[:3]))
    return {"python-version": version, "python-path": str(tools / "python")}


@known("path", "key", "restore-keys", "lookup-only", "fail-on-cache-miss")
def cache(job: Job, given: dict[str, str], runner: Runner) -> dict[str, str]:
    """Keep what a job that succeeds has made; or have the packages of this test's own environment already."""
    if given["path"] != ".venv" or len(given["key"]) < 64:
        raise WorkflowError(f"this cache knows the virtual environment by a digest, not {given}")
    place, key = job.workspace / ".venv", given["key"]
    if runner.cached is None:
        place.symlink_to(sys.prefix)
    elif key in runner.cached:
        shutil.copytree(runner.cached[key], place, symlinks=True)
    else:
        kept = runner.folder / f"cached-{len(runner.cached)}"

        def keep() -> None:
            shutil.copytree(place, kept, symlinks=True)
            runner.cached[key] = kept  # type: ignore[index]

        job.posts.append(keep)
        return {"cache-hit": ""}
    return {"cache-hit": "true"}


@known(
    *("aws-region", "role-to-assume", "aws-access-key-id", "aws-secret-access-key", "role-duration-seconds"),
    *("aws-session-token", "role-session-name", "audience", "mask-aws-account-id"),
)
def sign_in(job: Job, given: dict[str, str], runner: Runner) -> dict[str, str]:
    """Export credentials: a role's by OIDC, or the keys that are given."""
    if not given.get("aws-region"):
        raise StepFailedError("Input required and not supplied: aws-region")
    if given.get("role-to-assume"):
        if job.definition["permissions"].get("id-token") != "write":
            raise StepFailedError("Did not get ACTIONS_ID_TOKEN_REQUEST_URL variable")
        if not 900 <= int(given.get("role-duration-seconds") or 3600) <= 43200:
            raise StepFailedError("role-duration-seconds must be from 900 to 43200")
        key, secret = (
            f"ASIAROLE{sum(step.outputs.get('aws-account-id') is not None for step in job.steps)}",
            "role",
        )
    else:
        key, secret = given.get("aws-access-key-id", ""), given.get("aws-secret-access-key", "")
    if not key or not secret:
        raise StepFailedError("Credentials could not be loaded, please check your action inputs")
    job.env |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": given["aws-region"]}
    if given.get("role-to-assume"):
        job.env["AWS_SESSION_TOKEN"] = "role-token"
    return {"aws-account-id": "123456789012"}


@known(
    "name",
    "path",
    "if-no-files-found",
    "retention-days",
    "compression-level",
    "overwrite",
    "include-hidden-files",
)
def upload(job: Job, given: dict[str, str], runner: Runner) -> dict[str, str]:
    """Keep files."""
    found = []
    for line in given["path"].split():
        place = job.workspace / line
        found += [file for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    if not found:
        return {"artifact-id": "", "artifact-url": ""}
    kept = job.folder / "artifacts" / given["name"]
    for file in found:
        copy = kept / file.relative_to(job.workspace)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)
        job.artifacts.setdefault(given["name"], []).append(copy)
    return {"artifact-id": "7", "artifact-url": "https://github.invalid/lab/round/actions/runs/1/artifacts/7"}


STAND_INS: dict[str, Action] = {
    "actions/checkout": checkout,
    "actions/setup-python": setup_python,
    "actions/cache": cache,
    "actions/upload-artifact": upload,
    "aws-actions/configure-aws-credentials": sign_in,
}
