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

#: Bytes of a result that comes with the last answer; a larger one is a transfer of its own.
MOST = 1 << 20

#: What a file of the round's directory says; where the disk is full, its launcher keeps it in memory.
KNOWN = """
spare=/run/datajoint-round/$(basename "$(pwd -P)")
known() { cat "$1" 2>/dev/null || cat "$spare/$1" 2>/dev/null; }
"""

#: Waits for news for at most ten seconds, then prints lines of a name and a value: the exit status (a dash
#: while the run goes on), what the log has got since, and with the last of that the results and why the run
#: ended early; all but the status in base64. Whoever runs holds the lock; after a run that was killed its
#: unit needs a moment to say how it ended.
SCRIPT = """
cd {directory} || exit 3
{known}
say() {{ text=$(base64 -w 0) && echo "$1 $text"; }}
size() {{ wc -c 2>/dev/null <"$1" || echo 0; }}
runs_on() {{ ! [ -s exit_status ] && ! [ -s "$spare/exit_status" ] && [ "$tries" -lt 50 ]; }}
mkdir -p followers && touch followers/{me}
tries=0
while runs_on && [ "$(size output/log.txt)" -le {offset} ]; do
    sleep 0.2
    tries=$((tries + 1))
done
status=-
if flock --nonblock ../lock true; then
    tries=0
    while runs_on; do
        sleep 0.2
        tries=$((tries + 1))
    done
    status=lost
fi
ended=$(known exit_status)
status=${{ended:-$status}}
echo "status $status"
tail -c +$(({offset} + 1)) output/log.txt 2>/dev/null | head -c 65536 | say news
if [ "$status" = - ] || [ "$(size output/log.txt)" -gt $(({offset} + 65536)) ]; then exit; fi
for name in {results}; do
    [ -e "output/$name" ] || continue
    {{ [ "$(size "output/$name")" -le {most} ] && say "$name" <"output/$name"; }} || echo "$name -"
done
known cause | say cause
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
        said = self._follow(directory, float(self._task.args.get("limit", 0)))
        if said["status"] == "-":
            self._command(self._fill(LEAVE, directory))
            self._show(b"(no longer followed: the run goes on alone)")
            return {**result, "left": True, "changed": False}
        collected = self._collect(said, directory, Path(artifacts))
        if said["status"] == "lost":
            raise AnsibleActionFail(
                f"the run in {directory} ended without an exit status: its launcher was killed, "
                "or the machine restarted; what is not done is due again"
            )
        return {
            **result,
            "left": False,
            "exit_code": int(said["status"]),
            "cause": base64.b64decode(said["cause"]).decode(errors="replace").strip(),
            "collected": collected,
            "changed": False,
        }

    def _follow(self, directory: str, limit: float) -> dict[str, str]:
        """Show the log to its end, or for a limited time; return the last answer."""
        offset, rest = 0, b""
        leave_at = time.monotonic() + (limit or float("inf"))
        while True:
            answer = self._command(self._fill(SCRIPT, directory, offset))
            if answer["rc"] != 0:
                raise AnsibleActionFail(
                    f"the log in {directory} cannot be followed: {answer['stderr'].strip()}"
                )
            lines = [line.partition(" ") for line in answer["stdout"].splitlines()]
            said = {name: value for name, _, value in lines}
            news = base64.b64decode(said["news"])
            offset += len(news)
            *whole, rest = (rest + news).split(b"\n")
            for line in whole:
                self._show(line)
            if "cause" in said or (said["status"] == "-" and time.monotonic() >= leave_at):
                break
        if rest:
            self._show(rest)
        return said

    def _fill(self, script: str, directory: str, offset: int = 0) -> str:
        words = {"directory": shlex.quote(directory), "offset": offset, "me": self._me}
        return script.format(known=KNOWN, results=" ".join(RESULTS), most=MOST, **words)

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

    def _collect(self, said: dict[str, str], directory: str, artifacts: Path) -> list[str]:
        """Keep the results, then tell the launcher that the machine may go."""
        collected = [name for name in RESULTS if name in said]
        try:
            artifacts.mkdir(parents=True, exist_ok=True)
            for name in collected:
                there, here = f"{directory}/output/{name}", artifacts / name
                if said[name] == "-":
                    self._patiently(partial(self._connection.fetch_file, there, str(here)))
                else:
                    here.write_bytes(base64.b64decode(said[name]))
        except OSError as error:
            raise AnsibleActionFail(
                f"the results in {directory}/output cannot be kept on the control node: {error}"
            ) from error
        self._command(self._fill(DONE, directory))
        return collected

    def _show(self, line: bytes) -> None:
        display.display(f"{self._host} | {line.decode(errors='replace').rstrip()}")
