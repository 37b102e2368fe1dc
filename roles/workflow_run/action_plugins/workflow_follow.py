"""Action plugin: show a run's log lines while they are written, until the run has ended."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

DOCUMENTATION = r"""
name: workflow_follow
short_description: Show a run's log lines while they are written, until the run has ended
options:
  directory:
    description: The round's directory, with output/log.txt and, at the end, exit_status.
    type: path
    required: true
"""

#: Waits for news for at most ten seconds, then prints the exit status (a dash while the run goes on)
#: on the first line and what the log has got since.
SCRIPT = """
cd {directory} || exit 3
tries=0
while [ ! -e exit_status ] && [ "$tries" -lt 50 ] &&
    [ "$(wc -c 2>/dev/null <output/log.txt || echo 0)" -le {offset} ]; do
    sleep 0.2
    tries=$((tries + 1))
done
alive=no
kill -0 "$(cat launcher 2>/dev/null)" 2>/dev/null && alive=yes
if [ -e exit_status ]; then cat exit_status
elif [ "$alive" = yes ]; then echo -
else echo lost
fi
tail -c +$(({offset} + 1)) output/log.txt 2>/dev/null | head -c 65536
exit 0
"""

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Poll the worker with one command every few seconds."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset({"directory"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Follow until the run has ended; the result carries its exit code."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        directory = self._task.args.get("directory")
        if not directory:
            raise AnsibleActionFail("workflow_follow: directory is missing")
        host = (task_vars or {}).get("inventory_hostname", "")
        offset, rest, status = 0, b"", "-"
        while True:
            command = SCRIPT.format(directory=shlex.quote(directory), offset=offset)
            answer = self._low_level_execute_command(command, encoding_errors="surrogateescape")
            if answer["rc"] != 0:
                raise AnsibleActionFail(f"the log in {directory} cannot be followed: {answer['stderr'].strip()}")
            status, _, text = answer["stdout"].partition("\n")
            news = text.encode(errors="surrogateescape")
            offset += len(news)
            *lines, rest = (rest + news).split(b"\n")
            for line in lines:
                self._show(host, line)
            if status != "-" and not news:
                break
        if rest:
            self._show(host, rest)
        if status == "lost":
            raise AnsibleActionFail(
                f"the run in {directory} ended without an exit status: its launcher was killed, or the machine restarted"
            )
        return {**result, "exit_code": int(status), "changed": False}

    @staticmethod
    def _show(host: str, line: bytes) -> None:
        display.display(f"{host} | {line.decode(errors='replace').rstrip()}")
