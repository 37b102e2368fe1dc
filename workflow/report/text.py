"""Numbers, times and foreign text as HTML shows them."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

#: Characters that HTML or UTF-8 cannot carry: control characters but tab and newline, lone surrogates,
#: and the marks that turn the direction of everything after them.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)

_SPACE = "\u00a0"  # between a number and its unit, where no line may break

#: The longest foreign text that is shown whole.
LONGEST = 2000


def escape(value: Any) -> str:
    """Make any value inert in HTML, in text and in quoted attributes.

    Parameters
    ----------
    value : object
        Anything, hostile text included.

    Returns
    -------
    str
        Without markup, and without characters that a page cannot carry.
    """
    return html.escape(printable(value), quote=True)


def printable(value: Any) -> str:
    """Replace the characters that neither a page nor a drawing can carry."""
    return _UNPRINTABLE.sub("\ufffd", str(value))


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cut a text that is too long, and say by how much."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]} … ({number(len(text) - longest)} more characters in summary.json)"


def number(value: float) -> str:
    """Write a count with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def count(value: int, singular: str, plural: str = "") -> str:
    """Write a count with its noun: ``1 key``, ``2 keys``."""
    return f"{number(value)} {singular if value == 1 else plural or singular + 's'}"


def duration(seconds: float) -> str:
    """Write a time span as people say it: ``0.21 s``, ``12 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 9.95:
        small = f"{1000 * seconds:.2g} ms" if 0 < seconds < 0.001 else f"{seconds:.2g} s"
        return small.replace(" ", _SPACE)
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{_SPACE}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}{_SPACE}min {rest:02d}{_SPACE}s"
    hours, minutes = divmod(minutes, 60)
    return f"{number(hours)}{_SPACE}h {minutes:02d}{_SPACE}min"


def moment(iso: Any) -> datetime | None:
    """Read an ISO 8601 time; None where there is none."""
    try:
        parsed = datetime.fromisoformat(str(iso))
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def clock(time: datetime) -> str:
    """Write a time of day and its date, UTC."""
    return f"{time.day} {time:%B %Y, %H:%M:%S} UTC"


def key_text(key: Mapping[str, Any]) -> str:
    """Write a key on one line: ``subject_id 1 · session 2``."""
    return " · ".join(f"{name} {shorten(str(value), 200)}" for name, value in key.items())


def section(identifier: str, heading: str, content: str) -> str:
    """Frame a section; its heading and content are HTML already."""
    title = f'<h2 id="{identifier}">{heading}</h2>'
    return f'<section aria-labelledby="{identifier}">\n{title}\n{content}\n</section>'
