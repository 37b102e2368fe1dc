"""One row per round: who ran which commit where, and how it ended."""

from __future__ import annotations

import datajoint as dj

from workflow.populate.summary import Summary

schema = dj.Schema()


@schema
class Round(dj.Manual):
    """A round of operation on one machine."""

    definition = """
    # rounds of operation
    round : varchar(64)
    machine : varchar(255)
    ---
    started : varchar(32)  # UTC, ISO 8601
    ended="" : varchar(32)  # UTC, ISO 8601; empty while it runs, or if it was killed
    code_commit="" : varchar(40)
    version="" : varchar(32)
    username="" : varchar(255)
    verdict="" : varchar(16)
    n_due=0 : int32
    n_done=0 : int32
    n_failed=0 : int32
    n_skipped=0 : int32
    """


def opened(summary: Summary) -> None:
    """Record that a round begins on this machine."""
    Round.insert1(_row(summary), skip_duplicates=True)


def closed(summary: Summary) -> None:
    """Record how a round ended."""
    Round.update1(
        _row(summary)
        | {
            "ended": summary.ended,
            "verdict": summary.verdict,
            "n_due": summary.total("due"),
            "n_done": summary.total("done"),
            "n_failed": summary.total("failed"),
            "n_skipped": summary.total("skipped"),
        }
    )


def _row(summary: Summary) -> dict[str, str]:
    return {
        "round": summary.round,
        "machine": summary.machine,
        "started": summary.started,
        "code_commit": summary.commit,
        "version": summary.version,
        "username": summary.user,
    }
