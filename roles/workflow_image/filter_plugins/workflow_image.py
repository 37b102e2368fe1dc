"""Turn the wall of text of a failed build into its last lines, one sentence and a fix."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

TAIL = 20

# What community.docker.docker_image says of a failed build; the log is a Python list, printed.
MODULE_MESSAGE = re.compile(r"Error building .*?message: (?P<error>.*), logs: (?P<log>\[.*\])\s*$", re.DOTALL)
# What it says where the engine refuses to begin; the address before it carries all build arguments.
ENGINE_REFUSAL = re.compile(r"Error for http.*\(\"(?P<error>.*)\"\)\s*$", re.DOTALL)
STEP = re.compile(r"Step (?P<number>\d+/\d+) : (?P<instruction>.*)")
EXIT_STATUS = re.compile(r"returned a non-zero code: (?P<status>\d+)")
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)")
# Colours, progress bars, and what the builder says of its own doings.
NOISE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|^\s*[━╸╺]+.*$|^ ---> .*$|^Removing intermediate container.*$")

# The first that is found, decides.
FIXES = (
    (
        r"certificate.verify.failed|x509: certificate",
        "name the file with your institute's certificates in workflow_image_ca_bundle",
    ),
    (r"no space left on device", "free some space on the worker, for example with docker image prune"),
    (
        r"(?m)^install: cannot ",
        "let the worker read what workflow_image_ca_bundle names, and write into its clone",
    ),
    (
        r"pull access denied|manifest.*unknown|registry.*(?:no such host|i/o timeout|connection refused)",
        "the base image is neither on the worker nor can it be pulled: pull it there, or name another in "
        "workflow_image_base",
    ),
    (
        r"name resolution|Name or service not known|Failed to establish a new|Network is unreachable",
        "the package index cannot be reached: try workflow_image_build_network host, or give HTTPS_PROXY or "
        "PIP_INDEX_URL in workflow_image_build_args",
    ),
    (
        r"DO NOT MATCH THE HASHES|hashes are required",
        "lock the requirements again with make lock, or use an index that serves the locked files",
    ),
)
OTHER_FIX = "mend what the last lines above show, commit it and run again"


def workflow_image_failure(text: str) -> dict[str, str | list[str]]:
    """Summarise the output of a failed image build or installation.

    Parameters
    ----------
    text : str
        Message of the image module, or the output of pip.

    Returns
    -------
    dict
        ``tail`` the last lines (list of str), ``error`` what failed and where, ``fix`` what to do about it.
    """
    error, lines = _error_and_log(CREDENTIALS.sub("…", text))
    lines = [clean for clean in (NOISE.sub("", line).rstrip() for line in lines) if clean]
    fix = next((fix for sign, fix in FIXES if re.search(sign, text, re.IGNORECASE)), OTHER_FIX)
    return {"tail": lines[-TAIL:], "error": _sentence(error, lines), "fix": fix}


def _error_and_log(text: str) -> tuple[str, list[str]]:
    """Tell the engine's own words, if there are any, from what the build printed."""
    if message := MODULE_MESSAGE.search(text):
        return message["error"], _printed_list(message["log"])
    if refusal := ENGINE_REFUSAL.search(text):
        return refusal["error"], [refusal["error"]]
    return "", text.splitlines()


def _printed_list(text: str) -> list[str]:
    """Read a list of lines back from its printed form."""
    try:
        return [str(line) for line in ast.literal_eval(text)]
    except (SyntaxError, ValueError):
        return text.splitlines()


def _sentence(error: str, lines: list[str]) -> str:
    """Say in one line what failed: the step if there is one, and the reason."""
    steps = [number for number, line in enumerate(lines) if STEP.match(line)]
    printed = lines[steps[-1] + 1 :] if steps else lines
    reason = error
    if not error or (status := EXIT_STATUS.search(error)):
        errors = [line for line in printed if line.lstrip().upper().startswith("ERROR")]
        last = (errors or printed or ["nothing was printed"])[-1].strip()
        reason = f"exit status {status['status']}: {last}" if error and status else last
    if steps and (step := STEP.match(lines[steps[-1]])):
        return (
            f"step {step['number']} ({_cut(step['instruction'], 60)}) failed: {_cut(reason, 200).rstrip('.')}"
        )
    return _cut(reason, 200).rstrip(".")


def _cut(text: str, width: int) -> str:
    """Put a text on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


class FilterModule:
    """Filters that Ansible finds beside the role's tasks."""

    def filters(self) -> dict[str, Callable[[str], dict[str, str | list[str]]]]:
        """Name the filters."""
        return {"workflow_image_failure": workflow_image_failure}
