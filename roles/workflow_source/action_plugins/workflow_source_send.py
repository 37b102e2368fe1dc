"""Action plugin: pack a commit on the control node, send it to the worker, and clone it there."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

DOCUMENTATION = r"""
name: workflow_source_send
short_description: Pack a commit on the control node, send it to the worker, and clone it there
description:
  - The task's environment is that of git on the worker.
  - A clone that is there already is left alone.
  - In check mode nothing is packed or sent.
options:
  repository:
    description: URL of the repository, or path of a checkout on the control node.
    type: str
    required: true
  commit:
    description: The commit.
    type: str
    required: true
  directory:
    description: Directory of the clone on the worker.
    type: path
    required: true
  token:
    description: Token of a private repository.
    type: str
    default: ""
  environment:
    description: Environment of git on the control node.
    type: dict
    default: {}
"""

GIT = Path(__file__).parents[1] / "files" / "workflow_source_git"

#: Takes the bundle from standard input, to its end even where it cannot be written: a connection that can
#: send no more is taken for a lost one. Prints the commit that the directory is at.
CLONE = """
set -eu
export LC_ALL=C
bundle=$1.bundle
trap 'rm -f "$bundle"' EXIT
(umask 077 && cat >"$bundle") || { cat >/dev/null; exit 1; }
if ! [ -e "$1/.git/config" ]; then
    git clone --quiet --no-checkout "$bundle" "$1"
    git -C "$1" checkout --quiet --detach "$2"
    ! [ -e "$1/.gitmodules" ] || git -C "$1" submodule --quiet update --init --recursive
fi
git -C "$1" rev-parse HEAD
"""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Two steps: a bundle of the commit here, a clone of the bundle there."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset({"repository", "commit", "directory", "token", "environment"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send the commit; the result's `after` is the commit that the directory is at."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = [self._task.args.get(name) for name in ("repository", "commit", "directory")]
        if not all(given):
            raise AnsibleActionFail("workflow_source_send: give repository, commit and directory")
        repository, commit, directory = (str(value) for value in given)
        if self._task.check_mode:
            return {**result, "changed": True}
        try:
            bundle = self._pack(repository, commit)
            after = self._clone(bundle, self._remote_expand_user(directory), commit)
        except _GitError as error:
            return {**result, "failed": True, "msg": str(error)}
        return {**result, "changed": True, "after": after}

    def _pack(self, repository: str, commit: str) -> bytes:
        """Make the bundle in a temporary directory and read it."""
        token = self._task.args.get("token", "")
        environment = {**os.environ, **self._task.args.get("environment", {}), "LC_ALL": "C"}
        try:
            with tempfile.TemporaryDirectory(suffix=".workflow_source") as place:
                packed = subprocess.run(  # noqa: S603 -- our own script; no shell reads its words
                    [GIT, "pack", repository, commit],
                    cwd=place,
                    env=environment,
                    input=f"{token}\n",
                    capture_output=True,
                    encoding="utf-8",
                    errors="replace",
                    check=False,
                )
                if packed.returncode != 0:
                    raise _GitError("on the control node", packed.stderr)
                return (Path(place) / "source.bundle").read_bytes()
        except OSError as error:
            raise _GitError("on the control node", str(error)) from error

    def _clone(self, bundle: bytes, directory: str, commit: str) -> str:
        """Clone the bundle on the worker; return the commit that the directory is at then."""
        if self._connection.transport == "local":
            # Without pipelining, a password for become makes a terminal of standard input.
            self._connection.set_option("pipelining", True)
        words = shlex.join(["/bin/sh", "-c", CLONE, "sh", directory, commit])
        answer = self._low_level_execute_command(
            f"{self._compute_environment_string()} {words}", in_data=bundle
        )
        if answer["rc"] != 0:
            raise _GitError("on the worker", answer["stderr"])
        return "".join(answer["stdout"].split()[-1:])


class _GitError(Exception):
    """What git, or the shell that calls it, says; each line with the place, since one of them is shown."""

    def __init__(self, place: str, said: str) -> None:
        super().__init__("\n".join(f"{place}: {line}" for line in said.splitlines() if line.strip()))
