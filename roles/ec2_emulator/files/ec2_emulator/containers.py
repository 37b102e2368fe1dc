"""Machines that are containers: each with systemd, sshd, a Docker Engine and a disk of its own."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from docker.errors import NotFound
from docker.models.containers import Container

from . import disk, engine
from .backend import Addresses, Backend, BackendError
from .faults import Faults
from .network import Network

log = logging.getLogger("ec2_emulator")

PATIENCE = 60.0
"""Seconds that an interface has to come up."""

REBOOTED = 129
"""Exit status of a container whose init asked for a reboot; a power-off's is 130."""

CONSOLE_BYTES = 64 * 1024
FULL = ["/var/lib/datajoint-round", "/var/lib/docker/tmp"]
"""Directories of a machine that a full disk concerns, unless the fault names others."""


class ContainerBackend(Backend):
    """Machines that are containers of this computer's engine, kept while they are off.

    Parameters
    ----------
    directory : Path
        Folder of the emulator; whatever is made in the engine carries it as a label.
    image : str
        The machines' image.
    keys : dict
        Public SSH keys of the user `ubuntu`, by instance id.
    certificates : Path or None
        Authorities that the machines trust instead of Debian's.
    grace : float
        Seconds that a machine has to power off.
    faults : Faults
        What is to go wrong.
    """

    def __init__(
        self,
        directory: Path,
        image: str,
        keys: dict[str, str],
        certificates: Path | None,
        grace: float,
        faults: Faults,
    ) -> None:
        self.client = engine.connect()
        self.image = image
        self.keys = keys
        self.certificates = certificates
        self.grace = grace
        self.faults = faults
        self.prefix = f"ec2-{hashlib.sha256(str(directory).encode()).hexdigest()[:10]}"
        self.labels = {engine.DIRECTORY_LABEL: str(directory)}
        with engine.errors("the machines' network cannot be made"):
            self.network = Network(self.client, self.prefix, self.labels, directory / "network.json")
        self.gateway, self.subnet = self.network.gateway, str(self.network.prefix)
        self.ends: dict[str, threading.Event] = {}

    def start(self, instance_id: str, elastic: str = "") -> Addresses:
        """Boot the container, made now if there is none, and give it its addresses."""
        wanted = {"boot_seconds": "0"}
        if fault := self.faults.of_machine("slow_boot", instance_id):
            wanted["boot_seconds"] = str(fault.get("seconds", 30))
        if self.faults.of_machine("no_ssh", instance_id):
            wanted["no_ssh"] = "yes"
        with engine.errors(f"{instance_id} does not boot"):
            container = self._find(instance_id) or self._make(instance_id)
            keys = disk.with_key(_read(container, f"/{disk.AUTHORIZED}"), self.keys.get(instance_id, ""))
            container.put_archive("/", disk.contents(instance_id, keys, self.certificates, wanted))
            self._connect(container, instance_id)
            container.start()
            self.network.give_back(f"{instance_id} public")
            public = elastic or self.network.take(f"{instance_id} public")
            self._add_address(container, instance_id, public)
        self.ends.pop(instance_id, None)
        self._end(instance_id)
        return Addresses(public, self.network.of(f"{instance_id} private"))

    def stop(self, instance_id: str) -> None:
        """Ask the machine to power itself off; after the grace its power is cut."""
        if fault := self.faults.of_machine("hang_in_stopping", instance_id):
            if not fault.get("seconds"):
                raise BackendError("an injected fault makes it hang")
            time.sleep(fault["seconds"])
        with engine.errors(f"{instance_id} does not stop"):
            if container := self._find(instance_id):
                container.stop(timeout=max(1, round(self.grace)))
        self.network.give_back(f"{instance_id} public")

    def is_off(self, instance_id: str) -> bool:
        """Tell whether the container has ended, and let happen what is to go wrong while it runs."""
        try:
            self._misbehave(instance_id)
        except BackendError as error:
            log.error("%s", error)
        return self._end(instance_id).is_set()

    def destroy(self, instance_id: str) -> None:
        """Remove the container and its disk."""
        with engine.errors(f"{instance_id} cannot be removed"):
            if container := self._find(instance_id):
                container.remove(force=True)
            try:
                self.client.volumes.get(self._name(instance_id)).remove()
            except NotFound:
                log.debug("%s had no disk", instance_id)
        for kind in ("public", "private"):
            self.network.give_back(f"{instance_id} {kind}")

    def console(self, instance_id: str) -> str:
        """Return what the machine wrote on its console since it was last started."""
        with engine.errors(f"the console of {instance_id} cannot be read"):
            container = self._find(instance_id)
            if container is None:
                return ""
            started = datetime.fromisoformat(container.attrs["State"]["StartedAt"][:19] + "+00:00")
            text: bytes = container.logs(since=max(1, int(started.timestamp())))
            return text[-CONSOLE_BYTES:].decode(errors="replace")

    def take_address(self, allocation_id: str) -> str:
        """Give an Elastic IP."""
        return self.network.take(allocation_id)

    def release_address(self, allocation_id: str) -> None:
        """Take an Elastic IP back."""
        self.network.give_back(allocation_id)

    def move(self, instance_id: str, before: str, elastic: str) -> str:
        """Change the public address of a machine that runs: to the Elastic IP, or to a new one of its own."""
        with engine.errors(f"{instance_id} cannot be given another address"):
            container = self._find(instance_id)
            if container is None:
                raise BackendError(f"{instance_id} has no machine")
            self.network.give_back(f"{instance_id} public")
            after = elastic or self.network.take(f"{instance_id} public")
            self._add_address(container, instance_id, after)
            device = self._device(container, instance_id)
            _run(container, "ip", "address", "delete", f"{before}/32", "dev", device)
        return after

    def _misbehave(self, instance_id: str) -> None:
        if fault := self.faults.of_machine("no_network", instance_id):
            with engine.errors(f"{instance_id} cannot be cut off"):
                public = self._lose_network(instance_id)
            if seconds := fault.get("seconds"):
                threading.Timer(seconds, self._regain_network, (instance_id, public)).start()
        if fault := self.faults.of_machine("full_disk", instance_id):
            with engine.errors(f"the disk of {instance_id} cannot be filled"):
                container = self._find(instance_id)
                _run(container, "/usr/local/lib/ec2-machine/fill", *fault.get("places", FULL))

    def _lose_network(self, instance_id: str) -> list[str]:
        container = self._find(instance_id)
        device = self._device(container, instance_id)
        listed = _run(container, "ip", "-oneline", "-4", "address", "show", "dev", device).split()
        self.network.network.disconnect(container)
        log.info("%s: lost its network", instance_id)
        return [word.removesuffix("/32") for word in listed if word.endswith("/32")]

    def _regain_network(self, instance_id: str, public: list[str]) -> None:
        try:
            with engine.errors(f"{instance_id} cannot be connected again"):
                container = self._find(instance_id)
                self._connect(container, instance_id)
                for address in public:
                    self._add_address(container, instance_id, address)
            log.info("%s: has its network again", instance_id)
        except BackendError as error:
            log.error("%s", error)

    def _make(self, instance_id: str) -> Container:
        self.network.give_back(f"{instance_id} private")
        private = self.network.take(f"{instance_id} private")
        labels = self.labels | {engine.INSTANCE_LABEL: instance_id}
        name = self._name(instance_id)
        self.client.volumes.create(name, labels=labels)
        options = engine.isolation(self.client.info())
        volumes = [*options.pop("volumes", []), f"{name}:/var/lib/docker"]
        log.info("%s: a new machine", instance_id)
        return self.client.containers.create(
            self.image,
            name=name,
            hostname=f"ip-{private.replace('.', '-')}",
            labels=labels,
            tty=True,
            network=self.network.name,
            networking_config={
                self.network.name: self.client.api.create_endpoint_config(ipv4_address=private)
            },
            volumes=volumes,
            tmpfs={"/run": "exec", "/run/lock": ""},
            **options,
        )

    def _connect(self, container: Container, instance_id: str) -> None:
        """Connect it to the network unless it is: one that was cut off stays so."""
        container.reload()
        if self.network.name not in container.attrs["NetworkSettings"]["Networks"]:
            private = self.network.of(f"{instance_id} private")
            self.network.network.connect(container, ipv4_address=private)

    def _add_address(self, container: Container, instance_id: str, address: str) -> None:
        device = self._device(container, instance_id)
        _run(container, "ip", "address", "replace", f"{address}/32", "dev", device)
        # Whoever remembers another machine's hardware address for it learns better.
        container.exec_run(["arping", "-U", "-c", "1", "-I", device, address], detach=True)

    def _device(self, container: Container, instance_id: str) -> str:
        """Name the interface to the network: another one after each time that it was cut off."""
        private = self.network.of(f"{instance_id} private")
        question = ("ip", "-oneline", "-4", "address", "show", "to", private)
        deadline = time.monotonic() + PATIENCE
        while not (found := _run(container, *question).split()):
            if time.monotonic() > deadline:
                raise BackendError(f"{instance_id} has no interface with its address {private}")
            time.sleep(0.2)
            self._connect(container, instance_id)
        return found[1]

    def _end(self, instance_id: str) -> threading.Event:
        """Return the event that is set once the machine is off; begin to wait for that."""
        if instance_id not in self.ends:
            event = self.ends[instance_id] = threading.Event()
            threading.Thread(target=self._wait, args=(instance_id, event), daemon=True).start()
        return self.ends[instance_id]

    def _wait(self, instance_id: str, event: threading.Event) -> None:
        while not event.is_set():
            try:
                ended = self.client.api.wait(self._name(instance_id), timeout=None)["StatusCode"]
                if ended == REBOOTED:
                    self._reboot(instance_id)
                else:
                    event.set()
            except NotFound:
                event.set()
            except (OSError, BackendError) as error:
                log.warning("%s: %s; asking again", instance_id, error)
                time.sleep(1)

    def _reboot(self, instance_id: str) -> None:
        log.info("%s: rebooting", instance_id)
        container = self.client.containers.get(self._name(instance_id))
        container.start()
        if public := self.network.of(f"{instance_id} public"):
            self._add_address(container, instance_id, public)

    def _find(self, instance_id: str) -> Container | None:
        try:
            return self.client.containers.get(self._name(instance_id))
        except NotFound:
            return None

    def _name(self, instance_id: str) -> str:
        return f"{self.prefix}-{instance_id}"


def _read(container: Container, path: str) -> bytes:
    """Return a file of a machine's disk, packed; nothing if it is not there."""
    try:
        return b"".join(container.get_archive(path)[0])
    except NotFound:
        return b""


def _run(container: Any, *command: str) -> str:
    """Run a command on a machine, as its hypervisor would from outside; raise `BackendError` if it fails."""
    if container is None:
        raise BackendError("there is no such machine")
    done = container.exec_run(list(command))
    text: str = done.output.decode(errors="replace").strip()
    if done.exit_code != 0:
        raise BackendError(f"{' '.join(command)}: {text}")
    return text
