"""scripts/setup where Python lacks its venv module, with stand-ins for Python, apt-get and id."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Knows venv once the package is there; what it makes as .venv/bin/python does nothing.
PYTHON = """#!/bin/sh
case "$*" in
    *ensurepip*) [ -e "$STATE/installed" ] ;;
    *base_prefix*) echo "$PACKAGE" ;;
    "-m venv .venv") mkdir -p .venv/bin && ln -s /bin/true .venv/bin/python ;;
esac
"""
#: Finds the package when the lists are there.
APT_GET = """#!/bin/sh
echo "$DEBIAN_FRONTEND $*" >>"$STATE/apt"
case "$*" in
    *update) touch "$STATE/lists" ;;
    *install*) [ -e "$STATE/lists" ] || { echo "E: Unable to locate package" >&2; exit 100; }
        [ -z "$BROKEN" ] || { printf 'W: slow\\nE: no space\\n' >&2; exit 100; }
        touch "$STATE/installed" ;;
esac
"""
LACKS = "setup: python3 lacks its venv module: "
REFUSAL = LACKS + "install it (Debian, Ubuntu: apt-get install python3-venv)\n"


def run(
    folder: Path, *, uid: int = 0, package: str = "python3.11-venv", broken: str = "", apt_get: bool = True
) -> subprocess.CompletedProcess[str]:
    project, commands, state = folder / "project", folder / "bin", folder / "state"
    for path in (project / "scripts", commands):
        path.mkdir(parents=True)
    state.mkdir(exist_ok=True)
    shutil.copy(ROOT / "scripts" / "setup", project / "scripts")
    shims = {"python3": PYTHON, "id": f"#!/bin/sh\necho {uid}\n", **({"apt-get": APT_GET} if apt_get else {})}
    for name, text in shims.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    for name in ("sh", "dirname", "mkdir", "ln", "touch", "tail"):
        (commands / name).symlink_to(shutil.which(name) or name)
    environment = {"PATH": str(commands), "STATE": str(state), "PACKAGE": package, "BROKEN": broken}
    return subprocess.run(
        [project / "scripts" / "setup", "python3", "control"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("lists", [True, False])
def test_root_gets_the_package_installed(tmp_path: Path, lists: bool) -> None:
    """The lists of packages are fetched only where the package is not in them."""
    (tmp_path / "state").mkdir()
    if lists:
        (tmp_path / "state" / "lists").touch()
    result = run(tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == LACKS + "installing the package python3.11-venv"
    asked = (tmp_path / "state" / "apt").read_text().splitlines()
    assert [line.split()[-1] for line in asked] == (
        ["python3.11-venv"] if lists else ["python3.11-venv", "update", "python3.11-venv"]
    )
    assert all(line.startswith("noninteractive ") for line in asked)
    assert (tmp_path / "project" / ".venv" / "control").exists()


def test_what_apt_get_cannot_install_is_said_in_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, broken="yes")
    assert result.returncode == 2
    assert result.stderr == (
        "setup: apt-get cannot install python3.11-venv (E: no space): install it, and try again\n"
    )


@pytest.mark.parametrize(
    "situation",
    [{"uid": 1000}, {"apt_get": False}, {"package": ""}],
    ids=["a normal user", "no apt-get", "a Python that is not Debian's"],
)
def test_others_are_told_what_to_install(tmp_path: Path, situation: dict[str, object]) -> None:
    result = run(tmp_path, **situation)  # type: ignore[arg-type]
    assert (result.returncode, result.stderr) == (2, REFUSAL)
    assert not (tmp_path / "state" / "apt").exists()
    assert not (tmp_path / "project" / ".venv").exists()
