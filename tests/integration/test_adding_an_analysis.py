"""docs/adding_an_analysis.md, carried out as it stands in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from databases import ROOT, embedded_database

pytest_plugins = ("databases",)

PAGE = ROOT / "docs" / "adding_an_analysis.md"
LABEL = "event_rate.EventRate"
_BLOCK = re.compile(
    r"(?:^`(?P<path>[^`\n]+)`\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Reader:
    """Somebody who does what the page says, in a copy of the repository."""

    home: Path
    sandbox: Path

    def run(self, command: str) -> str:
        """Carry out one command of the page; give what it prints."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DJ_", "WORKFLOW_"))}
        own = {
            "SANDBOX_HOME": str(self.sandbox),
            "PYTHON": sys.executable,
            "PYTHONPATH": str(self.home),
            "OPENBLAS_NUM_THREADS": "1",
        }
        words = [sys.executable if word == ".venv/bin/python" else word for word in shlex.split(command)]
        done = subprocess.run(
            words, cwd=self.home, env={**inherited, **own}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def report(self) -> str:
        """Read the report."""
        return (self.home / "artifacts/event_rate/report.html").read_text(encoding="utf-8")


@pytest.fixture
def reader(tmp_path: Path, database_directory: Path) -> Reader:
    """A reader before the first line of the page: a checkout, and a sandbox with the small sample."""
    home = tmp_path / "checkout"
    kept = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in filter(lambda name: (ROOT / name).is_file(), kept):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, home / name)
    started = embedded_database("start", database_directory)
    assert started.returncode == 0, started.stderr
    one = Reader(home, database_directory.parent)
    one.run("scripts/sandbox sample --size small")
    return one


def test_the_page_works_as_it_stands(reader: Reader) -> None:
    """One function and one table: planned, computed, in the status and in the report, with nothing else."""
    printed: dict[str, str] = {}
    written: list[str] = []
    generic = ""
    for block in _BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        path, kind, text = block["path"], block["kind"], block["text"]
        match kind:
            case "python":
                assert path, f"no file name stands before this block: {text[:80]}"
                assert not (reader.home / path).exists(), f"{path} is there already"
                (reader.home / path).write_text(text, encoding="utf-8")
                written.append(path)
            case "diff":
                generic = reader.report()
                subprocess.run(["git", "apply", "-"], cwd=reader.home, input=text, text=True, check=True)
            case "console":
                for line in text.splitlines():
                    command = line.removeprefix("$ ")
                    printed[command] = reader.run(command)
            case _:
                pytest.fail(f"what is to be done with a block of {kind}?")

    verbs = {command.split()[1]: out for command, out in printed.items() if command.startswith("scripts/")}
    assert set(verbs) == {"plan", "run", "status", "report"}
    assert re.search(rf"^{LABEL} +14 +0 +0$", verbs["plan"], re.MULTILINE)
    assert re.search(rf"^{LABEL} +14 +13 +0 +1 ", verbs["run"], re.MULTILINE)
    assert re.search(rf"^{LABEL} +\[#+\] +14 of 14 done$", verbs["status"], re.MULTILINE)
    assert "svd.PopulationSVD" in verbs["status"]
    summary = json.loads((reader.home / "artifacts/event_rate/summary.json").read_text())
    assert [table["table"] for table in summary["tables"]] == [LABEL]

    assert f'<th scope="row">{LABEL}</th>' in generic
    assert f"<h3>{LABEL}</h3>" in generic
    assert "mean rate (Hz)" in generic
    assert "14 rows in the database, 1 of them skipped; 13 computed in this round" in generic
    assert "could not be drawn" not in generic
    own = reader.report()
    assert "event rate (Hz)" in own
    assert "mean rate (Hz)" not in own
    assert "could not be drawn" not in own

    for check in ("check", "format --check"):
        reader.run(f".venv/bin/python -m ruff {check} workflow/report/gallery.py {' '.join(written)}")
