"""The EC2 protocol: moto reads the requests and writes the answers, the instances are ours."""

from __future__ import annotations

import base64
import json
import logging
import re
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from moto.core.request import Request
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response
from werkzeug.wrappers import Response

from .addresses import Address, ElasticAddresses
from .backend import BackendError
from .cloud import Cloud
from .faults import Faults
from .machine import BEHAVIORS, CODES, Machine, StateError

log = logging.getLogger("ec2_emulator")

ACTIONS = {
    "AllocateAddress",
    "AssociateAddress",
    "CreateTags",
    "DeleteTags",
    "DescribeAddresses",
    "DescribeInstanceAttribute",
    "DescribeInstanceStatus",
    "DescribeInstances",
    "DescribeTags",
    "DisassociateAddress",
    "GetConsoleOutput",
    "ModifyInstanceAttribute",
    "ReleaseAddress",
    "StartInstances",
    "StopInstances",
}
"""All that this API can do. Nothing here launches or terminates: a client that tries is told so."""

ATTRIBUTES = {"InstanceType": "instance_type", "InstanceInitiatedShutdownBehavior": "shutdown_behavior"}
"""What ModifyInstanceAttribute changes, and the field of the record."""

STATUS = {
    "AuthFailure": 401,
    "UnauthorizedOperation": 403,
    "InsufficientInstanceCapacity": 500,
    "InternalError": 500,
    "RequestLimitExceeded": 503,
    "Unavailable": 503,
}
"""HTTP status of EC2's error codes, where it is not 400."""


class Answers(EC2Response):
    """moto's answers, with our states."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self.cloud = cloud

    @property
    def ec2_backend(self) -> Cloud:
        """The instances."""
        return self.cloud

    def describe_instances(self) -> ActionResult:
        """Answer DescribeInstances."""
        self.cloud.find(self._get_param("InstanceIds", []))
        return super().describe_instances()

    def start_instances(self) -> ActionResult:
        """Answer StartInstances."""
        return ActionResult({"StartingInstances": self._change_state(Machine.start)})

    def stop_instances(self) -> ActionResult:
        """Answer StopInstances."""
        return ActionResult({"StoppingInstances": self._change_state(Machine.stop)})

    def modify_instance_attribute(self) -> ActionResult:
        """Answer ModifyInstanceAttribute, in both of its spellings, for the attributes emulated."""
        spelt = (self._get_param("Attribute") or "").lower()
        given = {
            name: self._get_param("Value") if spelt == name.lower() else self._get_param(f"{name}.Value")
            for name in ATTRIBUTES
        }
        changes = {ATTRIBUTES[name]: value for name, value in given.items() if value is not None}
        if len(changes) != 1 or changes.get("shutdown_behavior", BEHAVIORS[0]) not in BEHAVIORS:
            emulated = f"{' or '.join(ATTRIBUTES)} (one of {BEHAVIORS})"
            raise EC2ClientError("InvalidParameterValue", f"Only one of these is emulated: {emulated}")
        [machine] = self.cloud.find([self._get_param("InstanceId")])
        self.error_on_dryrun()
        if "instance_type" in changes and machine.record.state != "stopped":
            raise EC2ClientError(
                "IncorrectInstanceState", f"The instance '{machine.id}' is not in the 'stopped' state."
            )
        machine.change(**changes)
        return EmptyResult()

    def get_console_output(self) -> ActionResult:
        """Answer GetConsoleOutput."""
        machine = self._machine()
        try:
            text = machine.backend.console(machine.id)
        except BackendError as error:
            raise EC2ClientError("InternalError", str(error)) from error
        output = base64.b64encode(text.encode()).decode()
        return ActionResult({"InstanceId": machine.id, "Timestamp": datetime.now(UTC), "Output": output})

    def allocate_address(self) -> ActionResult:
        """Answer AllocateAddress."""
        tags = {
            tag["Key"]: tag["Value"]
            for one in self._get_param("TagSpecifications", [])
            for tag in one.get("Tags", [])
        }
        self.error_on_dryrun()
        return ActionResult(_shown(self.addresses.allocate(tags)))

    def associate_address(self) -> ActionResult:
        """Answer AssociateAddress."""
        machine, address = self._machine(), self._address()
        self.error_on_dryrun()
        try:
            address = self.addresses.associate(address, machine, self._get_param("AllowReassociation", False))
        except BackendError as error:
            raise EC2ClientError("InternalError", str(error)) from error
        return ActionResult({"AssociationId": address["association_id"]})

    def disassociate_address(self) -> EmptyResult:
        """Answer DisassociateAddress."""
        address = self._address()
        if not address["association_id"]:
            raise EC2ClientError(
                "InvalidAssociationID.NotFound", f"{address['public_ip']} is associated with nothing"
            )
        self.error_on_dryrun()
        self.addresses.disassociate(address)
        return EmptyResult()

    def release_address(self) -> EmptyResult:
        """Answer ReleaseAddress."""
        address = self._address()
        self.error_on_dryrun()
        self.addresses.release(address)
        return EmptyResult()

    def describe_addresses(self) -> ActionResult:
        """Answer DescribeAddresses."""
        found = self.addresses.select(self._get_param("Filters", []))
        for name, key in (("AllocationIds", "allocation_id"), ("PublicIps", "public_ip")):
            if wanted := self._get_param(name, []):
                found = [
                    one for one in found if one in [self.addresses.one(**{key: value}) for value in wanted]
                ]
        return ActionResult({"Addresses": [_shown(one) for one in found]})

    @property
    def addresses(self) -> ElasticAddresses:
        """The Elastic IPs."""
        return self.cloud.addresses

    def _machine(self) -> Machine:
        return self.cloud.find([self._get_param("InstanceId", "")])[0]

    def _address(self) -> Address:
        names = {"AllocationId": "allocation_id", "AssociationId": "association_id", "PublicIp": "public_ip"}
        return self.addresses.one(**{key: self._get_param(name, "") for name, key in names.items()})

    def _change_state(self, ask: Any) -> list[dict[str, Any]]:
        machines = self.cloud.find(self._get_param("InstanceIds", []))
        self.error_on_dryrun()
        changes = []
        for machine in machines:
            try:
                before, after = ask(machine)
            except StateError as error:
                raise EC2ClientError("IncorrectInstanceState", str(error)) from error
            states = {"PreviousState": before, "CurrentState": after}
            changes.append(
                {"InstanceId": machine.id}
                | {key: {"Code": CODES[name], "Name": name} for key, name in states.items()}
            )
        return changes


def _shown(address: Address) -> dict[str, Any]:
    """Put an Elastic IP as EC2 does; what it has not got is left out."""
    tags = [{"Key": key, "Value": value} for key, value in address["tags"].items()]
    shown = {
        "AllocationId": address["allocation_id"],
        "PublicIp": address["public_ip"],
        "Domain": "vpc",
        "AssociationId": address["association_id"],
        "InstanceId": address["instance_id"],
        "Tags": tags,
    }
    return {key: value for key, value in shown.items() if value}


class Application:
    """The WSGI application: refuses what EC2 would refuse, answers the rest.

    Parameters
    ----------
    cloud : Cloud
        The instances and their Elastic IPs.
    faults : Faults
        Errors to answer with.
    health : dict
        What GET /health answers.
    """

    def __init__(self, cloud: Cloud, faults: Faults, health: dict[str, Any]) -> None:
        self.cloud = cloud
        self.faults = faults
        self.health = health

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer one request."""
        return self.answer(ServedRequest(environ))(environ, start_response)

    def answer(self, request: Request) -> Response:
        """Answer one request."""
        if request.path == "/health":
            return Response(json.dumps(self.health), mimetype="application/json")
        action = request.form.get("Action") or request.args.get("Action", "")
        log.info("%s", action)
        if refused := self.refused(action, request.headers.get("Authorization", "")):
            return refused
        try:
            status, headers, body = Answers(self.cloud)._dispatch(request)
        except NotImplementedError as error:
            return refusal("UnsupportedOperation", str(error))
        except Exception as error:
            log.exception("%s", action)
            return refusal("InternalError", f"{type(error).__name__}: {error}")
        return Response(body, int(headers.pop("status", status)), headers)

    def refused(self, action: str, authorization: str) -> Response | None:
        """Refuse requests without credentials, actions that are not emulated, and what a fault asks for."""
        credential = re.search(r"Credential=([^/\s]+)/", authorization)
        if credential is None:
            return refusal("AuthFailure", "AWS was not able to validate the provided access credentials")
        if action not in ACTIONS:
            return refusal("InvalidAction", f"The emulated EC2 has no action {action}")
        if fault := self.faults.of_request(action, credential[1]):
            return refusal(fault["code"], fault.get("message", f"Injected fault in {action}"))
        return None


class ServedRequest(Request):
    """A request that came through a real web server, which adds its own Date."""

    from_wsgi_server = True


def refusal(code: str, message: str) -> Response:
    """Refuse a request in EC2's own form."""
    log.info("refused: %s: %s", code, message)
    error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    body = f"<Response><Errors>{error}</Errors><RequestID>emulated</RequestID></Response>"
    return Response(body, STATUS.get(code, 400), mimetype="text/xml")
