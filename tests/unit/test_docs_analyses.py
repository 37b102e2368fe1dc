"""docs/analyses.md agrees with the tables: every table, parameter and column is explained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datajoint as dj
import pytest

from workflow.pipeline import schemas

PAGE = Path(__file__).parents[2] / "docs" / "analyses.md"
_COLUMN = re.compile(r"^\s*(\w+)\s*(?:=[^:]*)?:\s*[\w<]", re.MULTILINE)
_RENAMED = re.compile(r"(\w+)\s*=\s*[\"']")


def _classes(kind: Any) -> dict[str, Any]:
    """Tables of one kind by label, from the classes alone."""
    return {
        f"{label}.{name}": value
        for label, module in schemas.served().items()
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, kind)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


COMPUTED = _classes(dj.Computed | dj.Imported)
LOOKUPS = _classes(dj.Lookup)


def _sections() -> dict[str, str]:
    """Headings and what stands below them."""
    pieces = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def _section_of(label: str) -> str:
    [section] = [text for heading, text in _sections().items() if f"`{label}`" in heading]
    return section + _sections()["Shared steps"]


def _columns(table: Any) -> Iterator[str]:
    """Columns that a definition declares, foreign keys only where they are renamed."""
    for line in str(table.definition).splitlines():
        if line.strip().startswith("->"):
            yield from _RENAMED.findall(line)
        elif not line.strip().startswith("#"):
            yield from _COLUMN.findall(line)


def _parts(table: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(table).items()
        if isinstance(value, type) and issubclass(value, dj.Part)
    }


def test_the_columns_of_a_definition_are_found() -> None:
    """The test itself sees what it is about."""
    found = set(_columns(COMPUTED["svd.PopulationSVD"]))
    assert {"skip_reason", "n_rois", "k90", "singular_values", "code_commit"} <= found
    assert "source_area" in set(_columns(COMPUTED["communication_subspace.CommunicationSubspace"]))
    assert set(_parts(COMPUTED["svd.PopulationSVD"])) == {"ROI", "Component", "UnusedROI"}


@pytest.mark.parametrize("label", sorted(COMPUTED))
def test_every_table_part_and_column_is_explained(label: str) -> None:
    """A section per table, which names its parts and all columns."""
    section, table = _section_of(label), COMPUTED[label]
    parts = _parts(table)
    for name in parts:
        assert f"`{name}`" in section, f"{label}: the part {name} is not explained"
    for declared in (table, *parts.values()):
        for column in _columns(declared):
            assert f"`{column}`" in section, f"{label}: the column {column} is not explained"


@pytest.mark.parametrize("label", sorted(LOOKUPS))
def test_every_parameter_is_explained_where_it_is_used(label: str) -> None:
    """A table that refers to parameters explains all of them."""
    name = label.rpartition(".")[2]
    users = [user for user, table in COMPUTED.items() if re.search(rf"-> {name}\b", table.definition)]
    assert users, f"no table uses {label}"
    for user in users:
        assert f"`{name}`" in _section_of(user)
        for column in _columns(LOOKUPS[label]):
            assert f"`{column}`" in _section_of(user), f"{user}: the parameter {column} is not explained"


def test_every_section_names_the_earlier_tables_that_it_replaces() -> None:
    """One line each, and no earlier table in two of them: its users look for one successor."""
    replaced: list[str] = []
    for heading, text in _sections().items():
        if heading == "Shared steps":
            continue
        [line] = re.findall(r"^\*\*Replaces:\*\* (.+)\.$", text, flags=re.MULTILINE)
        names = re.findall(r"`(\w+)`", line)
        assert names, heading
        assert text.index("**Replaces:**") < text.index("**Earlier results.**")
        replaced += names
    assert len(replaced) == len(set(replaced))
    assert not {name.rpartition(".")[2] for name in COMPUTED} & set(replaced)


def test_no_section_is_about_a_table_that_is_gone() -> None:
    """Headings name served tables only."""
    named = {label for heading in _sections() for label in re.findall(r"`([^`]+)`", heading)}
    assert named == set(COMPUTED)


def test_links_lead_to_sections() -> None:
    """The list of contents uses the anchors that the headings get."""
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _sections()}
    links = re.findall(r"\]\(#([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert links
    assert set(links) == anchors
