"""Action plugin: show a run's log while it is written, and take the results home when it has ended."""

from __future__ import annotations

import base64
import shlex
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

DOCUMENTATION = r"""
name: workflow_follow
short_description: Show a run's log while it is written, then take the results home
description: In check mode the run is left to itself at once, and nothing is taken home.
options:
  directory:
    description: The round's directory, with output/log.txt and, at the end, exit_status.
    type: path
    required: true
  artifacts:
    description: Directory on the control node for the results.
    type: path
    required: true
  patience:
    description: Seconds for which a lost connection is tried again.
    type: int
    default: 600
  limit:
    description: Seconds after which the run is left to itself, still running; 0 is never.
    type: int
    default: 0
"""

RESULTS = ("log.txt", "summary.json", "report.html")

#: What a file of the round's directory says; where the disk is full, its launcher keeps it in memory.
KNOWN = """
spare=/run/datajoint-round/$(basename "$(pwd -P)")
known() { cat "$1" 2>/dev/null || cat "$spare/$1" 2>/dev/null; }
"""
CAUSE = "cd {directory} && {known} known cause || true"

#: Waits for news for at most ten seconds, then prints the exit status (a dash while the run goes on)
#: on the first line and what the log has got since, in base64. Whoever runs holds the lock; after a run that
#: was killed its unit needs a moment to say how it ended.
SCRIPT = """
cd {directory} || exit 3
{known}
mkdir -p followers && touch followers/{me}
tries=0
while [ -z "$(known exit_status)" ] && [ "$tries" -lt 50 ] &&
    [ "$(wc -c 2>/dev/null <output/log.txt || echo 0)" -le {offset} ]; do
    sleep 0.2
    tries=$((tries + 1))
done
status=-
if flock --nonblock ../lock true; then
    tries=0
    while [ -z "$(known exit_status)" ] && [ "$tries" -lt 50 ]; do
        sleep 0.2
        tries=$((tries + 1))
    done
    status=lost
fi
ended=$(known exit_status)
echo "${{ended:-$status}}"
tail -c +$(({offset} + 1)) output/log.txt 2>/dev/null | head -c 65536 | base64
exit 0
"""

#: The machine may go; but not before the others who follow have their results too, if they are alive.
DONE = """
cd {directory} || exit 0
{known}
rm -f followers/{me}
touch collected || {{ mkdir -p "$spare" && touch "$spare/collected"; }}
tries=0
while [ -n "$(find followers -type f -newermt '-20 seconds' 2>/dev/null)" ] && [ "$tries" -lt 100 ]; do
    sleep 0.2
    tries=$((tries + 1))
done
"""

#: The machine waits for nobody who has left.
LEAVE = "rm -f {directory}/followers/{me}"

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Poll the worker with one command every few seconds."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset({"directory", "artifacts", "patience", "limit"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Follow until the run has ended; the result carries its exit code, and why it ended early."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = [self._task.args.get(name) for name in ("directory", "artifacts")]
        if not all(given):
            raise AnsibleActionFail("workflow_follow: give directory and artifacts")
        directory, artifacts = (str(path) for path in given)
        self._me = uuid.uuid4().hex
        self._host = (task_vars or {}).get("inventory_hostname", "")
        self._patience = float(self._task.args.get("patience", 600))
        if self._task.check_mode:
            self._show(b"(a dry run: it is left alone, and not followed)")
            return {**result, "left": True, "changed": False}
        status = self._follow(directory, float(self._task.args.get("limit", 0)))
        if status == "-":
            self._command(self._fill(LEAVE, directory))
            self._show(b"(no longer followed: the run goes on alone)")
            return {**result, "left": True, "changed": False}
        cause = self._command(self._fill(CAUSE, directory))["stdout"].strip()
        collected = self._collect(directory, Path(artifacts))
        if status == "lost":
            raise AnsibleActionFail(
                f"the run in {directory} ended without an exit status: its launcher was killed, "
                "or the machine restarted; what is not done is due again"
            )
        return {
            **result,
            "left": False,
            "exit_code": int(status),
            "cause": cause,
            "collected": collected,
            "changed": False,
        }

    def _follow(self, directory: str, limit: float) -> str:
        """Show the log to its end, or for a limited time; return the exit status, a dash if it goes on."""
        offset, rest, status = 0, b"", "-"
        leave_at = time.monotonic() + (limit or float("inf"))
        while status.strip() != "-" or time.monotonic() < leave_at:
            answer = self._command(self._fill(SCRIPT, directory, offset))
            if answer["rc"] != 0:
                raise AnsibleActionFail(
                    f"the log in {directory} cannot be followed: {answer['stderr'].strip()}"
                )
            status, _, text = answer["stdout"].partition("\n")
            news = base64.b64decode("".join(text.split()))  # whatever a terminal makes of line ends
            offset += len(news)
            *lines, rest = (rest + news).split(b"\n")
            for line in lines:
                self._show(line)
            if status.strip() != "-" and not news:
                break
        if rest:
            self._show(rest)
        return status.strip()

    def _fill(self, script: str, directory: str, offset: int = 0) -> str:
        return script.format(directory=shlex.quote(directory), offset=offset, me=self._me, known=KNOWN)

    def _command(self, command: str) -> dict[str, Any]:
        """Run a command on the worker."""
        answer: dict[str, Any] = self._patiently(lambda: self._low_level_execute_command(command))
        return answer

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        """Do something on the worker; try again while the connection is lost and patience lasts."""
        lost_at = None
        while True:
            try:
                answer = attempt()
            except AnsibleConnectionFailure as error:
                if lost_at is None:
                    lost_at = time.monotonic()
                    self._show(f"(connection lost, trying again for {self._patience:.0f} s)".encode())
                if time.monotonic() - lost_at >= self._patience:
                    reason = str(error).strip().splitlines()[-1]
                    raise AnsibleActionFail(
                        f"the connection to {self._host} was lost for {self._patience:.0f} s ({reason}); "
                        "what the run had not done is due again. Look at the network up to the machine"
                    ) from error
                time.sleep(min(2.0, self._patience))
                self._connection.reset()
            else:
                if lost_at is not None:
                    self._show(b"(connected again)")
                return answer

    def _collect(self, directory: str, artifacts: Path) -> list[str]:
        """Fetch what there is, then tell the launcher that the machine may go."""
        artifacts.mkdir(parents=True, exist_ok=True)
        quoted = shlex.quote(directory)
        listed = self._command(f"cd {quoted}/output && ls -1")["stdout"].split()
        collected = [name for name in RESULTS if name in listed]
        for name in collected:
            there, here = f"{directory}/output/{name}", str(artifacts / name)
            self._patiently(partial(self._connection.fetch_file, there, here))
        self._command(self._fill(DONE, directory))
        return collected

    def _show(self, line: bytes) -> None:
        display.display(f"{self._host} | {line.decode(errors='replace').rstrip()}")
