"""Action plugin: show a run's log while it is written, and take the results home when it has ended."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

DOCUMENTATION = r"""
name: workflow_follow
short_description: Show a run's log while it is written, then take the results home
options:
  directory:
    description: The round's directory, with output/log.txt and, at the end, exit_status.
    type: path
    required: true
  artifacts:
    description: Directory on the control node for the results.
    type: path
    required: true
"""

RESULTS = ("log.txt", "summary.json", "report.html")

#: Waits for news for at most ten seconds, then prints the exit status (a dash while the run goes on)
#: on the first line and what the log has got since, in base64.
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
tail -c +$(({offset} + 1)) output/log.txt 2>/dev/null | head -c 65536 | base64
exit 0
"""

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Poll the worker with one command every few seconds."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset({"directory", "artifacts"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Follow until the run has ended; the result carries its exit code."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = [self._task.args.get(name) for name in ("directory", "artifacts")]
        if not all(given):
            raise AnsibleActionFail("workflow_follow: give directory and artifacts")
        directory, artifacts = (str(path) for path in given)
        status = self._follow(directory, (task_vars or {}).get("inventory_hostname", ""))
        collected = self._collect(directory, Path(artifacts))
        if status == "lost":
            raise AnsibleActionFail(
                f"the run in {directory} ended without an exit status: its launcher was killed, "
                "or the machine restarted; what is not done is due again"
            )
        return {**result, "exit_code": int(status), "collected": collected, "changed": False}

    def _follow(self, directory: str, host: str) -> str:
        offset, rest, status = 0, b"", "-"
        while True:
            command = SCRIPT.format(directory=shlex.quote(directory), offset=offset)
            answer = self._low_level_execute_command(command)
            if answer["rc"] != 0:
                raise AnsibleActionFail(
                    f"the log in {directory} cannot be followed: {answer['stderr'].strip()}"
                )
            status, _, text = answer["stdout"].partition("\n")
            news = base64.b64decode("".join(text.split()))  # whatever a terminal makes of line ends
            offset += len(news)
            *lines, rest = (rest + news).split(b"\n")
            for line in lines:
                self._show(host, line)
            if status.strip() != "-" and not news:
                break
        if rest:
            self._show(host, rest)
        return status.strip()

    def _collect(self, directory: str, artifacts: Path) -> list[str]:
        """Fetch what there is, then tell the launcher that the machine may go."""
        artifacts.mkdir(parents=True, exist_ok=True)
        quoted = shlex.quote(directory)
        listed = self._low_level_execute_command(f"cd {quoted}/output && ls -1")["stdout"].split()
        collected = [name for name in RESULTS if name in listed]
        for name in collected:
            self._connection.fetch_file(f"{directory}/output/{name}", str(artifacts / name))
        self._low_level_execute_command(f"touch {quoted}/collected")
        return collected

    @staticmethod
    def _show(host: str, line: bytes) -> None:
        display.display(f"{host} | {line.decode(errors='replace').rstrip()}")
