"""Action plugin: run a command on the worker with text on its standard input, in one command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

DOCUMENTATION = r"""
name: piped_command
short_description: Run a command on the worker with text on its standard input
description:
  - As ansible.builtin.command, but as one command of the connection, without files or Python on the worker.
  - What goes through standard input is in no result, message or list of processes.
  - The command reads before it says much; Ansible's ssh reads nothing while it sends.
  - The task's environment holds. In check mode the task is skipped, unless it says C(check_mode) is false.
options:
  argv:
    description: The command and its words.
    type: list
    elements: str
    required: true
  stdin:
    description: The text.
    type: str
  stdin_file:
    description: A file on the control node with the text, looked for as a role's files are.
    type: str
  fail_msg:
    description:
      - What has failed if the command does; the last line that it said is put behind it.
      - So is a connection that was lost, if the task ignores hosts that are unreachable; it fails then.
    type: str
    required: true
"""

#: A connection that can send no more is taken for a lost one: what the command leaves is read all the same.
WRAPPER = '"$@"; status=$?; cat >/dev/null; exit "$status"'


class ActionModule(ActionBase):  # type: ignore[misc]
    """One command, and what it says."""

    TRANSFERS_FILES = False
    _supports_check_mode = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the command; the result has `rc`, `stdout`, `stderr` and their lines."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            argument_spec={
                "argv": {"type": "list", "elements": "str", "required": True},
                "stdin": {"type": "str", "no_log": True},
                "stdin_file": {"type": "str"},
                "fail_msg": {"type": "str", "required": True},
            },
            mutually_exclusive=[["stdin", "stdin_file"]],
        )
        text = self._read(given["stdin_file"]) if given["stdin_file"] else (given["stdin"] or "").encode()
        if not given["argv"] or not text:  # without a text the connection might make a terminal of it
            raise AnsibleActionFail("piped_command: give argv, and stdin or stdin_file; none may be empty")
        try:
            answer = self._pipe(given["argv"], text)
        except AnsibleConnectionFailure as error:
            if not self._task.ignore_unreachable:
                raise
            reason = re.sub("^.* (?:over|via) ssh: ", "", str(error).strip(), flags=re.IGNORECASE)
            return {**result, "failed": True, "msg": _message(given["fail_msg"], reason)}
        if answer["rc"] != 0:
            said = f"exit status {answer['rc']}\n{answer['stdout']}\n{answer['stderr']}"
            result |= {"failed": True, "msg": _message(given["fail_msg"], said)}
        return {**answer, **result, "changed": True}

    def _read(self, name: str) -> bytes:
        try:
            return Path(self._find_needle("files", name)).read_bytes()
        except (AnsibleError, OSError) as error:
            raise AnsibleActionFail(f"piped_command: stdin_file {name} cannot be read: {error}") from error

    def _pipe(self, argv: list[str], text: bytes) -> dict[str, Any]:
        if self._connection.transport == "local":
            # Without pipelining, a password for become makes a terminal of standard input.
            self._connection.set_option("pipelining", True)
        words = shlex.join(["/bin/sh", "-c", WRAPPER, "sh", *argv])
        answer: dict[str, Any] = self._low_level_execute_command(
            f"{self._compute_environment_string()} {words}", in_data=text
        )
        return answer


def _message(what: str, said: str) -> str:
    """Put the last line that was said behind what has failed."""
    *_, reason = "no reason was given", *(line.strip() for line in said.splitlines() if line.strip())
    return f"{what}: {reason.removesuffix('.')}."
