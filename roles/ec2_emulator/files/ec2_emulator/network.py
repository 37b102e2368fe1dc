"""The network of the container machines, and who has which of its addresses."""

from __future__ import annotations

import ipaddress
import json
import threading
from pathlib import Path
from typing import Any

import docker
from docker.types import IPAMConfig, IPAMPool

from .backend import BackendError

TRIES = 5


class Network:
    """A bridge of the container engine, made when it is first needed, and its addresses.

    An address is not given again while another one is free, so what the host remembers of its last holder
    (ARP, an SSH connection kept open) has been forgotten by then.

    Parameters
    ----------
    client : docker.DockerClient
        The engine.
    name : str
        The network's name.
    labels : dict
        Its labels.
    file : Path
        Where the addresses are kept.
    """

    def __init__(self, client: docker.DockerClient, name: str, labels: dict[str, str], file: Path) -> None:
        self.client = client
        self.file = file
        self.one_at_a_time = threading.Lock()
        self.network = self._find(name) or self._create(name, labels)
        self.name = name
        self.prefix = ipaddress.ip_network(self.network.attrs["IPAM"]["Config"][0]["Subnet"])
        self.gateway = str(next(self.prefix.hosts()))

    def take(self, holder: str) -> str:
        """Give an address to somebody: the next one that is free."""
        with self.one_at_a_time:
            kept = self._read()
            held = kept["held"]
            number = kept["last"]
            for _ in range(self.prefix.num_addresses):
                number = number % (self.prefix.num_addresses - 2) + 1
                address = str(self.prefix[number])
                if address != self.gateway and address not in held:
                    held[address] = holder
                    self._write({"subnet": str(self.prefix), "last": number, "held": held})
                    return address
            raise BackendError(f"all addresses of {self.prefix} are taken")

    def give_back(self, holder: str) -> None:
        """Take somebody's addresses back."""
        with self.one_at_a_time:
            kept = self._read()
            kept["held"] = {address: who for address, who in kept["held"].items() if who != holder}
            self._write(kept)

    def of(self, holder: str) -> str:
        """Return somebody's address, or ''."""
        held = self._read()["held"]
        return next((address for address, who in held.items() if who == holder), "")

    def _read(self) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = json.loads(self.file.read_text())
        except FileNotFoundError:
            kept = {}
        if kept.get("subnet") != str(self.prefix):
            kept = {"subnet": str(self.prefix), "last": 0, "held": {}}
        return kept

    def _write(self, kept: dict[str, Any]) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(kept))
        fresh.replace(self.file)

    def _find(self, name: str) -> Any:
        return next((one for one in self.client.networks.list(names=[name]) if one.name == name), None)

    def _create(self, name: str, labels: dict[str, str]) -> Any:
        """Make it with a range that the engine finds free, but fixed: only then may addresses be chosen."""
        for _ in range(TRIES):
            trial = self.client.networks.create(name, labels=labels)
            trial.reload()
            subnet = trial.attrs["IPAM"]["Config"][0]["Subnet"]
            trial.remove()
            pool = IPAMPool(subnet=subnet, gateway=str(next(ipaddress.ip_network(subnet).hosts())))
            try:
                made = self.client.networks.create(
                    name, labels=labels, driver="bridge", ipam=IPAMConfig(pool_configs=[pool])
                )
            except docker.errors.APIError as error:
                if "overlaps" not in str(error):
                    raise
            else:
                made.reload()
                return made
        raise BackendError("somebody else takes every network that the engine finds free; try again")
