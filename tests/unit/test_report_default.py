"""What the report shows of a table without figures of its own."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import HOSTILE, check_page, summary

from workflow.report import data, default, write_report
from workflow.report.data import Scalars
from workflow.report.default import any_table
from workflow.report.figures import Figure

COMMENTS = {
    "skip_reason": "why nothing was computed",
    "n_rois": "ROIs used, N",
    "mean_rate": "Hz",
    "is_good": "",
    "note": "",
    "code_commit": "commit that computed this row",
}


def row(session: int, **changes: Any) -> dict[str, Any]:
    values = {
        "session": session,
        "params": "default",
        "skip_reason": "",
        "n_rois": 40,
        "mean_rate": 0.5 * session,
        "is_good": True,
        "note": "",
        "code_commit": "abc",
    }
    return {**values, **changes}


def figure(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], done: list[Any]) -> Figure:
    new = [one for one in rows if {"session": one["session"], "params": one["params"]} in done]
    rows = new + [one for one in rows if one not in new]
    n_skipped = sum(bool(one["skip_reason"]) for one in rows)
    content = Scalars(["session", "params"], COMMENTS, rows, len(new), len(rows), n_skipped)
    monkeypatch.setattr(data, "scalars", lambda table, done: content)
    [one] = any_table("rates.EventRate", None, len(done), done)
    return one


def test_rows_of_this_round_come_first_and_empty_columns_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [row(3), row(2, skip_reason="too short", mean_rate=None), row(1)]
    one = figure(monkeypatch, rows, [{"session": 1, "params": "default"}])
    assert one.columns == ("session, params", "n rois", "mean rate", "is good", "skip reason")
    assert one.rows == (
        ("1, default", "40", "0.5", "yes", ""),
        ("3, default", "40", "1.5", "yes", ""),
        ("2, default", "40", "–", "yes", "too short"),
    )
    assert one.caption.startswith(
        "3 rows in the database, 1 of them skipped; 1 computed in this round (blue; "
    )
    assert "mean rate: Hz" in one.caption
    assert "code" not in one.caption


def test_columns_that_differ_are_drawn_with_their_units(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(default, "inline_svg", lambda canvas, *_: drawn.append(canvas) or "<svg/>")
    rows = [*(row(n) for n in range(5)), row(9, skip_reason="too short")]
    figure(monkeypatch, rows, [{"session": 4, "params": "default"}])
    [axes] = drawn[0].axes
    assert axes.get_xlabel() == "mean rate (Hz)"
    earlier, new, median = axes.lines
    assert sorted(earlier.get_xdata()) == [0, 0.5, 1, 1.5]
    assert new.get_xdata().tolist() == [2]
    assert median.get_xdata()[0] == 1


def test_nothing_that_differs_is_no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = [row(1, mean_rate=np.nan), row(2, mean_rate=np.inf), row(3, mean_rate=None)]
    one = figure(monkeypatch, odd, [])
    assert one.svg == ""
    assert [cells[2] for cells in one.rows] == ["nan", "inf", "–"]


def test_many_rows_are_drawn_but_few_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(n, mean_rate=float(n % 97)) for n in range(5000)]
    one = figure(monkeypatch, rows, [])
    assert len(one.rows) == default.MOST_ROWS
    assert f"has {default.MOST_ROWS} of them" in one.caption
    assert len(one.svg) < 600_000


def test_an_empty_table_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "scalars", lambda table, done: Scalars(["session"], COMMENTS, [], 0, 0, 0))
    assert list(any_table("rates.EventRate", None, 0, [])) == []


def test_a_page_with_two_such_tables_and_hostile_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [row(n, note=HOSTILE, params=datetime.date(2026, 1, 1 + n)) for n in range(3)]
    content = Scalars(["session", "params"], {**COMMENTS, "mean_rate": HOSTILE[:30]}, rows, 0, 3, 0)
    monkeypatch.setattr(data, "connected", lambda tables: True)
    monkeypatch.setattr(data, "scalars", lambda table, done: content)
    tables = dict.fromkeys(["rates.EventRate", "rates.Other"])
    write_report(summary("succeeded", []), tmp_path / "report.html", tables=tables, everything=True)
    page = check_page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(page.all("svg", **{"class": "plot"})) == 2
    assert "2, 2026-01-03" in page.text
