"""A database whose pipeline is not ours, for one test."""

from __future__ import annotations

import json
import os
from typing import Any

from databases import ROOT
from lab import Lab

FOLDER = ROOT / "tests" / "integration"


class ForeignLab(Lab):
    """A `Lab` whose worker serves modules of the package ``foreign``."""

    modules = ("clinic", "study", "trouble")

    def environment(self, **changes: str) -> dict[str, str]:
        """What run_workflow needs to serve the foreign modules."""
        path = os.pathsep.join(filter(None, (str(ROOT), str(FOLDER), os.environ.get("PYTHONPATH", ""))))
        served = ",".join(f"foreign.{name}" for name in self.modules)
        return super().environment() | {"WORKFLOW_MODULES": served, "PYTHONPATH": path} | changes

    def execute(self, script: str) -> Any:
        """Run Python statements with all tables bound; the value of ``answer``, which JSON can hold."""
        prologue = _PROLOGUE.format(modules=", ".join(self.modules))
        result = self.server.run(["-c", prologue + script + _EPILOGUE], **self.environment())
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)


_PROLOGUE = """
import json
from workflow.settings import load
from workflow import commands
tables = commands._open(load())
from foreign import {modules}
answer = None
"""
_EPILOGUE = """
print(json.dumps(answer, default=str))
"""
