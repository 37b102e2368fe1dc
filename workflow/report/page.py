"""The page: skeleton, style and the order of the sections."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from workflow.report.failures import failures, skipped
from workflow.report.tables import tables
from workflow.report.text import escape
from workflow.report.timeline import timeline
from workflow.report.verdict import facts, headline, verdict

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
{verdict}
</header>
<main>
{sections}
</main>
<footer>
{facts}
</footer>
</body>
</html>
"""


def page(summary: dict[str, Any], figures: str) -> str:
    """Write the whole page.

    Parameters
    ----------
    summary : dict
        What ``summary.json`` holds, checked.
    figures : str
        The HTML of the figures.

    Returns
    -------
    str
        An HTML document that loads nothing from elsewhere.
    """
    sections = [tables(summary), failures(summary), skipped(summary), timeline(summary), figures]
    return _PAGE.format(
        title=escape(f"{headline(summary)} · {summary['round']}"),
        style=files(__package__).joinpath("style.css").read_text(encoding="utf-8"),
        verdict=verdict(summary),
        sections="\n".join(section for section in sections if section),
        facts=facts(summary),
    )
