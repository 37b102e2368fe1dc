"""Run one role against this machine through ansible-playbook, as a playbook would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """What a play of one role left: exit status, what it printed, the facts asked for, changed tasks."""

    status: int
    output: str
    facts: dict[str, Any]
    changed: int

    def refusal(self) -> str:
        """Return the one line with which the play failed."""
        assert self.status == 2, self.output
        assert "Traceback" not in self.output
        lines = re.findall(r"^\[ERROR\]: Task failed: (.*)$", self.output, re.MULTILINE)
        assert len(lines) == 1, self.output
        return lines[0]


def play(
    role: str,
    folder: Path,
    facts: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    entry: str = "main",
    options: tuple[str, ...] = (),
    /,
    **inputs: Any,
) -> Outcome:
    """Run a role on localhost with these inputs and read back its facts; `folder` holds the playbook."""
    found = folder / "facts.json"
    found.unlink(missing_ok=True)
    wanted = ", ".join(f"'{fact}': {fact} | default(none)" for fact in facts)
    tasks = [
        {"name": "Run the role", "ansible.builtin.import_role": {"name": role, "tasks_from": entry}},
        {
            "name": "Keep the facts",
            "ansible.builtin.copy": {
                "content": f"{{{{ {{{wanted}}} | to_json }}}}",
                "dest": str(found),
                "mode": "0600",
            },
            "changed_when": False,
        },
    ]
    playbook = folder / "play.json"
    playbook.write_text(
        json.dumps([{"name": "Play", "hosts": "localhost", "gather_facts": False, "tasks": tasks}])
    )
    run = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("--inventory", "localhost,", "--connection", "local", *options),
            *("--extra-vars", json.dumps({"ansible_python_interpreter": sys.executable, **inputs})),
            playbook,
        ],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            "ANSIBLE_NOCOLOR": "1",
            **(environment or {}),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    output = run.stdout + run.stderr
    changed = re.search(r"changed=(\d+)", output)
    return Outcome(
        status=run.returncode,
        output=output,
        facts=json.loads(found.read_text()) if found.exists() else {},
        changed=int(changed[1]) if changed else 0,
    )
