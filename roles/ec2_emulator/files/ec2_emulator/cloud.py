"""The machines, as moto wants to see instances: what is answered, filtered and tagged."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from moto.ec2.exceptions import EC2ClientError, InvalidInstanceIdError
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.instances import (
    InstanceBackend,
    InstancePlacement,
    InstanceState,
    Reservation,
    StateReason,
)
from moto.ec2.models.tags import TagBackend

from .addresses import ElasticAddresses
from .machine import CODES, ID, Machine

ACCOUNT = "123456789012"


class Instance(TaggedEC2Resource):
    """A machine under the attribute names by which moto answers and filters.

    What is not known of an emulated instance (its image, network, disks) is left out of the answers.
    """

    owner_id = ACCOUNT
    placement = InstancePlacement("emulated-1a")
    architecture = "x86_64"
    root_device_type = "ebs"
    monitoring = {"State": "disabled"}  # noqa: RUF012 -- read only
    image_id = vpc_id = subnet_id = key_name = private_dns_name = public_dns_name = None
    security_groups: tuple[()] = ()
    product_codes: tuple[()] = ()
    instance_lifecycle = None
    source_dest_check = True
    disable_api_termination = disable_api_stop = ebs_optimized = False

    def __init__(self, cloud: Cloud, machine: Machine) -> None:
        self.ec2_backend = cloud
        self.machine = machine
        self.id = self.instance_id = machine.id

    @property
    def instance_type(self) -> str:
        """Type, as declared."""
        return self.machine.record.instance_type

    @property
    def state(self) -> str:
        """Name of the state, for filters."""
        return self.machine.record.state

    @property
    def state_code(self) -> int:
        """EC2's number for the state."""
        return CODES[self.state]

    @property
    def instance_state(self) -> InstanceState:
        """State with its number, for answers."""
        return InstanceState(self.state, self.state_code)

    @property
    def state_reason(self) -> StateReason | None:
        """Why it stopped; a stopped instance that never ran has no reason."""
        reason = self.machine.record.state_reason
        return StateReason(reason, reason.partition(":")[0]) if reason else None

    @property
    def state_transition_reason(self) -> str:
        """Who stopped it, and when."""
        return self.machine.record.transition_reason

    @property
    def launch_time(self) -> datetime:
        """When it was last started, or made if never."""
        return datetime.fromisoformat(self.machine.record.launch_time)

    @property
    def public_ip(self) -> str | None:
        """Address while it runs."""
        return self.machine.record.public_address or None

    @property
    def private_ip(self) -> str | None:
        """Address inside its network; like EC2's, it stays while the instance is stopped."""
        return self.machine.record.private_address or None

    public_ip_address = public_ip
    private_ip_address = private_ip

    @property
    def instance_initiated_shutdown_behavior(self) -> str:
        """What a power-off from inside does to it."""
        return self.machine.record.shutdown_behavior

    @property
    def instance_status(self) -> dict[str, str]:
        """Outcome of the status checks."""
        return {"Status": "ok" if self.is_running() else "not-applicable"}

    system_status = instance_status
    availability_zone = "emulated-1a"

    def is_running(self) -> bool:
        """Tell whether it runs."""
        return self.state == "running"

    def applies(self, filters: list[dict[str, Any]]) -> bool:
        """Tell whether it passes DescribeInstanceStatus' filters."""
        wanted = {item["name"]: item["values"] for item in filters or []}
        known = {"instance-state-name": self.state, "instance-id": self.id}
        if unknown := set(wanted) - set(known):
            raise EC2ClientError("InvalidParameterValue", f"The filter '{unknown.pop()}' is not emulated")
        return all(known[name] in values for name, values in wanted.items())


class Cloud(InstanceBackend, TagBackend):
    """All instances, whatever region a request names."""

    def __init__(self, machines: list[Machine], addresses: ElasticAddresses) -> None:
        InstanceBackend.__init__(self)
        TagBackend.__init__(self)
        self.machines = {machine.id: machine for machine in machines}
        self.addresses = addresses
        for address in addresses.known.values():
            self.tags[address["allocation_id"]] = address["tags"]
        for machine in machines:
            reservation = Reservation(f"r-{machine.id[2:]}", ACCOUNT)
            reservation.instances.append(Instance(self, machine))  # type: ignore[arg-type]
            self.reservations[reservation.id] = reservation
            self.tags[machine.id] = machine.record.tags

    def find(self, instance_ids: list[str]) -> list[Machine]:
        """Return the machines with these ids; refuse as EC2 does when one does not exist."""
        for wrong in (one for one in instance_ids if not ID.fullmatch(one)):
            raise EC2ClientError("InvalidInstanceID.Malformed", f'Invalid id: "{wrong}"')
        if missing := [one for one in instance_ids if one not in self.machines]:
            raise InvalidInstanceIdError(missing)
        return [self.machines[one] for one in instance_ids]

    def do_resources_exist(self, resource_ids: list[str]) -> bool:
        """Refuse tags on what does not exist."""
        for address in (one for one in resource_ids if one.startswith("eipalloc-")):
            self.addresses.one(address)
        self.find([one for one in resource_ids if not one.startswith("eipalloc-")])
        return True

    def create_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        """Set tags and keep them."""
        done: bool = super().create_tags(resource_ids, tags)
        self._keep(resource_ids)
        return done

    def delete_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        """Remove tags and keep that."""
        done: bool = super().delete_tags(resource_ids, tags)
        self._keep(resource_ids)
        return done

    def _keep(self, resource_ids: list[str]) -> None:
        for resource in resource_ids:
            if resource in self.machines:
                self.machines[resource].change(tags=self.tags[resource])
            else:
                self.addresses.tag(resource, self.tags[resource])
