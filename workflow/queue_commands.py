"""The verbs about failed keys, and the one that watches."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from workflow.exit_codes import EXIT_DONE
from workflow.populate import errors, status
from workflow.populate.claim import Queue
from workflow.populate.plan import parse_restriction, select
from workflow.populate.stopping import Stopped
from workflow.printing import print_json, print_table
from workflow.settings import Settings

Open = Callable[[], Mapping[str, Any]]

_ROUND_COLUMNS = ("round", "machine", "verdict", "n_due", "n_done", "n_failed", "n_skipped")
_EXAMPLES = 3
_NO_FAILURE = "no key has failed"
_CLEAR = "\x1b[H\x1b[J"


def show_errors(arguments: argparse.Namespace, open_tables: Open) -> int:
    """List failed keys by cause."""
    found = errors.failures(_queues(arguments, open_tables), ignored=arguments.ignored)
    if arguments.json:
        left_out = () if arguments.traceback else ("traceback",)
        print_json(
            [{name: value for name, value in asdict(each).items() if name not in left_out} for each in found]
        )
        return EXIT_DONE
    if not found:
        print(_NO_FAILURE)
    for cause in errors.by_cause(found):
        _describe(cause.failures, arguments.traceback, arguments.all)
    return EXIT_DONE


def _describe(failures: Sequence[errors.Failure], traceback: bool, everything: bool) -> None:
    last = failures[-1]
    count = f"{len(failures)} keys" if len(failures) > 1 else "1 key"
    print(f"{last.table}: {count}: {last.message}")
    for each in failures if everything else failures[-_EXAMPLES:]:
        parked = ", parked" if each.status == "ignore" else ""
        tries = f", {each.attempts} attempts" if each.attempts > 1 else ""
        who = f", worker {each.worker}" if each.worker else ""
        commit = f", commit {each.commit[:7]}" if each.commit else ""
        print(f"  {each.key}: {each.failed[:19]}{tries} on {each.host}{who}{commit}{parked}")
    hidden = 0 if everything else len(failures) - _EXAMPLES
    if hidden > 0:
        print(f"  … and {hidden} more: --all lists them")
    if traceback and last.traceback:
        print("  " + last.traceback.rstrip().replace("\n", "\n  "))
    print()


def retry(arguments: argparse.Namespace, open_tables: Open) -> int:
    """Put failed keys back into the queue, and those that other clients have left reserved if asked to."""
    counts = {
        queue.label: queue.retry(ignored=arguments.ignored) + (queue.free() if arguments.reserved else 0)
        for queue in _queues(arguments, open_tables)
    }
    nothing = "no key has failed, or is reserved by another client" if arguments.reserved else _NO_FAILURE
    return _changed(counts, "put back into the queue", arguments.json, nothing)


def ignore(arguments: argparse.Namespace, open_tables: Open) -> int:
    """Park failed keys."""
    counts = {queue.label: queue.park() for queue in _queues(arguments, open_tables)}
    return _changed(counts, "parked: 'run_workflow retry --ignored' takes that back", arguments.json)


def _changed(counts: Mapping[str, int], what: str, as_json: bool, nothing: str = _NO_FAILURE) -> int:
    if as_json:
        print_json(counts)
        return EXIT_DONE
    for label, count in counts.items():
        if count:
            print(f"{label}: {count} {what}")
    if not any(counts.values()):
        print(nothing)
    return EXIT_DONE


def _queues(arguments: argparse.Namespace, open_tables: Open) -> list[Queue]:
    tables = select(open_tables(), arguments.tables)
    return errors.queues_of(tables, parse_restriction(arguments.where, tables))


def show_status(arguments: argparse.Namespace, open_tables: Open, settings: Settings) -> int:
    """Show how far every table is and who works, once or again and again."""
    tables = open_tables()
    snapshot = status.look(tables, settings.heartbeat)
    while True:
        if arguments.json:
            print_json(snapshot.as_dict())
        else:
            print((_CLEAR if arguments.watch and sys.stdout.isatty() else "") + status.describe(snapshot))
            print()
            if snapshot.rounds and not arguments.watch:
                print_table(snapshot.rounds, _ROUND_COLUMNS)
        if not arguments.watch:
            return EXIT_DONE
        sys.stdout.flush()
        try:
            time.sleep(arguments.watch)
        except Stopped:
            return EXIT_DONE
        snapshot = status.look(tables, settings.heartbeat, snapshot)
