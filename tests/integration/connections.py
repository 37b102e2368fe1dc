"""Stand-ins for ssh and sudo: what they do with standard input, and how they break."""

from __future__ import annotations

from pathlib import Path

#: What ssh does with the last of its words, the command, is another script's.
SSH = """#!/bin/sh
for command; do :; done
{}
"""

#: As ssh does: it takes no more once nobody reads at the far end, and ends a little later.
TO_A_WORKER = 'sh -c "$command"; status=$?; exec <&-; sleep 0.2; exit "$status"'
BREAKS_IN_THE_MIDDLE = 'head -c 100000 | sh -c "$command"; echo "Connection reset by peer" >&2; exit 255'
BREAKS_AT_THE_END = 'sh -c "$command" >/dev/null; echo "Connection reset by peer" >&2; exit 255'

#: It wants a password.
SUDO = """#!/bin/sh
while [ "$1" != /bin/sh ]; do
    [ "$1" != -p ] || prompt=$2
    shift
done
printf %s "$prompt" >&2
IFS= read -r password
[ "$password" = "open sesame" ] || exit 1
exec "$@"
"""


def _program(folder: Path, name: str, text: str) -> str:
    program = folder / name
    program.write_text(text)
    program.chmod(0o755)
    return str(program)


def ssh(folder: Path, what: str) -> dict[str, object]:
    """Return the variables of a host that is reached by such an ssh."""
    program = _program(folder, "ssh", SSH.format(what))
    return {"ansible_connection": "ssh", "ansible_ssh_executable": program}


def sudo(folder: Path) -> dict[str, object]:
    """Return the variables of a host whose sudo wants a password."""
    return {
        "ansible_become": True,
        "ansible_become_exe": _program(folder, "sudo", SUDO),
        "ansible_become_user": "nobody",
        "ansible_become_password": "open sesame",
        "ansible_remote_tmp": str(folder),
    }
