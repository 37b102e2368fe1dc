"""GitHub's expressions: `${{ ... }}` and `if:`, with the rules of its documentation."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_-]*)"
    r"|(?P<sign>&&|\|\||==|!=|<=|>=|[()\[\].,!<>]))"
)
EXPRESSION = re.compile(r"\$\{\{((?:[^'}]|'(?:[^']|'')*'|\}(?!\}))*)\}\}")
STATUS = {"always", "success", "failure", "cancelled"}


class ExpressionError(Exception):
    """What GitHub would refuse."""


class Expressions:
    """Evaluates expressions in contexts.

    Parameters
    ----------
    contexts : mapping
        What is known here by name; anything else is refused, as GitHub does.
    functions : mapping
        Further functions: the job's status, and hashFiles.
    """

    def __init__(
        self, contexts: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]] | None = None
    ):
        self.contexts = contexts
        self.functions = {**FUNCTIONS, **(functions or {})}

    def fill(self, value: Any) -> Any:
        """Replace every `${{ }}` in a value, which keeps its type where it is nothing else."""
        if isinstance(value, dict):
            return {key: self.fill(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.fill(one) for one in value]
        if not isinstance(value, str):
            return value
        whole = EXPRESSION.fullmatch(value.strip())
        if whole:
            return self.value(whole[1])
        return EXPRESSION.sub(lambda found: text(self.value(found[1])), value)

    def condition(self, given: Any) -> bool:
        """Evaluate an `if:`; without a word on the status it means "and all went well so far"."""
        source = str(given).strip()
        whole = EXPRESSION.fullmatch(source)
        source = whole[1] if whole else source
        names = {found["name"] for found in TOKEN.finditer(re.sub(r"'(?:[^']|'')*'", "''", source))}
        went_well = True if names & STATUS else self.functions["success"]()
        return bool(went_well and truth(self.value(source)))

    def value(self, source: str) -> Any:
        """Evaluate one expression."""
        return _Parser(source, self.contexts, self.functions).whole()


class _Parser:
    """Recursive descent; what is not needed is evaluated all the same, which expressions cannot tell."""

    def __init__(self, source: str, contexts: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]):
        self.source, self.contexts, self.functions = source, contexts, functions
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while source[at:].strip():
            found = TOKEN.match(source, at)
            if not found or not found.lastgroup:
                raise ExpressionError(f"unexpected {source[at:]!r}")
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self.at = 0

    def whole(self) -> Any:
        value = self.either()
        if self.at < len(self.tokens):
            raise ExpressionError(f"unexpected {self.tokens[self.at][1]!r} in {self.source!r}")
        return value

    def sign(self, *wanted: str) -> str:
        kind, word = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        if kind != "sign" or word not in wanted:
            return ""
        self.at += 1
        return word

    def expect(self, wanted: str) -> None:
        if not self.sign(wanted):
            raise ExpressionError(f"{wanted!r} is missing in {self.source!r}")

    def either(self) -> Any:
        value = self.both()
        while self.sign("||"):
            other = self.both()
            value = value if truth(value) else other
        return value

    def both(self) -> Any:
        value = self.compared()
        while self.sign("&&"):
            other = self.compared()
            value = other if truth(value) else value
        return value

    def compared(self) -> Any:
        value = self.single()
        while sign := self.sign("==", "!=", "<", "<=", ">", ">="):
            value = compare(sign, value, self.single())
        return value

    def single(self) -> Any:
        if self.sign("!"):
            return not truth(self.single())
        if self.sign("("):
            value = self.either()
            self.expect(")")
        else:
            value = self.named()
        while sign := self.sign(".", "["):
            if sign == "[":
                value = member(value, self.either())
                self.expect("]")
            else:
                value = member(value, self.word())
        return value

    def word(self) -> str:
        if self.at >= len(self.tokens):
            raise ExpressionError(f"{self.source!r} ends too early")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def named(self) -> Any:
        kind = self.tokens[self.at][0] if self.at < len(self.tokens) else ""
        word = self.word()
        if kind == "string":
            return word[1:-1].replace("''", "'")
        if kind == "number":
            return float(word)
        if word in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[word]
        if self.sign("("):
            arguments = []
            while not self.sign(")"):
                arguments.append(self.either())
                self.sign(",")
            if word.lower() not in {name.lower() for name in self.functions}:
                raise ExpressionError(f"there is no function {word} here")
            return next(call for name, call in self.functions.items() if name.lower() == word.lower())(
                *arguments
            )
        if word.lower() not in self.contexts:
            raise ExpressionError(f"{word} is not known here: {self.source!r}")
        return self.contexts[word.lower()]


def member(value: Any, key: Any) -> Any:
    """Look a member up, whatever its case; what is not there is null."""
    if isinstance(value, Mapping):
        return next((one for name, one in value.items() if str(name).lower() == text(key).lower()), None)
    if isinstance(value, list) and isinstance(key, float) and 0 <= key < len(value):
        return value[int(key)]
    return None


def truth(value: Any) -> bool:
    """Tell what counts as true."""
    return not (
        value is None
        or value is False
        or value == ""
        or (isinstance(value, int | float) and value in (0, False))
    )


def text(value: Any) -> str:
    """Write a value the way GitHub puts it into a string."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.15g}"
    return value if isinstance(value, str) else type(value).__name__


def number(value: Any) -> float:
    """Read a value as a number, for loose comparisons."""
    if isinstance(value, str):
        try:
            return float(value) if value.strip() else 0.0
        except ValueError:
            return math.nan
    return float(value or 0) if value is None or isinstance(value, int | float) else math.nan


def compare(sign: str, left: Any, right: Any) -> bool:
    """Compare loosely: strings whatever their case, different types as numbers."""
    if isinstance(left, str) and isinstance(right, str):
        one, other = left.casefold(), right.casefold()
    else:
        one, other = number(left), number(right)  # type: ignore[assignment]
    outcomes = {"==": one == other, "!=": one != other, "<": one < other, "<=": one <= other}
    return {**outcomes, ">": one > other, ">=": one >= other}[sign]


def fill_in(pattern: str, *values: Any) -> str:
    """Do what `format` does."""
    return re.sub(r"\{(\d+)\}", lambda found: text(values[int(found[1])]), pattern)


def hash_files(folder: Path, *patterns: str) -> str:
    """Do what `hashFiles` does: one digest of all files that match, none if none does."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    digests = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(digests).hexdigest() if files else ""


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "contains": lambda place, item: (
        text(item).lower()
        in (text(place).lower() if not isinstance(place, list) else [text(one).lower() for one in place])
    ),
    "startsWith": lambda string, start: text(string).lower().startswith(text(start).lower()),
    "endsWith": lambda string, end: text(string).lower().endswith(text(end).lower()),
    "format": fill_in,
    "join": lambda array, separator=",": separator.join(text(one) for one in array),
    "toJSON": lambda value: json.dumps(value, indent=2),
    "fromJSON": json.loads,
}
