"""One worker's round in words: what ran, what failed and what to do about it, what it cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import remedies
from commands import RefusedError, annotate
from markdown import bar, block, code, table

MOST_ERRORS = 5
MOST_KEYS = 3
LEGEND = "🟩 done 🟨 skipped 🟥 failed ⬜ not done"


def price(text: str, worker: str) -> float | None:
    """Read the price of an hour: one number for all, or ``cpu1=0.71 memory1=2.02``; None if there is none."""
    prices: dict[str, float] = {}
    for word in re.split(r",?\s+", text.strip()) if text.strip() else []:
        name, _, number = word.rpartition("=")
        try:
            prices[name] = float(number)
        except ValueError:
            prices[name] = -1.0
        if not 0 <= prices[name] < 1e6 or re.search("[=,]", name):
            raise RefusedError(
                f"the variable WORKER_PRICE_PER_HOUR has {word!r}: give a number, or cpu1=0.71 memory1=2.02"
            )
    return prices.get(worker, prices.get(""))


@dataclass
class Kind:
    """Failed keys of one table whose reasons differ in numbers and names only."""

    table: str
    reason: str
    keys: list[Mapping[str, Any]] = field(default_factory=list)


def kinds(summary: Mapping[str, Any]) -> list[Kind]:
    """Group the failed keys of a round, the most frequent kind first."""
    found: dict[tuple[str, str], Kind] = {}
    for one in summary.get("keys", []):
        if one["outcome"] == "failed":
            name, reason = str(one["table"]), str(one["reason"])
            alike = re.sub(r"'[^']*'|\"[^\"]*\"|\{[^{}]*\}|\([^()]*\)|\[[^][]*\]|\d+", "…", reason)
            found.setdefault((name, alike), Kind(name, reason)).keys.append(one["key"])
    return sorted(found.values(), key=lambda kind: -len(kind.keys))


@dataclass(frozen=True)
class Told:
    """A worker's result, as the verdict of a round has it, and what had been asked for."""

    result: dict[str, Any]
    price: float | None
    url: str
    asked: Mapping[str, str] = field(default_factory=dict)

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
        reasons = [f"{len(one.keys)} of {one.table} failed: {one.reason}" for one in self._kinds()]
        return [annotate("error", title, text) for text in [*self._messages(), *reasons][:MOST_ERRORS]]

    def _kinds(self) -> list[Kind]:
        return kinds(self.result["summary"])

    def _what_ran(self) -> str:
        summary, commit = self.result["summary"], self.result["commit"][:7]
        lines = [f"Round {code(self.result['round'])}" if self.result["round"] else "No round was begun"]
        lines += [f"commit {code(commit)}"] if commit else []
        lines += (
            [f"would do {code(self.result['planned'])}; nothing was started"]
            if self.result["planned"]
            else []
        )
        waits = any(one.get("held") or one.get("later") for one in summary.get("tables", []))
        lines += [summary["message"]] if waits or summary.get("message") == "nothing was due" else []
        asked = [f"{name} {code(text)}" for name, text in self.asked.items() if text.strip()]
        return ", ".join(lines) + ". " + f"Asked for: {', '.join(asked) or 'everything that is due'}."

    def _tables(self) -> str:
        rows = [
            [
                code(one["table"]),
                bar(one["done"], one["skipped"], one["failed"], one["due"]),
                *(str(int(one[name])) for name in ("due", "done", "failed", "skipped")),
            ]
            for one in self.result["summary"].get("tables", [])
            if one["due"]
        ]
        if not rows:
            return ""
        note = " Skipped keys have a row that says why, such as a recording that is too short."
        shown = table(["Table", "", "Due", "Done", "Failed", "Skipped"], rows)
        return f"{shown}\n\n{LEGEND}.{note if any(row[-1] != '0' for row in rows) else ''}"

    def _messages(self) -> list[str]:
        said = (self.result["failure"], self.result["cause"], self.result["summary"].get("message", ""))
        found = [str(text).strip() for text in said if text and text != "nothing was due"]
        if found or self._kinds():
            return found
        if self.result["exit_code"] > 0:
            return [f"the worker ended with exit code {self.result['exit_code']}; the log says why"]
        return ["the worker was lost before its results came home"]

    def _why(self) -> str:
        if self.state in ("succeeded", "ready", "still running"):
            return ""
        found, messages = self._kinds(), self._messages()
        parts = ["### Why, and what to do", *(block(text) for text in messages)]
        parts += [self._failed(one) for one in found[:MOST_ERRORS]]
        if len(found) > MOST_ERRORS:
            parts.append(f"… and {len(found) - MOST_ERRORS} more kinds of error: all are in the report.")
        advice = self._remedy(" ".join(messages), found[:MOST_ERRORS])
        return "\n\n".join([*parts, f"**What to do:** {advice}"])

    def _failed(self, one: Kind) -> str:
        number = len(one.keys)
        named = [", ".join(f"{name} {value}" for name, value in key.items()) for key in one.keys if key]
        which = "; ".join(code(text) for text in named[:MOST_KEYS]) + (" …" if len(named) > MOST_KEYS else "")
        words = f"{number} {'keys' if number > 1 else 'key'} of {code(one.table)}"
        words += f" ({which})" if which else ""
        return f"{words}{', such as' if number > 1 else ''}:\n\n{block(one.reason)}"

    def _remedy(self, text: str, found: list[Kind]) -> str:
        ended = self.result["summary"] and not self.result["failure"]
        if ended and self.result["exit_code"] in remedies.BY_CODE:
            return remedies.BY_CODE[self.result["exit_code"]]
        if not (ended and found):
            return remedies.of_message(text)
        advice: dict[str, list[str]] = {}
        for one in found:
            advice.setdefault(remedies.of_key(one.reason), []).append(code(one.table))
        if len(advice) == 1:
            return next(iter(advice))
        lines = [f"- {', '.join(dict.fromkeys(tables))}: {remedy}" for remedy, tables in advice.items()]
        return "\n\n" + "\n".join(lines)

    def _cost(self) -> str:
        seconds = int(self.result["machine_seconds"])
        if not seconds:
            return ""
        cost = self.price and self.price * seconds / 3600
        spent = "" if cost is None else f", which costs about {cost:.2f} (at {self.price:g} an hour)"
        more = " so far" if self.state == "still running" else ""
        return f"The machine was on for {_time(seconds)}{more}{spent}."

    def _link(self) -> str:
        there = re.fullmatch(r"https://[\w./-]+", self.url)
        return f"[Download report, summary and log]({self.url})" if there and self.result["summary"] else ""


def _time(seconds: int) -> str:
    hours, minutes = divmod(-(-seconds // 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
