"""The EC2 protocol: moto reads the requests and writes the answers, the instances are ours."""

from __future__ import annotations

import json
import logging
import re
import threading
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from moto.core.request import Request
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response
from werkzeug.wrappers import Response

from .cloud import Cloud
from .machine import BEHAVIORS, CODES, Machine, StateError

log = logging.getLogger("ec2_emulator")

ACTIONS = {
    "CreateTags",
    "DeleteTags",
    "DescribeInstanceAttribute",
    "DescribeInstanceStatus",
    "DescribeInstances",
    "DescribeTags",
    "ModifyInstanceAttribute",
    "StartInstances",
    "StopInstances",
}
"""All that this API can do. Nothing here launches or terminates: a client that tries is told so."""

STATUS = {
    "AuthFailure": 401,
    "UnauthorizedOperation": 403,
    "InsufficientInstanceCapacity": 500,
    "InternalError": 500,
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
        """Answer ModifyInstanceAttribute, in both of its spellings, for the one attribute emulated."""
        name = "InstanceInitiatedShutdownBehavior"
        value = self._get_param(f"{name}.Value")
        if (self._get_param("Attribute") or "").lower() == name.lower():
            value = self._get_param("Value")
        if value not in BEHAVIORS:
            raise EC2ClientError("InvalidParameterValue", f"Only {name} is emulated, as one of {BEHAVIORS}")
        machines = self.cloud.find([self._get_param("InstanceId")])
        self.error_on_dryrun()
        for machine in machines:
            machine.change(shutdown_behavior=value)
        return EmptyResult()

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


class Application:
    """The WSGI application: refuses what EC2 would refuse, answers the rest.

    Parameters
    ----------
    machines : list of Machine
        The instances.
    faults : Path
        File of errors to answer with, a JSON list of `{"action", "access_key", "code", "message", "times"}`:
        the next `times` requests for that action with that access key (either may be left out) are refused
        with that code. There need be no such file.
    health : dict
        What GET /health answers.
    """

    def __init__(self, machines: list[Machine], faults: Path, health: dict[str, Any]) -> None:
        self.cloud = Cloud(machines)
        self.faults = faults
        self.one_at_a_time = threading.Lock()
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
        if fault := self.due_fault(action, credential[1]):
            return refusal(fault["code"], fault.get("message", f"Injected fault in {action}"))
        return None

    def due_fault(self, action: str, access_key: str) -> dict[str, Any] | None:
        """Take the next fault that was ordered for such a request."""
        with self.one_at_a_time:
            try:
                faults = json.loads(self.faults.read_text())
            except FileNotFoundError:
                return None
            request = {"action": action, "access_key": access_key}
            for fault in faults:
                if fault["times"] > 0 and all(fault.get(key, own) == own for key, own in request.items()):
                    fault["times"] -= 1
                    fresh = self.faults.with_suffix(".new")
                    fresh.write_text(json.dumps(faults))
                    fresh.replace(self.faults)
                    return dict(fault)
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
