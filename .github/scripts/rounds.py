"""One worker's round in words: what ran, what failed and what to do about it, what it cost."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from commands import RefusedError, annotate
from markdown import bar, block, code, table

MOST_ERRORS = 5

#: What to do, by the code with which run_workflow ended.
BY_CODE = {
    1: "Correct the data or the code that the messages name, then press the button again: only what failed "
    "is computed again.",
    2: "Correct tables or restriction as the message says, and press the button again. Nothing was computed.",
    3: "The database did not answer or did not let us in. Try again later; if it stays so, tell whoever runs "
    "it, and check the secrets DJ_HOST, DJ_USER and DJ_PASS.",
    4: "It was stopped before its end. Nothing is lost: press the button again, and it goes on from there.",
}

#: What to do, by words of the message, where there is no such code.
BY_WORDS = (
    (r"is (running|pending): ", "Somebody uses this worker. status shows who, force_stop stops it."),
    (r"is stopping: ", "It is about to be off. Press the button again in a minute."),
    (
        r"credentials|AuthFailure",
        "AWS did not let us in: tell whoever looks after the secrets here.",
    ),
    (r"no capacity", "AWS has no such machine to spare now. Try again later, or on another worker."),
    (
        r"cannot be reached|was lost|host key|Permission denied",
        "Try once more; if it stays so, tell whoever looks after the workers.",
    ),
)
OTHERWISE = "If the message does not help, show this page to whoever looks after the workers."


def price(text: str, worker: str) -> float | None:
    """Read the price of an hour: one number for all, or ``cpu1=0.71 memory1=2.02``; None if there is none."""
    prices: dict[str, float] = {}
    for word in re.split(r"[,\s]+", text.strip()) if text.strip() else []:
        name, _, number = word.rpartition("=")
        try:
            prices[name] = float(number)
        except ValueError:
            prices[name] = -1.0
        if not 0 <= prices[name] < 1e6:
            raise RefusedError(
                f"the variable WORKER_PRICE_PER_HOUR has {word!r}: give a number, or cpu1=0.71 memory1=2.02"
            )
    return prices.get(worker, prices.get(""))


@dataclass(frozen=True)
class Told:
    """A worker's result, as the verdict of a round has it."""

    result: dict[str, Any]
    price: float | None
    url: str

    @property
    def state(self) -> str:
        """The verdict in one word or two."""
        if self.result["failure"]:
            return "failed"
        if self.result["left"] or self.result["detached"]:
            return "still running"
        if self.result["planned"]:
            return "ready"
        return str(self.result["summary"].get("verdict", "failed"))

    def page(self) -> str:
        """Compose the Markdown."""
        sign = {"succeeded": "✅", "ready": "✅", "still running": "⏳"}.get(self.state, "❌")
        parts = [f"## {sign} Round on {code(self.result['worker'])}: {self.state}", self._what_ran()]
        if self.state == "still running":
            parts.append(
                "Nobody follows it any more. It goes on alone, and switches its machine off at its end. "
                "See how it is with the button status; the results stay on the machine."
            )
        parts += [self._tables(), self._why(), self._cost(), self._link()]
        return "\n\n".join(part for part in parts if part)

    def annotations(self) -> list[str]:
        """Say the same in a line or a few."""
        title = f"Round on {self.result['worker']}"
        if self.state in ("succeeded", "ready"):
            return []
        if self.state == "still running":
            return [annotate("notice", title, "still running; it stops by itself; status shows how it is")]
        reasons = [f"{count} of {name} failed: {text}" for (name, text), count in self._errors()]
        return [annotate("error", title, text) for text in [*self._messages(), *reasons][:MOST_ERRORS]]

    def _what_ran(self) -> str:
        summary, commit = self.result["summary"], self.result["commit"][:7]
        lines = [f"Round {code(self.result['round'])}" if self.result["round"] else "No round was begun"]
        lines += [f"commit {code(commit)}"] if commit else []
        lines += (
            [f"would do {code(self.result['planned'])}; nothing was started"]
            if self.result["planned"]
            else []
        )
        lines += [summary["message"]] if summary.get("message") == "nothing was due" else []
        return ", ".join(lines) + "."

    def _tables(self) -> str:
        rows = [
            [
                code(one["table"]),
                bar(one["done"] + one["skipped"], one["failed"], one["due"]),
                *(str(int(one[name])) for name in ("due", "done", "failed", "skipped")),
            ]
            for one in self.result["summary"].get("tables", [])
            if one["due"]
        ]
        note = "\n\nSkipped keys have a row that says why, such as a recording that is too short."
        shown = table(["Table", "", "Due", "Done", "Failed", "Skipped"], rows) if rows else ""
        return shown + (note if any(row[-1] != "0" for row in rows) else "")

    def _errors(self) -> list[tuple[tuple[str, str], int]]:
        failed = [one for one in self.result["summary"].get("keys", []) if one["outcome"] == "failed"]
        return Counter((str(one["table"]), str(one["reason"])) for one in failed).most_common()

    def _messages(self) -> list[str]:
        said = (self.result["failure"], self.result["cause"], self.result["summary"].get("message", ""))
        found = [str(text).strip() for text in said if text and text != "nothing was due"]
        if found or self._errors():
            return found
        if self.result["exit_code"] > 0:
            return [f"the worker ended with exit code {self.result['exit_code']}; the log says why"]
        return ["the worker was lost before its results came home"]

    def _why(self) -> str:
        if self.state in ("succeeded", "ready", "still running"):
            return ""
        errors, messages = self._errors(), self._messages()
        parts = ["### Why, and what to do", *(block(text) for text in messages)]
        for (name, text), count in errors[:MOST_ERRORS]:
            parts.append(f"{count} {'keys' if count > 1 else 'key'} of {code(name)}:\n\n{block(text)}")
        if len(errors) > MOST_ERRORS:
            parts.append(f"… and {len(errors) - MOST_ERRORS} more kinds of error: all are in the report.")
        return "\n\n".join([*parts, f"**What to do:** {self._remedy(' '.join(messages))}"])

    def _remedy(self, text: str) -> str:
        ended = self.result["summary"] and not self.result["failure"]
        by_code = BY_CODE.get(self.result["exit_code"]) if ended else None
        by_words = (remedy for pattern, remedy in BY_WORDS if re.search(pattern, text))
        return by_code or next(by_words, OTHERWISE)

    def _cost(self) -> str:
        seconds = int(self.result["machine_seconds"])
        if not seconds:
            return ""
        spent = f", about {self.price * seconds / 3600:.2f} in money" if self.price is not None else ""
        more = " so far" if self.state == "still running" else ""
        return f"The machine was on for {_time(seconds)}{more}{spent}."

    def _link(self) -> str:
        there = re.fullmatch(r"https://[\w./-]+", self.url)
        return f"[Download report, summary and log]({self.url})" if there and self.result["summary"] else ""


def _time(seconds: int) -> str:
    hours, minutes = divmod(-(-seconds // 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
