"""What holds for every workflow file, and for what the documents say of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from pressed import ROOT, documented_caller
from stand_ins import STAND_INS

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
DOCUMENTS = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}


def steps(file: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(file).values() for step in job["steps"]]


def jobs(file: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["jobs"]
    return found


def test_these_are_the_buttons() -> None:
    names = {"check", "force_stop", "setup", "start_process", "status", "sweep"}
    assert {file.stem for file in FILES} == names
    for name in names - {"check"}:
        assert f"**{name}**" in DOCUMENTS["operations.md"] or f"| {name} |" in DOCUMENTS["operations.md"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_input_is_part_of_a_script(file: Path) -> None:
    for step in steps(file):
        assert "${{" not in step.get("run", ""), step["name"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_secrets_come_after_the_list_and_in_the_environment_only(file: Path) -> None:
    for key, job in jobs(file).items():
        if "secrets." in json.dumps(job) or "secrets[" in json.dumps(job):
            assert job["environment"] == "workers", key
            assert job.get("needs") == "request" or file.stem == "sweep"
        else:
            assert "id-token" not in job["permissions"], key
    assert yaml.safe_load(file.read_text())["permissions"] == {}
    if "request" in jobs(file):
        for key, job in jobs(file).items():
            first = next(step for step in job["steps"] if "run" in step)
            assert "allowed.py" in first["run"], f'{key}: "Re-run failed jobs" may begin with it'
            before = job["steps"][: job["steps"].index(first)]
            assert all("uses" in step and "secrets" not in json.dumps(step) for step in before)


def test_the_documented_caller_is_as_clean_as_our_workflows(tmp_path: Path) -> None:
    """So that a lab that has it passes `make lint`."""
    place = tmp_path / ".github" / "workflows"
    place.mkdir(parents=True)
    (place / "nightly.yaml").write_text(documented_caller())
    shutil.copy(ROOT / ".github" / "workflows" / "start_process.yaml", place)
    programs = Path(sys.executable).parent
    for words in (
        ("zizmor", "--offline", "--quiet", "--persona", "pedantic", place),
        ("check-jsonschema", "--builtin-schema", "vendor.github-workflows", place / "nightly.yaml"),
        ("yamllint", "--strict", "-c", ROOT / ".yamllint", place),
    ):
        program, *rest = words
        done = subprocess.run([programs / str(program), *rest], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_jobs_on_a_worker_wait_for_one_another() -> None:
    """None takes the place of one that waits, whoever pressed it, and from whichever workflow."""
    for name, job in (("start_process", "round"), ("setup", "setup")):
        group = jobs(ROOT / ".github" / "workflows" / f"{name}.yaml")[job]["concurrency"]
        assert group == {
            "group": "worker-${{ matrix.worker }}",
            "cancel-in-progress": False,
            "queue": "max",
        }


@pytest.mark.parametrize(
    "file", [*FILES, *(ROOT / ".github" / "actions").glob("*/action.yml")], ids=lambda file: file.stem
)
def test_actions_are_pinned_and_one_version_each(file: Path) -> None:
    pins = re.findall(r"uses: (\S+?)@(\S+) # (v[\d.]+)$", file.read_text(), re.MULTILINE)
    assert len(pins) + file.read_text().count("uses: $/") == file.read_text().count("uses: ")
    everywhere = "".join(
        each.read_text() for each in [*FILES, *(ROOT / ".github" / "actions").glob("*/*.yml")]
    )
    for name, commit, _version in pins:
        assert name in STAND_INS
        assert set(re.findall(rf"{name}@(\S+)", everywhere)) == {commit}


def test_the_inputs_of_the_button_are_documented() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "start_process.yaml").read_text())
    pressed, called = workflow[True]["workflow_dispatch"]["inputs"], workflow[True]["workflow_call"]["inputs"]
    assert set(pressed) == set(called)
    for name, one in pressed.items():
        assert one["type"] == called[name]["type"]
        assert one.get("default") == called[name].get("default")
        assert f"| {name.replace('_', ' ')} |" in DOCUMENTS["operations.md"], name


def test_secrets_and_variables_are_documented() -> None:
    text = "".join(file.read_text() for file in FILES)
    for name in {*re.findall(r"(?:secrets|vars)\.([A-Z]\w+)", text)}:
        assert f"`{name}`" in DOCUMENTS["operations.md"], name
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "SSH_KEY",
        "<branch>_instance_id",
        "<branch>_instance_ip",
    ):
        assert f"`{name}`" in DOCUMENTS["migration.md"], name
    assert set(re.findall(r"secrets\[format\('(.*?)'", text)) == {"{0}_instance_id", "{0}_instance_ip"}


def test_the_documented_policies_are_those_that_are_made() -> None:
    """The least rights of a round, and the trust in GitHub, as worker_fleet makes them."""
    templates = ROOT / "roles" / "worker_fleet" / "templates"
    given = {
        "worker_fleet_name": "lab",
        "worker_fleet_github": "lab/round",
        "worker_fleet_principals": [],
        "__worker_fleet_account": "123456789012",
    }
    environment = jinja2.Environment(autoescape=False, trim_blocks=True)
    for name in ("policy", "trust"):
        made = environment.from_string((templates / f"{name}.json.j2").read_text()).render(given)
        [documented] = re.findall(rf"```json {name}\n(.*?)```", DOCUMENTS["security.md"], re.DOTALL)
        assert json.loads(documented) == json.loads(made), name


def test_code_owners_protect_the_list() -> None:
    lines = (ROOT / ".github" / "CODEOWNERS").read_text().splitlines()
    rules = {line.split()[0]: line.split()[1:] for line in lines if line and not line.startswith("#")}
    assert rules["/.github/"]
    assert rules["/.github/workflows/start_process_allow_list"]
