"""What steps say to GitHub: annotations, outputs, variables of later steps."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from markdown import block


class RefusedError(Exception):
    """Bad input; the message is one line that names it, what is wrong and the fix."""


def annotate(kind: str, title: str, message: str) -> str:
    """Compose an annotation (error, warning, notice); nothing in it is taken for a command."""
    return f"::{kind} title={_data(title, ':,')}::{_data(message)}"


def _data(text: str, also: str = "") -> str:
    for character in "%\r\n" + also:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def refuse(title: str, error: RefusedError) -> int:
    """Show why the request is refused, on the page of the run too; return the exit status."""
    print(annotate("error", title, str(error)))
    print(f"{title}: {error}", file=sys.stderr)
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a", encoding="utf-8") as lines:
            lines.write(f"## ❌ {title}\n\n{block(str(error))}\n\n")
    return 1


def hand_on(file: str, **values: str) -> None:
    """Append names and values to the file of ``GITHUB_OUTPUT`` or ``GITHUB_ENV``, whatever is in them."""
    end = f"end-{secrets.token_hex(16)}"
    with Path(os.environ[file]).open("a", encoding="utf-8") as lines:
        for name, value in values.items():
            lines.write(f"{name}<<{end}\n{value}\n{end}\n")
