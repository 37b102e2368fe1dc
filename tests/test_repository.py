"""Roles, playbooks, commands and documents agree with one another."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from jinja2 import nodes

ROOT = Path(__file__).resolve().parents[1]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def _specs(role: str) -> dict[str, dict[str, Any]]:
    specs: dict[str, dict[str, Any]] = _read(ROOT / "roles" / role / "meta" / "argument_specs.yml")[
        "argument_specs"
    ]
    return specs


def _options(role: str) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for entry in _specs(role).values():
        for name, option in entry.get("options", {}).items():
            earlier = merged.setdefault(name, option)
            assert {**earlier, "description": ""} == {**option, "description": ""}, f"{role}: {name} differs"
    return merged


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role: str) -> None:
    """Every input is in both files with the same value, or required; nothing else is."""
    defaults = _read(ROOT / "roles" / role / "defaults" / "main.yml") or {}
    options = _options(role)
    assert {name for name, option in options.items() if not option.get("required")} == set(defaults)
    for name, option in options.items():
        assert name.startswith(f"{role}_")
        assert option["description"]
        assert option["type"] in TYPES
        if not option.get("required"):
            assert option["default"] == defaults[name], name
            assert isinstance(defaults[name], TYPES[option["type"]]), name


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_tasks_and_a_spec(role: str) -> None:
    """An entry point without a spec would take any input unseen."""
    specs = _specs(role)
    for entry in specs:
        assert (ROOT / "roles" / role / "tasks" / f"{entry}.yml").is_file(), entry
        assert specs[entry]["short_description"]
    used = re.findall(
        rf"name: {role}\n\s+tasks_from: (\w+)",
        "".join(p.read_text() for p in (ROOT / "playbooks").rglob("*.yml")),
    )
    assert set(used) <= set(specs)


@pytest.mark.parametrize("role", ROLES)
def test_every_role_input_is_documented(role: str) -> None:
    readme = (ROOT / "roles" / role / "README.md").read_text()
    for heading in ("## Requirements", "## Variables", "## Dependencies", "## Example"):
        assert heading in readme
    for name in _options(role):
        assert f"`{name}`" in readme, name
    assert not re.findall(r"\| ([a-z]+[A-Z]\w*)", readme), "abbreviations and names keep their capitals"
    for name in re.findall(rf"^\| `({role}_\w+)` \|", readme, re.MULTILINE):
        assert name in _options(role) or f"{name}:" in _tasks(role), (
            f"{name} is documented but does not exist"
        )


@pytest.mark.parametrize("role", ROLES)
def test_roles_name_their_variables_and_no_group(role: str) -> None:
    """Registers and facts carry the role's name; roles know nothing of inventories."""
    text = _tasks(role)
    for name in re.findall(r"^\s+register: (\S+)$", text, re.MULTILINE):
        assert name.startswith(f"__{role}_"), name
    assert "groups[" not in text
    assert "ignore_errors" not in text
    assert not re.search(r"state: latest", text)


def _tasks(role: str) -> str:
    return "".join(path.read_text() for path in sorted((ROOT / "roles" / role / "tasks").glob("*.yml")))


def test_every_role_refuses_bad_input(tmp_path: Path) -> None:
    """A value of the wrong type, or a missing one, is refused by name before a role does anything."""
    plays = [_bad_play(role, entry, option) for role in ROLES for entry, option in _bad_inputs(role)]
    playbook = tmp_path / "bad.yml"
    playbook.write_text(yaml.safe_dump(plays))
    run = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local", playbook],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("refused by name") >= len(plays)


def _bad_inputs(role: str) -> list[tuple[str, str]]:
    wrong = [
        (entry, name)
        for entry, spec in _specs(role).items()
        for name, option in spec.get("options", {}).items()
        if option.get("required")
        or option["type"] in ("int", "float", "bool", "dict")
        or option.get("choices")
    ]
    assert wrong or role == "embedded_database", f"{role} has no input that could be refused"
    return wrong[:3]


def _bad_play(role: str, entry: str, name: str) -> dict[str, Any]:
    required = _specs(role)[entry]["options"][name].get("required", False)
    others = {
        option: "x"
        for option, spec in _specs(role)[entry]["options"].items()
        if spec.get("required") and option != name
    }
    given = others if required else {**others, name: ["wrong", {"kind": "value"}]}
    call = {
        "name": f"Call {role}",
        "ansible.builtin.include_role": {"name": role, "tasks_from": entry},
        "vars": given,
    }
    rescue = [
        {
            "name": f"{name} is refused by name",
            "ansible.builtin.assert": {
                "that": f"'{name}' in (ansible_failed_result | to_json)",
                "success_msg": "refused by name",
            },
        },
        {"name": "Remember", "ansible.builtin.set_fact": {"was_refused": True}},
    ]
    check = {
        "name": f"{role} {entry} {name}",
        "ansible.builtin.assert": {"that": "was_refused | default(false)"},
    }
    return {
        "name": f"{role} {entry} {name}",
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {"name": "Forget", "ansible.builtin.set_fact": {"was_refused": False}},
            {"name": "Try", "block": [call], "rescue": rescue},
            check,
        ],
    }


KINDS = {name: option["type"] for role in ROLES for name, option in _options(role).items()}
CONDITIONS = {"when", "that", "until", "changed_when", "failed_when"}


@pytest.mark.parametrize("folder", [*(f"roles/{role}" for role in ROLES), "playbooks"])
def test_numbers_and_truth_may_be_given_as_words(folder: str) -> None:
    """`-e name=1` is a text, which the specs accept and do not convert: whatever reckons with it does."""
    found = []
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix == ".j2":
            found += [(path.name, name) for name in _taken_raw(path.read_text())]
        elif path.suffix == ".yml" and path.parent.name not in ("defaults", "meta"):
            found += [(path.name, name) for text in _templates(_read(path)) for name in _taken_raw(text)]
    assert not found


def _templates(value: Any, key: str = "") -> Iterator[str]:
    """Yield every template of a file of tasks; conditions are some without their braces."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _templates(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _templates(one, key)
    elif isinstance(value, str):
        yield f"{{% if ({value}) %}}{{% endif %}}" if key in CONDITIONS else value


def _taken_raw(text: str) -> list[str]:
    """Inputs that are numbers or truths, and are compared, reckoned with or decided by as they were given."""
    reckoning = (nodes.BinExpr, nodes.UnaryExpr, nodes.Compare, nodes.Operand, nodes.Slice)
    tree = jinja2.Environment(autoescape=True).parse(text.replace("\\", "\\\\"))
    pairs = [(parent, node) for parent in tree.find_all(nodes.Node) for node in parent.iter_child_nodes()]
    return [
        node.name
        for parent, node in pairs
        if isinstance(node, nodes.Name)
        and KINDS.get(node.name) in ("int", "float", "bool")
        and (isinstance(parent, reckoning) or getattr(parent, "test", None) is node)
    ]


def test_every_make_target_is_documented() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"run", "test", "lint", "bench", "clean"} <= set(targets)
    readme = (ROOT / "README.md").read_text()
    for target in targets:
        assert f"`make {target}`" in readme, target


def test_every_command_is_documented() -> None:
    """Every verb is in the README, and every option of every verb says what it is for."""
    from workflow.cli import make_parser

    readme = (ROOT / "README.md").read_text()
    [verbs] = [action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    known = {"plan", "run", "status", "errors", "retry", "ignore", "sample", "report"}
    assert set(verbs.choices) == known
    for verb, parser in verbs.choices.items():
        assert f"`{verb}`" in readme or f"`run_workflow {verb}`" in readme, verb
        for action in parser._actions:
            assert action.help, f"{verb} {action.option_strings}"


def test_every_playbook_is_documented() -> None:
    documents = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    for playbook in [ROOT / "run.yml", *(ROOT / "playbooks").glob("*.yml")]:
        if playbook.name != "run.yml" or playbook.parent == ROOT:
            assert playbook.name in documents, playbook.name


def test_every_round_variable_is_documented() -> None:
    """What the playbooks take from an inventory is in the README's table."""
    text = "".join(path.read_text() for path in (ROOT / "playbooks").rglob("*.yml"))
    made = set(re.findall(r"^\s+(round_?\w*):", text, re.MULTILINE)) | set(
        re.findall(r"register: (round_\w+)", text)
    )
    made |= set(re.findall(r"loop_var: (round_\w+)", text))
    used = set(re.findall(r"\b(round_\w+)\b", text)) - made
    readme = (ROOT / "README.md").read_text()
    for name in used:
        assert f"`{name}`" in readme, name


def test_links_between_documents_lead_somewhere() -> None:
    for document in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "roles").glob("*/README.md"),
    ]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_collections_are_pinned_to_what_is_installed() -> None:
    for collection in _read(ROOT / "requirements.yml")["collections"]:
        namespace, name = collection["name"].split(".")
        listed = subprocess.run(
            [Path(sys.executable).with_name("ansible-galaxy"), "collection", "list", collection["name"]],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"{namespace}.{name} {collection['version']}" in re.sub(r" +", " ", listed)


def test_requirements_are_locked_by_hash_and_name_no_address() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text()
        pins = re.findall(r"^([a-z0-9][\w.-]*)==", text, re.MULTILINE)
        assert len(pins) > 20
        assert "://" not in text
        assert not re.findall(r"^--", text, re.MULTILINE)
        blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in block for block in blocks)


def test_versions_agree() -> None:
    from workflow import __version__

    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
