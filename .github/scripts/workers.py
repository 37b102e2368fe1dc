"""Put down what the playbooks need to reach the workers: the SSH key, and a worker that only secrets know."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from commands import RefusedError, annotate, hand_on, refuse
from fleet import INVENTORY, PLACE

OWN = INVENTORY / "from_secrets.yml"


def key_file(key: str, folder: Path) -> Path:
    """Write the SSH key, whatever the web form has made of its line ends."""
    lines = key.replace("\r", "").strip().splitlines()
    if not (lines[0].startswith("-----BEGIN") and lines[-1].startswith("-----END")):
        raise RefusedError(
            "the secret SSH_KEY is no private key: put the whole file into it, from line BEGIN to line END"
        )
    path = folder / "worker_ssh_key"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def from_secrets(name: str, instance: str, address: str) -> dict[str, object]:
    """Make an inventory of the worker whose id, and maybe address, are secrets of their own."""
    if not re.fullmatch(r"i-[0-9a-f]{8,17}", instance):
        raise RefusedError(f"the secret {name}_instance_id is no instance id: give it as i-0123456789abcdef0")
    if address and not re.fullmatch(r"[0-9A-Za-z.:-]+", address):
        raise RefusedError(f"the secret {name}_instance_ip is no address: give one, or remove the secret")
    host = {"instance_power_instance_id": instance} | ({"ansible_host": address} if address else {})
    return {"all": {"children": {"workers": {"hosts": {name: host}}}}}


def put_down(given: Mapping[str, str]) -> dict[str, str]:
    """Write key and inventory; refuse workers that nobody knows; return variables for later steps."""
    made = {}
    if given.get("SSH_KEY", "").strip():
        made["WORKER_SSH_KEY_FILE"] = str(key_file(given["SSH_KEY"], Path(given["RUNNER_TEMP"])))
    else:
        print(
            annotate("warning", "No SSH key", "The secret SSH_KEY is not set: the workers may not let us in.")
        )
    name, instance = given["WORKER"], given.get("INSTANCE_ID", "").strip()
    if instance:
        OWN.write_text(json.dumps(from_secrets(name, instance, given.get("INSTANCE_IP", "").strip())) + "\n")
    wanted, known = given.get("WORKERS", "").split(), given.get("KNOWN_WORKERS", "").split()
    for worker in wanted:
        if worker not in known and not (instance and worker == name):
            choice = f"choose from {', '.join(known)} or a group" if known else "there is none yet"
            raise RefusedError(
                f"there is no worker {worker}: {choice} ({PLACE}); "
                f"or set the secrets {worker}_instance_id and {worker}_instance_ip"
            )
    return made | {"PLAY_LIMIT": ",".join([*(wanted or ["workers"]), "localhost"])}


def main() -> int:
    """Put it down."""
    try:
        hand_on("GITHUB_ENV", **put_down(os.environ))
    except RefusedError as error:
        return refuse("The workers cannot be reached", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
