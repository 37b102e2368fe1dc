"""One emulated instance: its states, what is kept of it between rounds, and the machine behind it."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .backend import Backend, BackendError

log = logging.getLogger("ec2_emulator")

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
"""State names with the numbers that EC2 gives them."""

BEHAVIORS = ("stop", "terminate")
ID = re.compile(r"i-[0-9a-f]{8,17}")
KEY = re.compile(r"(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/=]+( .*)?")

USER_STOP = "Client.UserInitiatedShutdown: User initiated shutdown"
SELF_STOP = "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
BROKEN_START = "Server.InternalError: Internal error on launch"


class DeclarationError(ValueError):
    """A declared instance that cannot be; the message names it, what is wrong with it, and the fix."""


class StateError(Exception):
    """The instance is in a state that does not allow the request; worded as EC2 does."""


@dataclass
class Record:
    """What is kept of an instance in `state.json`.

    `declared` is the declaration it was made from: where a new declaration differs, the new one counts;
    otherwise what was changed through the API since (tags, shutdown behaviour) stays.
    """

    declared: dict[str, Any]
    instance_type: str
    shutdown_behavior: str
    tags: dict[str, str]
    launch_time: str
    state: str = "stopped"
    state_reason: str = ""
    transition_reason: str = ""
    public_address: str = ""
    private_address: str = ""
    elastic_address: str = ""
    format: int = field(default=1)


def declaration(given: dict[str, Any]) -> dict[str, Any]:
    """Check one declared instance and return it complete, with the tag Name among its tags.

    Raises
    ------
    DeclarationError
        When a field is missing, unknown or of no use.
    """
    name = f"instance {given.get('id') or given}"
    if unknown := set(given) - {"id", "name", "type", "shutdown_behavior", "tags", "public_key"}:
        raise DeclarationError(f"{name}: unknown field {sorted(unknown)[0]!r}; remove it")
    if not ID.fullmatch(str(given.get("id", ""))):
        raise DeclarationError(f"{name}: its id must be i- and 8 to 17 hexadecimal digits, as EC2 gives them")
    behavior = given.get("shutdown_behavior", "stop")
    if behavior not in BEHAVIORS:
        raise DeclarationError(f"{name}: shutdown_behavior is {behavior!r}; make it stop or terminate")
    tags = {str(key): str(value) for key, value in (given.get("tags") or {}).items()}
    if given.get("name"):
        tags["Name"] = str(given["name"])
    kind = str(given.get("type") or "t3.micro")
    key = str(given.get("public_key") or "").strip()
    if key and not KEY.fullmatch(key):
        raise DeclarationError(f"{name}: public_key is no SSH public key; give the one line of a .pub file")
    return {"id": given["id"], "type": kind, "shutdown_behavior": behavior, "tags": tags, "public_key": key}


class Machine:
    """An instance that is started, stopped and looked at; safe to use from several threads.

    Parameters
    ----------
    declared : dict
        What `declaration` returns.
    directory : Path
        Folder of all machines' folders; this one's is named by the instance id.
    backend : Backend
        The machines.
    lag : float
        Seconds that `pending` and `stopping` last, on top of what the machine needs.
    """

    def __init__(self, declared: dict[str, Any], directory: Path, backend: Backend, lag: float = 0.3) -> None:
        self.id: str = declared["id"]
        self.file = directory / self.id / "state.json"
        self.backend = backend
        self.lag = lag
        self.lock = threading.RLock()
        self.transition: threading.Thread | None = None
        self.record = self._load(declared)
        with self.lock:
            if not self.file.exists():
                self.backend.destroy(self.id)  # its folder was removed to have it anew
            self._keep()
            if self.record.state == "pending":
                self._begin("pending", self._power_on)
            elif self.record.state in ("stopping", "shutting-down"):
                self._begin(self.record.state, self._power_off)

    def start(self) -> tuple[str, str]:
        """Ask the instance to start; return its state before and after the request."""
        with self.lock:
            before = self.record.state
            if before not in ("stopped", "pending", "running"):
                raise StateError(f"The instance '{self.id}' is not in a state from which it can be started.")
            if before == "stopped":
                self.record.launch_time = _now()
                self.record.state_reason = self.record.transition_reason = ""
                self._begin("pending", self._power_on)
            return before, self.record.state

    def stop(self) -> tuple[str, str]:
        """Ask the instance to stop; return its state before and after the request."""
        with self.lock:
            before = self.record.state
            if before == "pending":
                raise StateError(
                    f"Instance '{self.id}' cannot be stopped as it has never reached the 'running' state."
                )
            if before in ("shutting-down", "terminated"):
                raise StateError(f"This instance '{self.id}' is not in a state from which it can be stopped.")
            stuck = before == "stopping" and not (self.transition and self.transition.is_alive())
            if before == "running" or stuck:
                self._go_down("stopping", USER_STOP, "User initiated")
            return before, self.record.state

    def look(self) -> None:
        """Notice a machine that has switched itself off."""
        with self.lock:
            if self.record.state == "running" and self.backend.is_off(self.id):
                towards = "stopping" if self.record.shutdown_behavior == "stop" else "shutting-down"
                self._go_down(towards, SELF_STOP, "Instance initiated")

    def change(self, **fields: Any) -> None:
        """Alter fields of the record and keep it."""
        with self.lock:
            for name, value in fields.items():
                setattr(self.record, name, value)
            self._keep()

    def associate(self, elastic: str) -> None:
        """Give the instance this Elastic IP, or take away the one that it has ('')."""
        with self.lock:
            running = self.record.state == "running"
            public = self.record.public_address
            if running:
                public = self.backend.move(self.id, public, elastic)
            self.change(elastic_address=elastic, public_address=public if running else elastic)

    def settle(self) -> None:
        """Wait until no change of state is under way."""
        transition = self.transition
        if transition:
            transition.join()

    def _go_down(self, towards: str, reason: str, who: str) -> None:
        self.record.state_reason = reason
        self.record.transition_reason = f"{who} ({datetime.now(UTC):%Y-%m-%d %H:%M:%S} GMT)"
        self.record.public_address = self.record.elastic_address
        self._begin(towards, self._power_off)

    def _begin(self, state: str, work: Callable[[], None]) -> None:
        log.info("%s: %s", self.id, state)
        self.record.state = state
        self._keep()
        self.transition = threading.Thread(target=work, name=f"{self.id} {state}", daemon=True)
        self.transition.start()

    def _arrive(self, state: str, **also: str) -> None:
        log.info("%s: %s", self.id, state)
        self.change(state=state, **also)

    def _power_on(self) -> None:
        time.sleep(self.lag)
        try:
            addresses = self.backend.start(self.id, self.record.elastic_address)
        except (BackendError, OSError) as error:
            log.error("%s does not start: %s", self.id, error)
            self._arrive("stopped", state_reason=f"{BROKEN_START} ({error})")
        else:
            self._arrive("running", public_address=addresses.public, private_address=addresses.private)

    def _power_off(self) -> None:
        time.sleep(self.lag)
        try:
            self.backend.stop(self.id)
            if self.record.state == "shutting-down":
                self.backend.destroy(self.id)
        except (BackendError, OSError) as error:
            # As with EC2, such an instance stays `stopping`; another StopInstances tries again.
            log.error("%s does not stop: %s", self.id, error)
        else:
            self._arrive("stopped" if self.record.state == "stopping" else "terminated")

    def _load(self, declared: dict[str, Any]) -> Record:
        try:
            record = Record(**json.loads(self.file.read_text()))
        except FileNotFoundError:
            tags = dict(declared["tags"])
            return Record(declared, declared["type"], declared["shutdown_behavior"], tags, _now())
        except (ValueError, TypeError) as error:
            raise DeclarationError(
                f"instance {self.id}: {self.file} cannot be read ({error}); remove the folder it is in"
            ) from error
        before = record.declared
        if declared["type"] != before["type"]:
            record.instance_type = declared["type"]
        if declared["shutdown_behavior"] != before["shutdown_behavior"]:
            record.shutdown_behavior = declared["shutdown_behavior"]
        if declared["tags"] != before["tags"]:
            own = {key: value for key, value in record.tags.items() if key not in before["tags"]}
            record.tags = own | declared["tags"]
        record.declared = declared
        return record

    def _keep(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_name("state.json.new")
        fresh.write_text(json.dumps(asdict(self.record), indent=1) + "\n")
        fresh.replace(self.file)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
