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

import remedies
import rounds
from commands import RefusedError, annotate, refuse
from markdown import LONGEST, block, code

DONE = {
    "force_stop": "Stopped",
    "sweep": "Sweep done: nothing that is past its deadline is on",
    "setup": "Set up",
    "status": "How the workers are",
}
LOOKED = {
    "force_stop": "Looked, and stopped nothing",
    "setup": "Looked, and changed nothing",
}
ENDED = {"cancelled": "it was cancelled", "skipped": "nothing was started"}
UNSURE = "Nobody could confirm that the machine is off. Look at it in EC2 now, or press force_stop."
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
    asked = {name.lower(): given.get(name, "") for name in ("TABLES", "RESTRICTION", "REF")}
    results = load(report / "verdict.json")
    parts, notes = [], []
    for result in results:
        told = rounds.Told(result, price, given.get("RESULTS_URL", ""), asked)
        parts.append(told.page())
        notes += told.annotations()
    if not results:
        worker, outcome = given.get("WORKER", ""), given.get("OUTCOME")
        reason = ENDED.get(outcome or "skipped", "it ended before its verdict")
        parts.append(f"## ❌ Round on {code(worker)}: {reason}\n\n{said(log)}")
        notes.append(annotate("error", f"Round on {worker}", f"{reason}; the log of the steps says where"))
    settled = load(report / "settled.json")
    if not results or any(result["failure"] or result["left"] or result["detached"] for result in results):
        parts += [f"Afterwards the machine was looked at: {code(one)}." for one in settled]
        parts += ["To end that run, press force_stop."] if any("under way" in one for one in settled) else []
    return _with_doubts(parts, notes, given)


def of_playbook(kind: str, given: Mapping[str, str], report: Path, log: Path) -> tuple[str, list[str]]:
    """Compose the page and the annotations of the other buttons."""
    outcome, why = given.get("OUTCOME"), reason(last_words(log))
    if outcome == "success":
        title = LOOKED[kind] if given.get("DRY_RUN") == "true" and kind in LOOKED else DONE[kind]
        lines = "\n\n".join("\n".join(one) for one in load(report / "verdict.json"))
        lines = lines or ("there is no worker yet: see docs/operations.md" if kind == "status" else "")
        return f"## ✅ {title}\n\n{block(lines) if lines else said(log)}", []
    title = f"{kind} {'was cancelled' if outcome == 'cancelled' else 'failed'}"
    parts = [f"## ❌ {title}"]
    parts += [block(why), f"**What to do:** {remedies.of_message(why)}"] if why else []
    parts += ["\n\n".join(f"Afterwards: {code(one)}." for one in load(report / "settled.json")), said(log)]
    notes = [annotate("error", kind, why or f"{title}; the log of the steps says where")]
    return _with_doubts([part for part in parts if part], notes, given)


def _with_doubts(parts: list[str], notes: list[str], given: Mapping[str, str]) -> tuple[str, list[str]]:
    if given.get("SETTLED") in ("failure", "cancelled"):
        parts.append(f"> [!CAUTION]\n> {UNSURE}")
        notes.append(annotate("error", "The machine may still be running", UNSURE))
    return "\n\n".join(parts), notes


def said(log: Path) -> str:
    """Show the last words of the log, folded."""
    lines = last_words(log)
    if not lines:
        return "A step before it failed: what it said is above, or in its log."
    text = "\n".join(lines)[-LONGEST:]  # its end is what matters
    return f"<details><summary>Last words of the log</summary>\n\n{block(text)}\n\n</details>"


def reason(lines: list[str]) -> str:
    """Find the last message of a failure."""
    text = "\n".join(lines)
    found = re.findall(r"fatal: .*?\n\s+msg: (.*?)(?:\n\S|\n\n|\Z)", text, re.DOTALL)
    return re.sub(r"\s+", " ", found[-1]).strip("'\" ") if found else ""


def main(arguments: list[str]) -> int:
    """Write the page, print the annotations."""
    kind, report = arguments[0], Path("report")
    log = Path(os.environ["RUNNER_TEMP"]) / f"{'run' if kind == 'round' else kind}.log"
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
