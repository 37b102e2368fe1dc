"""Tell on the page of the workflow run what was done, in words that need no terminal.

summary.py round | status | force_stop | sweep | setup
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rounds
from commands import RefusedError, annotate, refuse
from markdown import LONGEST, block, code

DONE = {
    "force_stop": "Stopped",
    "sweep": "Sweep done: nothing that is past its deadline is on",
    "setup": "Set up",
    "status": "How the workers are",
}
LINES = 40


def last_words(log: Path) -> list[str]:
    """Read the last lines of a playbook's log, without the time and the process of each."""
    if not log.is_file():
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [re.sub(r"^\S+ \S+ p=\d+ u=\S+ n=\S+ \S+\| ", "", line) for line in lines[-LINES:]]


def load(path: Path) -> list[Any]:
    """Read a report, if the playbook came to writing one."""
    if not path.is_file():
        return []
    found: list[Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def of_round(given: Mapping[str, str], report: Path, log: Path) -> tuple[str, list[str]]:
    """Compose the page and the annotations of a round."""
    price = rounds.price(given.get("PRICE", ""), given.get("WORKER", ""))
    results = load(report / "verdict.json")
    parts, notes = [], []
    for result in results:
        told = rounds.Told(result, price, given.get("RESULTS_URL", ""))
        parts.append(told.page())
        notes += told.annotations()
    if not results:
        worker = given.get("WORKER", "")
        reason = "it was cancelled" if given.get("OUTCOME") == "cancelled" else "it ended before its verdict"
        parts.append(f"## ❌ Round on {code(worker)}: {reason}\n\n{said(log)}")
        notes.append(annotate("error", f"Round on {worker}", f"{reason}; the log of the steps says where"))
    parts += [f"Afterwards: {code(one)}." for one in load(report / "settled.json") if not results]
    if given.get("SETTLED") in ("failure", "cancelled"):
        text = "Nobody could confirm that the machine is off. Look at it in EC2 now, or press force_stop."
        parts.append(f"> [!CAUTION]\n> {text}")
        notes.append(annotate("error", "The machine may still be running", text))
    return "\n\n".join(parts), notes


def of_playbook(kind: str, given: Mapping[str, str], report: Path, log: Path) -> tuple[str, list[str]]:
    """Compose the page and the annotations of the other buttons."""
    good = given.get("OUTCOME") == "success"
    title = DONE[kind] if good else f"{kind} failed"
    lines = [["\n".join(one) for one in load(report / "verdict.json")]] if kind == "status" else []
    shown = block("\n\n".join(lines[0])) if lines and lines[0] else said(log)
    notes = [] if good else [annotate("error", kind, reason(last_words(log)) or "a step before it failed")]
    return f"## {'✅' if good else '❌'} {title}\n\n{shown}", notes


def said(log: Path) -> str:
    """Show the last words of the log, folded."""
    lines = last_words(log)
    if not lines:
        return "A step before it failed: its log says why."
    text = "\n".join(lines)[-LONGEST:]  # its end is what matters
    return f"<details><summary>Last words of the log</summary>\n\n{block(text)}\n\n</details>"


def reason(lines: list[str]) -> str:
    """Find the last message of a failure."""
    text = "\n".join(lines)
    found = re.findall(r"fatal: .*?\n\s+msg: (.*?)(?:\n\S|\n\n|\Z)", text, re.DOTALL)
    return re.sub(r"\s+", " ", found[-1]).strip("'\" ") if found else ""


def main(arguments: list[str]) -> int:
    """Write the page, print the annotations."""
    kind, log, report = arguments[0], Path(os.environ["RUNNER_TEMP"]) / "playbook.log", Path("report")
    try:
        if kind == "round":
            page, notes = of_round(os.environ, report, log)
        else:
            page, notes = of_playbook(kind, os.environ, report, log)
    except RefusedError as error:
        return refuse("The summary cannot be written", error)
    with Path(os.environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as file:
        file.write(f"{page}\n")
    for note in notes:
        print(note)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
