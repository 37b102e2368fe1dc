"""What each verb of run_workflow does."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import datajoint as dj

from workflow import queue_commands
from workflow.exit_codes import EXIT_DONE, EXIT_REFUSED
from workflow.pipeline import schemas
from workflow.pipeline.binding import bind
from workflow.pipeline.character_sets import match_character_sets
from workflow.pipeline.connection import DatabaseUnreachableError, connect
from workflow.pipeline.discovery import ModuleError
from workflow.pipeline.served import load_modules
from workflow.populate import ledger, rounds
from workflow.populate.crew import Terms
from workflow.populate.plan import RequestError, computed_tables, parse_restriction, plan, select
from workflow.populate.progress import Progress
from workflow.populate.stopping import Stopped
from workflow.printing import print_json, print_table
from workflow.sample.errors import SampleError
from workflow.settings import Settings

_PLAN_COLUMNS = ("label", "due", "done", "failed")
_RUN_COLUMNS = ("table", "due", "done", "failed", "skipped", "seconds")


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
        "status": lambda given, of: queue_commands.show_status(given, lambda: _open(of), of),
        "errors": lambda given, of: queue_commands.show_errors(given, lambda: _open(of)),
        "retry": lambda given, of: queue_commands.retry(given, lambda: _open(of)),
        "ignore": lambda given, of: queue_commands.ignore(given, lambda: _open(of)),
        "sample": _sample,
        "report": _report,
    }
    try:
        return verbs[arguments.verb](arguments, settings)
    except SampleError as error:
        return _refuse(error, EXIT_REFUSED)
    except (*rounds.REFUSALS, DatabaseUnreachableError, dj.DataJointError) as error:
        code, message = rounds.explain(error) or (EXIT_REFUSED, str(error))
        return _refuse(message, code)


def _refuse(error: Exception | str, code: int) -> int:
    print(f"run_workflow: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _open(
    settings: Settings, patience: Callable[[], float] = lambda: 0.0, deadline: float = math.inf
) -> dict[str, Any]:
    """Connect, bind the table classes, find those that are served, and tell them what code is running.

    A server that is not there is not waited for; one that goes away afterwards is, for so long. Others who
    declare tables are waited for until the deadline at most.
    """
    connection = connect(settings.database)
    match_character_sets()
    tables: dict[str, Any] = rounds.patiently(lambda: _bind(connection, settings, deadline), patience)
    return tables


def _bind(connection: dj.Connection, settings: Settings, deadline: float) -> dict[str, Any]:
    if settings.modules:
        with schemas.alone(connection, deadline):
            served = load_modules(settings.modules, settings.prefix)
    else:
        schemas.activate(settings, deadline)
        served = schemas.served()
    tables = computed_tables(served)
    if not tables:
        raise ModuleError("WORKFLOW_MODULES: there is no Computed or Imported table in these modules")
    with schemas.alone(connection, deadline):
        bind(ledger.schema, f"{settings.prefix}ledger")
        for table in tables.values():
            _ = table.jobs  # declared where it is missing
    for table in tables.values():
        type(table).code_commit = settings.commit
    return tables


def _plan(arguments: argparse.Namespace, settings: Settings) -> int:
    tables = select(_open(settings), arguments.tables)
    entries = [asdict(entry) for entry in plan(tables, parse_restriction(arguments.where, tables))]
    _give_hints({entry["label"]: tables[entry["label"]] for entry in entries if not entry["due"]})
    if arguments.json:
        print_json(entries)
    else:
        print_table(entries, _PLAN_COLUMNS)
    return EXIT_DONE


def _give_hints(idle: Mapping[str, Any]) -> None:
    """Say, once for all of them, why nothing is due in these tables, where a table knows (``hint``)."""
    hints: dict[str, list[str]] = {}
    for label, table in idle.items():
        if hint := getattr(table, "hint", ""):
            hints.setdefault(hint, []).append(label)
    for hint, labels in hints.items():
        print(f"run_workflow: {', '.join(labels)}: {hint}", file=sys.stderr)


def _terms(arguments: argparse.Namespace, settings: Settings) -> Terms:
    return Terms(
        processes=arguments.processes,
        max_calls=arguments.max_calls,
        deadline=math.inf if arguments.deadline is None else time.monotonic() + arguments.deadline,
        retries=arguments.retries,
        grace=settings.grace,
        heartbeat=settings.heartbeat,
        patience=settings.patience,
        image=settings.image,
    )


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.dry_run:
        return _plan(arguments, settings)
    if arguments.output:
        _require_writable(arguments.output)
    summary = rounds.begin(settings)
    terms = _terms(arguments, settings)
    tables: dict[str, Any] = {}

    def open_tables() -> dict[str, Any]:
        try:
            tables.update(_open(settings, terms.patience_left, terms.deadline))
        except schemas.UpstreamError:
            if time.monotonic() < terms.deadline:
                raise
            raise Stopped("its deadline") from None
        return tables

    rounds.carry_out(summary, open_tables, arguments.tables, arguments.where, terms)
    if summary.exit_code == EXIT_DONE and not any(summary.total(count) for count in ("due", *rounds.WAITING)):
        _give_hints({outcome.table: tables[outcome.table] for outcome in summary.tables})
    if arguments.output:
        from workflow.report import write_report

        rounds.write(summary, arguments.output, partial(write_report, tables=tables))
    if arguments.json:
        print_json(summary.as_dict())
    else:
        print_table([asdict(table) for table in summary.tables], _RUN_COLUMNS)
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


def _sample(arguments: argparse.Namespace, settings: Settings) -> int:
    from workflow.sample import load

    if not settings.declare_upstream:
        raise SampleError(
            "WORKFLOW_UPSTREAM is 'read': sample data never goes into the lab's own schemas; set "
            "WORKFLOW_UPSTREAM=declare and, on a shared server, other names in WORKFLOW_SCHEMA_*"
        )
    progress = Progress(sys.stderr)
    try:
        if arguments.suite2p is None:
            _open(settings)
            loaded = load.load_synthetic(arguments.size, arguments.seed, progress=progress.note)
        else:
            recording = load.read_suite2p(arguments.suite2p, frame_rate=arguments.frame_rate)
            _open(settings)
            loaded = load.load_recording(
                recording,
                subject_id=arguments.subject_id,
                session=arguments.session,
                epoch_type=arguments.epoch_type,
                brain_area=arguments.brain_area,
                progress=progress.note,
            )
    finally:
        progress.end()
    if arguments.json:
        print_json(loaded.as_dict())
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
    tables = _open(settings)
    _require_writable(arguments.output.parent)
    try:
        write_report(summary, arguments.output, tables=tables, everything=arguments.all)
    except SummaryError as error:
        return _refuse(ValueError(f"--summary {arguments.summary}: {error}"), EXIT_REFUSED)
    print(arguments.output)
    return EXIT_DONE
