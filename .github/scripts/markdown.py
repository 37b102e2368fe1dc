"""Markdown in which names and messages from elsewhere are text, whatever they contain."""

from __future__ import annotations

import re

LONGEST = 2000


def code(text: str) -> str:
    """Show a name in a line or a table cell: nothing in it is a link, a tag, a mention or a cell's end."""
    line = re.sub(r"\s+", " ", _printable(text)).strip() or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line.replace('|', chr(92) + '|')}{pad}{fence}"


def block(text: str) -> str:
    """Show a message as it is, over several lines."""
    kept = _printable(text[:LONGEST]).strip("\n")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", kept)), default=0))
    return f"{fence}text\n{kept}\n{fence}"


def bar(done: int, skipped: int, failed: int, whole: int, width: int = 10) -> str:
    """Draw how much of the whole is done, is skipped and has failed; even one failure is seen."""
    if whole <= 0:
        return "·" * width
    bad = min(width, -(-failed * width // whole))
    good = min(width - bad, (done + skipped) * width // whole)
    left = min(good, skipped * width // whole)
    return "🟩" * (good - left) + "🟨" * left + "🟥" * bad + "⬜" * (width - good - bad)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lay rows out; the cells are Markdown already."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() or each == "\n" else "�" for each in text.replace("\t", " "))
