"""The figures of the report: which table has which, and how they stand in the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from workflow.report import area_spectra, communication_subspace, lds, shared_variance, timescales
from workflow.report.default import any_table
from workflow.report.figures import Figure
from workflow.report.svd import population_svd
from workflow.report.text import escape, shorten

#: Draws the figures of one table from the database, given the keys that the round computed.
Draw = Callable[[Sequence[dict[str, Any]]], Iterable[Figure]]

#: Tables with figures of their own, by label. Any other table gets those of `any_table`.
FIGURES: dict[str, Draw] = {
    "svd.PopulationSVD": population_svd,
    "area_svd.AreaSVD": area_spectra.area_svds,
    "matched_svd.MatchedAreaSVD": area_spectra.matched_area_svds,
    "partition_svd.PartitionSVD": area_spectra.partition_svds,
    "shuffle.AreaShuffle": area_spectra.area_shuffles,
    "timescale.ComponentTimescale": timescales.component_timescales,
    "timescale.AreaComponentTimescale": timescales.area_component_timescales,
    "lds.LDS": lds.systems,
    "lds.AreaLDS": lds.area_systems,
    "shared_variance.SharedVariance": shared_variance.shared_variances,
    "communication_subspace.CommunicationSubspace": communication_subspace.communication_subspaces,
}


def figures(summary: dict[str, Any], tables: Mapping[str, Any]) -> str:
    """Draw tables from the database.

    A figure that cannot be drawn is said in its place; the rest of the report does not depend on it.

    Parameters
    ----------
    summary : dict
        What ``summary.json`` holds, checked.
    tables : mapping of str to table
        Which tables, by label, parents before children.

    Returns
    -------
    str
        HTML.
    """
    return "\n".join(
        _figures(label, _draw(label, tables[label], summary), _done(summary, label))
        for label in sorted(tables, key=_place)
    )


def _draw(label: str, table: Any, summary: dict[str, Any]) -> Draw:
    """Choose what draws a table; one of another pipeline may have the name of one of ours."""
    if type(table).__module__.startswith("workflow.pipeline.") and label in FIGURES:
        return FIGURES[label]
    n_done = sum(int(entry["done"]) for entry in summary["tables"] if entry["table"] == label)
    return partial(any_table, label, table, n_done)


def _place(label: str) -> int:
    """Order the tables as `FIGURES` does; those without figures of their own come last, parents first."""
    labels = list(FIGURES)
    return labels.index(label) if label in FIGURES else len(labels)


def _done(summary: dict[str, Any], label: str) -> list[dict[str, Any]]:
    return [
        entry["key"] for entry in summary["keys"] if entry["table"] == label and entry["outcome"] == "done"
    ]


def _figures(label: str, draw: Draw, done: Sequence[dict[str, Any]]) -> str:
    heading = f"<h3>{escape(label)}</h3>"
    try:
        figures = list(draw(done))
    except Exception as error:
        cause = shorten(f"{type(error).__name__}: {' '.join(str(error).split())}", 500)
        return (
            f'{heading}\n<p class="notice">The figures of this table could not be drawn: {escape(cause)}</p>'
        )
    if not figures:
        return f'{heading}\n<p class="notice">The database holds no result of this table yet.</p>'
    return "\n".join([heading, *map(_html, figures)])


def _html(figure: Figure) -> str:
    drawing = f'<div class="wide">{figure.svg}</div>\n' if figure.svg else ""
    return (
        f"<figure>\n<h4>{escape(figure.title)}</h4>\n{drawing}"
        f"<figcaption>{escape(figure.caption)}</figcaption>\n{_table(figure)}</figure>"
    )


def _table(figure: Figure) -> str:
    if not figure.rows:
        return ""
    first, *others = map(escape, figure.columns)
    head = f'<th scope="col">{first}</th>'
    head += "".join(f'<th scope="col" class="number">{name}</th>' for name in others)
    body = "\n".join(_row(*row) for row in figure.rows)
    return (
        f'<div class="wide"><table>\n<caption>{escape(figure.title)}: the numbers</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n"
    )


def _row(name: str, *cells: str) -> str:
    rest = "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{rest}</tr>'
