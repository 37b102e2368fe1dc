"""Lookup tables that refuse a parameter row that makes no sense, and the checks that they are made of.

A check is one line::

    @staticmethod
    def check(row: Row) -> str:
        return problems(at_least(row, "time_bin", 0), at_most(row, "n_latent", "n_observed"))
"""

from __future__ import annotations

import csv
import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pandas as pd

Row = Mapping[str, Any]


class CheckedLookup(dj.Lookup):
    """A Lookup table whose rows are checked on their way in; a bad row keeps its whole batch out.

    Subclasses give `check`. It applies to ``contents``, ``insert``, ``insert1`` and ``update1``.
    """

    @staticmethod
    def check(row: Row) -> str:
        """Say what is wrong with a complete row, defaults included; ``""`` if it makes sense."""
        raise NotImplementedError

    def insert(self, rows: Any, *arguments: Any, **options: Any) -> None:
        """Insert rows of any kind that DataJoint takes.

        Raises
        ------
        datajoint.DataJointError
            If any row is refused; none is inserted then.
        """
        named = [self._named(row) for row in _each(rows)]
        for row in named:
            self._require(row)
        super().insert(named, *arguments, **options)

    def update1(self, row: Row) -> None:
        """Change one row; what it would become is checked."""
        stored = (self & {name: row[name] for name in self.primary_key if name in row}).to_dicts()
        self._require({**stored[0], **row} if len(stored) == 1 else row)
        super().update1(row)

    def _named(self, row: Any) -> dict[str, Any]:
        """Give a row of any kind by the names of its columns."""
        columns = self.heading.names
        if isinstance(row, np.void):
            return {name: row[name] for name in row.dtype.names or ()}
        if isinstance(row, Mapping):
            return dict(row)
        if isinstance(row, Sequence) and not isinstance(row, str) and len(row) == len(columns):
            return dict(zip(columns, row, strict=True))
        raise self._refusal({}, f"{row!r} is not a row of {', '.join(columns)}")

    def _require(self, row: Row) -> None:
        """Raise if a row, with the defaults of what it leaves out, makes no sense."""
        complete = dict(row)
        for name, column in self.heading.attributes.items():
            if complete.get(name) is None:
                if column.default is None and not column.nullable and not column.autoincrement:
                    raise self._refusal(row, f"{name} is missing")
                complete[name] = _default(column)
        whole = (
            name
            for name, column in self.heading.attributes.items()
            if column.numeric and "int" in column.type
        )
        reason = problems(*(_whole(complete, name) for name in whole)) or type(self).check(complete)
        if reason:
            raise self._refusal(row, reason)

    def _refusal(self, row: Row, reason: str) -> dj.DataJointError:
        key = ", ".join(f"{name}={row[name]!r}" for name in self.primary_key if name in row)
        name = f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"
        return dj.DataJointError(f"{name}: parameter row {key or '(unnamed)'} refused: {reason}")


def problems(*reasons: str) -> str:
    """Join what is wrong, each once; empty reasons are no problem."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


def at_least(row: Row, name: str, bound: float | str) -> str:
    """Require a finite number not below a bound: a number, or the name of another column."""
    return _compare(row, name, bound, "at least", lambda value, limit: value >= limit)


def at_most(row: Row, name: str, bound: float | str) -> str:
    """Require a finite number not above a bound: a number, or the name of another column."""
    return _compare(row, name, bound, "at most", lambda value, limit: value <= limit)


def above(row: Row, name: str, bound: float | str) -> str:
    """Require a finite number above a bound: a number, or the name of another column."""
    return _compare(row, name, bound, "above", lambda value, limit: value > limit)


def below(row: Row, name: str, bound: float | str) -> str:
    """Require a finite number below a bound: a number, or the name of another column."""
    return _compare(row, name, bound, "below", lambda value, limit: value < limit)


def one_of(row: Row, name: str, *choices: Any) -> str:
    """Require one of a few values."""
    if row[name] in choices:
        return ""
    return f"{name} is {row[name]!r}, must be one of {', '.join(map(str, choices))}"


def _whole(row: Row, name: str) -> str:
    """Require a whole number of what is a number at all: servers round, and only some of them say so."""
    value = _number(row[name])
    return f"{name} is {row[name]}, must be a whole number" if math.isfinite(value) and value % 1 else ""


def _compare(row: Row, name: str, bound: float | str, relation: str, holds: Any) -> str:
    value = _number(row[name])
    if not math.isfinite(value):
        return f"{name} is {row[name]!r}, must be a finite number"
    limit = _number(row[bound]) if isinstance(bound, str) else bound
    if holds(value, limit):
        return ""
    named = f"{bound}, which is {row[bound]}" if isinstance(bound, str) else f"{bound:g}"
    return f"{name} is {row[name]}, must be {relation} {named}"


def _number(value: Any) -> float:
    """Give any number, also as text (from a CSV file), as a float; NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _each(rows: Any) -> list[Any]:
    """List the rows of anything that DataJoint inserts: rows, a query, a data frame, a CSV file."""
    if inspect.isclass(rows) and issubclass(rows, dj.expression.QueryExpression):
        rows = rows()
    if isinstance(rows, dj.expression.QueryExpression):
        return list(rows.to_dicts())
    if isinstance(rows, pd.DataFrame):
        unnamed = len(rows.index.names) == 1 and not rows.index.names[0]
        return list(rows.reset_index(drop=unnamed).to_records(index=False))
    if isinstance(rows, Path):
        with rows.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    return list(rows)


def _default(column: Any) -> Any:
    """Turn a column's default, as the server spells it, into a value."""
    if column.nullable or column.default is None:
        return None
    text = str(column.default)
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    cast = re.fullmatch(r"'(.*)'(?:::.*)?", text, flags=re.DOTALL)  # PostgreSQL: 'text'::character varying
    if cast:
        text = cast[1].replace("''", "'")
    if column.string:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
