"""Which keys failed or were skipped, grouped by cause, and what to do about it."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from workflow.report.text import count, escape, key_text, number, section, shorten

MOST_GROUPS = 40
MOST_KEYS = 8

_ADVICE = (
    (
        r"MemoryError|out of memory|Unable to allocate",
        "The machine ran out of memory: run these keys on a machine with more.",
    ),
    (
        r"LostConnection|OperationalError|InterfaceError|server closed the connection|gone away",
        "The connection to the database broke during this computation: run again. If it breaks at the same "
        "key, look at the server's log and at its limit on the size of a statement.",
    ),
    (
        r"IntegrityError|foreign key",
        "Rows that this result refers to were deleted meanwhile: run again, or correct the upstream tables.",
    ),
    (
        r"frame rate|differ in length|frames, the ROIs before it|not a vector|cannot be decoded",
        "The recording is inconsistent in the database: correct it there, or exclude the epoch, then run "
        "again.",
    ),
    (r"No space left|disk full|DiskFull", "A disk is full: make room on it, then run again."),
)
_DEFAULT_ADVICE = (
    "Correct the cause, in the data or in the code, then run again: these keys are due in every round."
)


def failures(summary: dict[str, Any]) -> str:
    """Write the failed keys; empty if none failed."""
    groups = _grouped(summary, "failed")
    if not groups:
        return ""
    total = sum(len(keys) for keys in groups.values())
    intro = f"{count(total, 'key')} failed; keys of one table with the same cause stand together."
    return section("failed", "What failed, and what to do", _all(groups, intro))


def skipped(summary: dict[str, Any]) -> str:
    """Write the keys that were recorded with a reason instead of a result; empty if there are none.

    Reasons that differ in their numbers only are one row, with the range of those numbers.
    """
    groups: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for (table, cause), keys in _grouped(summary, "skipped").items():
        alike = groups.setdefault((table, re.sub(r"\d+", "0", cause)), [])
        alike += [(cause, key) for key in keys]
    if not groups:
        return ""
    rows = [
        _skipped_row(table, _with_ranges([cause for cause, _ in alike]), [key for _, key in alike])
        for (table, _), alike in list(groups.items())[:MOST_GROUPS]
    ]
    more = len(groups) - len(rows)
    rest = f"<p>{count(more, 'more reason')}: summary.json lists them.</p>" if more > 0 else ""
    return section(
        "skipped",
        "What was skipped, and why",
        "<p>These cannot be computed from what was recorded. They are not tried again.</p>\n"
        '<div class="wide"><table>\n<caption>Keys without a result, by reason</caption>\n<thead><tr>'
        '<th scope="col">Table</th><th scope="col">Reason</th><th scope="col" class="number">Keys</th>'
        f"</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n</table></div>{rest}",
    )


def _with_ranges(causes: list[str]) -> str:
    """Write sentences that differ in their numbers as one."""
    pieces = []
    for alike in zip(*(re.split(r"(\d+)", cause) for cause in causes), strict=True):
        if alike[0].isdecimal() and len(set(alike)) > 1:
            numbers = sorted(map(int, alike))
            pieces.append(f"{numbers[0]}–{numbers[-1]}")
        else:
            pieces.append(alike[0])
    return "".join(pieces)


def _skipped_row(table: str, cause: str, keys: list[dict[str, Any]]) -> str:
    summary = f"<summary>{escape(shorten(cause))}</summary>"
    return (
        f'<tr><th scope="row">{escape(table)}</th><td><details>{summary}{_keys(keys)}</details></td>'
        f'<td class="number">{number(len(keys))}</td></tr>\n'
    )


def advice(reason: str) -> str:
    """Say what to do about an error message."""
    for pattern, text in _ADVICE:
        if re.search(pattern, reason, re.IGNORECASE):
            return text
    return _DEFAULT_ADVICE


def command(table: str, key: dict[str, Any]) -> str:
    """Write the command that computes one key again."""
    where = json.dumps(key, default=str)
    return f"run_workflow run --tables {shlex.quote(table)} --where {shlex.quote(where)}"


def _grouped(summary: dict[str, Any], outcome: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Keys by table and cause, the most frequent cause first."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in summary["keys"]:
        if entry["outcome"] == outcome:
            cause = " ".join(str(entry["reason"]).split()) or "no message was recorded"
            groups.setdefault((str(entry["table"]), cause), []).append(entry["key"])
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def _all(
    groups: dict[tuple[str, str], list[dict[str, Any]]],
    intro: str,
) -> str:
    parts = [f"<p>{intro}</p>"] if intro else []
    shown = list(groups.items())[:MOST_GROUPS]
    parts += [_group(table, cause, keys) for (table, cause), keys in shown]
    if len(groups) > len(shown):
        rest = sum(len(keys) for keys in groups.values()) - sum(len(keys) for _, keys in shown)
        parts.append(
            f"<p>{count(len(groups) - len(shown), 'more cause')} with {count(rest, 'key')} in all: "
            "summary.json lists them.</p>"
        )
    return "\n".join(parts)


def _group(
    table: str,
    cause: str,
    keys: list[dict[str, Any]],
) -> str:
    lines = [
        '<article class="failed">',
        f"<h3>{escape(table)} · {count(len(keys), 'key')}</h3>",
        f'<p class="message">{escape(shorten(cause))}</p>',
        f"<p>{escape(advice(cause))} To try {'the first of them' if len(keys) > 1 else 'it'} alone:</p>",
        f"<pre><code>{escape(shorten(command(table, keys[0])))}</code></pre>",
        _keys(keys),
        "</article>",
    ]
    return "\n".join(lines)


def _keys(keys: list[dict[str, Any]]) -> str:
    items = "".join(f"<li>{escape(key_text(key))}</li>" for key in keys[:MOST_KEYS])
    if len(keys) > MOST_KEYS:
        items += f"<li>and {number(len(keys) - MOST_KEYS)} more: summary.json lists them all</li>"
    return f'<ul class="keys">{items}</ul>'
