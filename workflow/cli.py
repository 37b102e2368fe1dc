"""run_workflow: plan, run, status, errors, retry, ignore, sample and report."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from workflow import __version__
from workflow.exit_codes import EXIT_REFUSED, EXIT_STOPPED
from workflow.populate.stopping import Stopped, become_deaf, become_stoppable
from workflow.settings import SettingsError, load

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EPILOG = """\
exit codes:
  0  everything that was due is done
  1  some keys failed; their errors are listed and kept in the database
  2  bad input or settings; nothing was changed
  3  the database could not be reached
  4  stopped before the end; what was not done is due again

settings (environment, or files in /run/secrets/datajoint named as in brackets):
  DJ_BACKEND   mysql or postgresql [database.backend]
  DJ_HOST      server, or directory of a PostgreSQL socket [database.host]
  DJ_PORT      [database.port]        DJ_USER  [database.user]
  DJ_PASS      [database.password]    DJ_DATABASE_NAME  PostgreSQL only [database.name]
  WORKFLOW_PREFIX           first part of the names of our schemas (workflow_)
  WORKFLOW_SCHEMA_LAB, _EXP2, _IMG, _STIMANAL   the lab's schemas
  WORKFLOW_UPSTREAM         read (default), or declare: a sandbox, whose upstream tables are ours
  WORKFLOW_SECRETS          another directory of secret files
  WORKFLOW_MODULES          serve the tables of these Python modules instead of ours (comma between them)
  WORKFLOW_GRACE            s, that keys in hand have when a run is stopped (30)
  WORKFLOW_PATIENCE         s, to wait for a database that goes away during a run (300)
  WORKFLOW_HEARTBEAT        s, between signs of life (5)

examples:
  run_workflow plan
  run_workflow run --tables 'svd.*' --where 'subject_id = 463190'
  run_workflow run --where '[{"subject_id": 1}, {"subject_id": 2}]' --output results/
  run_workflow sample --suite2p recording/suite2p/plane0
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code says how it ended."""
    arguments = make_parser().parse_args(argv)
    become_stoppable()
    try:
        settings = load()
        os.environ["DJ_IGNORE_CONFIG_FILE"] = "true"  # the settings above are all there is
        from workflow import commands

        return commands.execute(arguments, settings)
    except SettingsError as error:
        print(f"run_workflow: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except Stopped as stop:
        print(f"run_workflow: stopped by {stop}", file=sys.stderr)
        return EXIT_STOPPED
    finally:
        become_deaf()


def make_parser() -> argparse.ArgumentParser:
    """Describe the verbs and their options."""
    parser = argparse.ArgumentParser(
        prog="run_workflow",
        description="Run the DataJoint computations that are due.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"run_workflow {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    plan = verbs.add_parser("plan", help="show what is due, without computing", allow_abbrev=False)
    _add_selection(plan)
    plan.add_argument("--json", action="store_true", help="print JSON")

    run = verbs.add_parser("run", help="compute everything that is due", allow_abbrev=False)
    _add_selection(run)
    run.add_argument("--max-calls", type=_positive, metavar="N", help="at most N keys of each table")
    run.add_argument(
        "--processes", type=_positive, metavar="N", help="workers; default: what the cores allow"
    )
    run.add_argument(
        "--deadline",
        type=_deadline,
        metavar="WHEN",
        help="stop then: 90m, 2h, 1d from now, or 2026-11-22T18:00 (UTC unless it says another zone)",
    )
    run.add_argument("--dry-run", action="store_true", help="show what is due and change nothing")
    run.add_argument(
        "--retries", type=_count, default=2, metavar="N", help="more tries where a worker died (2)"
    )
    run.add_argument("--output", type=Path, metavar="DIR", help="write summary.json and report.html there")
    run.add_argument("--json", action="store_true", help="print the summary as JSON")

    status = verbs.add_parser("status", help="show every table and the latest rounds", allow_abbrev=False)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.add_argument(
        "--watch",
        nargs="?",
        type=_positive,
        const=2,
        metavar="SECONDS",
        help="again and again, every 2 s unless you say otherwise",
    )

    errors = verbs.add_parser("errors", help="list failed keys by cause", allow_abbrev=False)
    _add_selection(errors)
    errors.add_argument("--traceback", action="store_true", help="with the last traceback of each cause")
    errors.add_argument("--all", action="store_true", help="every key, not only the last few of each cause")
    errors.add_argument("--ignored", action="store_true", help="parked keys too")
    errors.add_argument("--json", action="store_true", help="print JSON")

    retry = verbs.add_parser("retry", help="put failed keys back into the queue", allow_abbrev=False)
    _add_selection(retry)
    retry.add_argument("--ignored", action="store_true", help="parked keys too")
    retry.add_argument(
        "--reserved",
        action="store_true",
        help="also keys that other DataJoint clients (not run_workflow) have reserved: for clients that are "
        "dead, since a living one would compute its key all the same",
    )
    retry.add_argument("--json", action="store_true", help="print JSON")

    ignore = verbs.add_parser("ignore", help="park failed keys: leave them undone", allow_abbrev=False)
    _add_selection(ignore)
    ignore.add_argument("--json", action="store_true", help="print JSON")

    sample = verbs.add_parser("sample", help="load synthetic or suite2p recordings", allow_abbrev=False)
    _add_sample(sample)

    report = verbs.add_parser("report", help="write the HTML report of a round", allow_abbrev=False)
    report.add_argument(
        "--summary", type=Path, required=True, metavar="FILE", help="summary.json of the round"
    )
    report.add_argument(
        "--output", type=Path, default=Path("report.html"), metavar="FILE", help="default: report.html"
    )
    report.add_argument(
        "--all", action="store_true", help="draw every table, not only those that the round added to"
    )
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tables",
        action="append",
        default=[],
        metavar="NAME",
        help="only these tables (module.Class, Class, or patterns such as 'svd.*'); may be repeated",
    )
    parser.add_argument(
        "--where",
        default="",
        metavar="CONDITION",
        help='only keys that match: SQL (subject_id = 1) or JSON ({"subject_id": 1}, or a list of such)',
    )


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", choices=("small", "medium", "large"), default="small", help="synthetic: how much"
    )
    parser.add_argument("--seed", type=int, default=1, help="synthetic: seed of the random numbers")
    parser.add_argument(
        "--suite2p", type=Path, metavar="FOLDER", help="load this suite2p output folder instead"
    )
    parser.add_argument(
        "--frame-rate", type=float, metavar="HZ", help="suite2p: frame rate; default: that of ops.npy"
    )
    parser.add_argument(
        "--subject-id", type=int, metavar="ID", help="suite2p: the animal; default: a new one"
    )
    parser.add_argument(
        "--session", type=int, metavar="N", help="suite2p: the session; default: the next free one"
    )
    parser.add_argument(
        "--epoch-type", default="spont_only", metavar="TYPE", help="suite2p: default spont_only"
    )
    parser.add_argument("--brain-area", metavar="NAME", help="suite2p: the area that all ROIs lie in")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _deadline(text: str) -> float:
    """Seconds from now."""
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip()):
        return float(found[1]) * _UNITS[found[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a time from now (90m, 2h) nor a date and time (2026-11-22T18:00)"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - datetime.now(UTC)).total_seconds()
    if seconds <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is in the past: it is {datetime.now(UTC):%Y-%m-%dT%H:%M} UTC"
        )
    return seconds


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
