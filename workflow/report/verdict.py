"""How the round ended, in plain words."""

from __future__ import annotations

from typing import Any

from workflow.report.text import clock, count, duration, escape, moment, number, shorten

COUNTS = ("due", "done", "failed", "skipped", "held", "later")

_GOOD, _BAD, _HALF = "good", "bad", "half"
_SYMBOLS = {_GOOD: "✓", _BAD: "✗", _HALF: "■"}
_EXIT_CODES = {
    0: "everything that was due is done",
    1: "some keys failed",
    2: "bad input or settings",
    3: "the database could not be reached",
    4: "stopped before the end",
}
_NEXT = {
    "failed": "The rest is done and stays. What failed is due again in the next round: the causes are below.",
    "stopped": "What was done stays. Run again to go on: what was not reached is due again.",
    "refused": "Nothing was changed. Correct what the message names, then run again.",
    "unreachable": "Check that the database server runs and that this machine can reach it, then run again. "
    "Whatever is not in the database is due again.",
}


def headline(summary: dict[str, Any]) -> str:
    """Say in a few words how the round ended."""
    total = totals(summary)
    match summary["verdict"]:
        case "succeeded":
            return _success(total)
        case "failed":
            return f"{number(total['failed'])} of {count(total['due'], 'computation')} failed"
        case "stopped":
            return "Stopped before the end"
        case "refused":
            return "Refused: nothing was computed"
        case "unreachable":
            return "The database was lost" if summary["tables"] else "The database could not be reached"
        case other:
            return f"Ended as {other!r}"


def _success(total: dict[str, int]) -> str:
    if total["held"] or total["later"] or total["waits"]:
        return "What could be done is done; some keys wait"
    return "Everything that was due is done" if total["due"] else "Nothing was due"


def verdict(summary: dict[str, Any]) -> str:
    """Write the top of the page: what ran, how it ended, how long it took, what to do next."""
    mood = {"succeeded": _GOOD, "stopped": _HALF}.get(summary["verdict"], _BAD)
    sentences = [
        _work(summary),
        _waiting(summary),
        _time(summary),
        _who(summary),
        _NEXT.get(summary["verdict"], ""),
    ]
    mark = f'<span class="mark {mood}" aria-hidden="true">{_SYMBOLS[mood]}</span>'
    lines = [
        f'<p class="kicker">Round {escape(summary["round"])}</p>',
        f"<h1>{mark} {escape(headline(summary))}</h1>",
        f"<p>{escape(' '.join(filter(None, sentences)))}</p>",
    ]
    if summary["message"] and summary["verdict"] != "succeeded":
        lines.append(f'<p class="message">{escape(shorten(str(summary["message"])))}</p>')
    return "\n".join(lines)


def facts(summary: dict[str, Any]) -> str:
    """List what identifies the round, for a lab book."""
    database = summary["database"]
    where = f"{database.get('host', '')}:{database.get('port', '')}" if database.get("host") else ""
    rows = {
        "Round": summary["round"],
        "Commit": summary["commit"] or "not recorded",
        "Version": summary["version"],
        "Started": summary["started"],
        "Ended": summary["ended"] or "not recorded",
        "Run by": summary["user"],
        "Machine": summary["machine"],
        "Database": " ".join(filter(None, [str(database.get("backend", "")), where])) or "not known",
        "Result schemas": f"{database['prefix']}*" if database.get("prefix") else "not known",
        "Exit code": f"{summary['exit_code']} ({_EXIT_CODES.get(summary['exit_code'], 'unknown')})",
    }
    items = "\n".join(
        f"<div><dt>{name}</dt><dd>{escape(shorten(str(value), 300))}</dd></div>"
        for name, value in rows.items()
    )
    return f'<h2>This round</h2>\n<dl class="facts">\n{items}\n</dl>'


def totals(summary: dict[str, Any]) -> dict[str, int]:
    """Sum the counts over all tables; ``left`` was due and not reached."""
    total = {name: sum(int(table.get(name, 0)) for table in summary["tables"]) for name in COUNTS}
    total["waits"] = sum(max(table.get("waits", {}).values(), default=0) for table in summary["tables"])
    total["left"] = max(0, total["due"] - total["done"] - total["failed"] - total["skipped"])
    return total


def _work(summary: dict[str, Any]) -> str:
    total = totals(summary)
    n_tables = len(summary["tables"])
    if not n_tables:
        return ""
    where = "in one table" if n_tables == 1 else f"in {n_tables} tables"
    if not total["due"]:
        waiting = total["held"] or total["later"] or total["waits"]
        complete = summary["verdict"] == "succeeded" and not waiting
        return f"Every result that can be computed {where} is in the database already." if complete else ""
    if total["done"] == total["due"]:
        parts = ["all of them done"] if total["due"] > 1 else ["and it is done"]
    else:
        parts = [f"{number(total['done'])} done"]
        parts += [f"{number(total['failed'])} failed"] if total["failed"] else []
        parts += [f"{number(total['skipped'])} skipped for a stated reason"] if total["skipped"] else []
        parts += [f"{number(total['left'])} not reached"] if total["left"] else []
    verb = "was" if total["due"] == 1 else "were"
    return f"{count(total['due'], 'computation')} {verb} due {where}: {', '.join(parts)}."


def _waiting(summary: dict[str, Any]) -> str:
    total, sentences = totals(summary), []
    if held := total["held"]:
        sentences.append(
            f"{count(held, 'key')} {'is' if held == 1 else 'are'} reserved by other DataJoint clients: where "
            "such a client has died, run_workflow retry --reserved puts its keys back."
        )
    if later := total["later"]:
        sentences.append(f"{count(later, 'key')} {'is' if later == 1 else 'are'} scheduled for later.")
    for table in summary["tables"]:
        for label, n in table.get("waits", {}).items():
            sentences.append(f"{count(n, 'key')} of {table['table']} will be due when {label} is complete.")
    return " ".join(sentences)


def _time(summary: dict[str, Any]) -> str:
    started, ended = moment(summary["started"]), moment(summary["ended"])
    if started is None or ended is None:
        return ""
    return f"The round took {duration(max(0.0, (ended - started).total_seconds()))}, from {clock(started)}."


def _who(summary: dict[str, Any]) -> str:
    person = summary["user"] or "An unknown person"
    machine = f"on the machine {summary['machine']}" if summary["machine"] else "on an unknown machine"
    code = f"commit {summary['commit'][:7]}" if summary["commit"] else "an unrecorded commit"
    return f"{person} ran it {machine} with {code} of the code (version {summary['version']})."
