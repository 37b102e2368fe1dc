"""What each verb of run_workflow does."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datajoint as dj

from workflow.exit_codes import EXIT_DONE, EXIT_REFUSED, EXIT_UNREACHABLE
from workflow.pipeline import schemas
from workflow.pipeline.connection import connect
from workflow.populate import ledger, rounds
from workflow.populate.plan import RequestError, computed_tables, parse_restriction, plan, select
from workflow.populate.progress import Progress
from workflow.sample.errors import SampleError
from workflow.settings import Settings

_PLAN_COLUMNS = ("label", "due", "done", "failed")
_RUN_COLUMNS = ("table", "due", "done", "failed", "skipped", "seconds")
_ROUND_COLUMNS = ("round", "machine", "verdict", "n_due", "n_done", "n_failed", "n_skipped")


def execute(arguments: argparse.Namespace, settings: Settings) -> int:
    """Run the verb that the arguments name.

    Returns
    -------
    int
        The exit code; where it is not 0, one line on stderr says why.
    """
    verbs: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
        "plan": _plan,
        "run": _run,
        "status": _status,
        "sample": _sample,
        "report": _report,
    }
    try:
        return verbs[arguments.verb](arguments, settings)
    except (*rounds.REFUSALS, SampleError) as error:
        return _refuse(error, EXIT_REFUSED)
    except rounds.UNREACHABLE as error:
        return _refuse(error, EXIT_UNREACHABLE)
    except dj.DataJointError as error:
        return _refuse(f"the database refuses: {error}: check the rights of the database user", EXIT_REFUSED)


def _refuse(error: Exception | str, code: int) -> int:
    print(f"run_workflow: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _open(settings: Settings) -> dict[str, Any]:
    """Connect, bind the table classes, find those that are served, and tell them what code is running."""
    connect(settings.database)
    schemas.activate(settings)
    ledger.schema.activate(f"{settings.prefix}ledger")
    tables = computed_tables(schemas.served())
    for table in tables.values():
        type(table).code_commit = settings.commit
    return tables


def _plan(arguments: argparse.Namespace, settings: Settings) -> int:
    tables = select(_open(settings), arguments.tables)
    entries = [asdict(entry) for entry in plan(tables, parse_restriction(arguments.where, tables))]
    if arguments.json:
        _print_json(entries)
    else:
        _print_table(entries, _PLAN_COLUMNS)
    return EXIT_DONE


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.output:
        _require_writable(arguments.output)
    summary = rounds.begin(settings)
    rounds.carry_out(summary, lambda: _open(settings), arguments.tables, arguments.where, arguments.max_calls)
    if arguments.output:
        from workflow.report import write_report

        rounds.write(summary, arguments.output, write_report)
    if arguments.json:
        _print_json(summary.as_dict())
    else:
        _print_table([asdict(table) for table in summary.tables], _RUN_COLUMNS)
        print(f"{summary.verdict}: {summary.message}", file=sys.stderr if summary.exit_code else sys.stdout)
    return summary.exit_code


def _require_writable(output: Path) -> None:
    """Refuse an output directory before hours of computing, not after them."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output):
            return
    except OSError as error:
        raise RequestError(
            f"--output {output}: cannot be written ({error.strerror}): name another directory"
        ) from None


def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    entries = [asdict(entry) for entry in plan(_open(settings), [])]
    rounds = ledger.Round.to_dicts(order_by="started DESC", limit=5)
    if arguments.json:
        _print_json({"tables": entries, "rounds": rounds})
    else:
        _print_table(entries, _PLAN_COLUMNS)
        _print_table(rounds, _ROUND_COLUMNS)
    return EXIT_DONE


def _sample(arguments: argparse.Namespace, settings: Settings) -> int:
    from workflow.sample import load

    if not settings.declare_upstream:
        raise SampleError(
            "WORKFLOW_UPSTREAM is 'read': sample data never goes into the lab's own schemas; set "
            "WORKFLOW_UPSTREAM=declare and, on a shared server, other names in WORKFLOW_SCHEMA_*"
        )
    progress = Progress(sys.stderr).note
    if arguments.suite2p is None:
        _open(settings)
        loaded = load.load_synthetic(arguments.size, arguments.seed, progress=progress)
    else:
        recording = load.read_suite2p(arguments.suite2p, frame_rate=arguments.frame_rate)
        _open(settings)
        loaded = load.load_recording(
            recording,
            subject_id=arguments.subject_id,
            session=arguments.session,
            epoch_type=arguments.epoch_type,
            brain_area=arguments.brain_area,
            progress=progress,
        )
    if arguments.json:
        _print_json(loaded.as_dict())
    else:
        print(loaded.message)
    return EXIT_DONE


def _report(arguments: argparse.Namespace, settings: Settings) -> int:
    from workflow.report import SummaryError, write_report

    try:
        summary = json.loads(arguments.summary.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return _refuse(
            ValueError(f"--summary {arguments.summary}: not a round's summary: {error}"), EXIT_REFUSED
        )
    _open(settings)
    _require_writable(arguments.output.parent)
    try:
        write_report(summary, arguments.output, everything=arguments.all)
    except SummaryError as error:
        return _refuse(ValueError(f"--summary {arguments.summary}: {error}"), EXIT_REFUSED)
    print(arguments.output)
    return EXIT_DONE


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))


def _print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print aligned columns: the first to the left, the others to the right."""
    lines = [[column.removeprefix("n_") for column in columns]]
    lines += [[str(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip())
    print()
