"""Elastic IPs: addresses that stay with an instance while it is stopped."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from .backend import Backend, BackendError
from .machine import Machine

Address = dict[str, Any]
"""`allocation_id`, `public_ip`, `tags`; `association_id` and `instance_id`, which are '' while it is free."""


class ElasticAddresses:
    """All Elastic IPs, kept in a file.

    Parameters
    ----------
    file : Path
        Where they are kept.
    machines : dict
        The instances by id.
    backend : Backend
        Gives the addresses.
    """

    def __init__(self, file: Path, machines: dict[str, Machine], backend: Backend) -> None:
        self.file = file
        self.machines = machines
        self.backend = backend
        self.known: dict[str, Address] = json.loads(file.read_text()) if file.exists() else {}

    def allocate(self, tags: dict[str, str]) -> Address:
        """Take a new one."""
        identity = f"eipalloc-{secrets.token_hex(8)}"
        try:
            public = self.backend.take_address(identity)
        except BackendError as error:
            raise EC2ClientError("AddressLimitExceeded", str(error)) from error
        self.known[identity] = {
            "allocation_id": identity,
            "public_ip": public,
            "tags": tags,
            "association_id": "",
            "instance_id": "",
        }
        self._keep()
        return self.known[identity]

    def release(self, address: Address) -> None:
        """Give one back."""
        if address["association_id"]:
            raise EC2ClientError("InvalidIPAddress.InUse", f"Address {address['public_ip']} is in use.")
        self.backend.release_address(address["allocation_id"])
        del self.known[address["allocation_id"]]
        self._keep()

    def associate(self, address: Address, machine: Machine, again: bool) -> Address:
        """Let an instance have one; `again` allows to take it from another instance."""
        if address["instance_id"] == machine.id:
            return address
        if address["instance_id"]:
            if not again:
                raise EC2ClientError(
                    "Resource.AlreadyAssociated",
                    f"resource {address['allocation_id']} is already associated with associate-id "
                    f"{address['association_id']}",
                )
            self.disassociate(address)
        for other in [one for one in self.known.values() if one["instance_id"] == machine.id]:
            self._free(other)
        machine.associate(address["public_ip"])
        address.update(association_id=f"eipassoc-{secrets.token_hex(8)}", instance_id=machine.id)
        self._keep()
        return address

    def disassociate(self, address: Address) -> None:
        """Take it from its instance."""
        self.machines[address["instance_id"]].associate("")
        self._free(address)
        self._keep()

    def one(self, allocation_id: str = "", public_ip: str = "", association_id: str = "") -> Address:
        """Return the one that is meant."""
        for key, value, code in (
            ("allocation_id", allocation_id, "InvalidAllocationID.NotFound"),
            ("association_id", association_id, "InvalidAssociationID.NotFound"),
            ("public_ip", public_ip, "InvalidAddress.NotFound"),
        ):
            if value:
                for address in self.known.values():
                    if address[key] == value:
                        return address
                raise EC2ClientError(code, f"'{value}' does not exist")
        raise EC2ClientError("MissingParameter", "Name an address by AllocationId, AssociationId or PublicIp")

    def select(self, filters: list[dict[str, Any]]) -> list[Address]:
        """Return those that pass the filters."""
        known: dict[str, Callable[[Address], str]] = {
            "instance-id": lambda one: str(one["instance_id"]),
            "allocation-id": lambda one: str(one["allocation_id"]),
            "association-id": lambda one: str(one["association_id"]),
            "public-ip": lambda one: str(one["public_ip"]),
            "domain": lambda one: "vpc",
        }

        def passes(address: Address, name: str, values: list[str]) -> bool:
            if name.startswith("tag:"):
                return address["tags"].get(name[4:]) in values
            if name not in known:
                raise EC2ClientError("InvalidParameterValue", f"The filter '{name}' is not emulated")
            return known[name](address) in values

        wanted = [(one["Name"], one["Values"]) for one in filters]
        return [one for one in self.known.values() if all(passes(one, *each) for each in wanted)]

    def tag(self, allocation_id: str, tags: dict[str, str]) -> None:
        """Keep the tags of one."""
        self.one(allocation_id)["tags"] = dict(tags)
        self._keep()

    @staticmethod
    def _free(address: Address) -> None:
        address.update(association_id="", instance_id="")

    def _keep(self) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self.known, indent=1) + "\n")
        fresh.replace(self.file)
