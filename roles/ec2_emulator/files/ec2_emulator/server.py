"""The server: `python -m ec2_emulator.server`, declared instances (JSON) on standard input."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import signal
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from werkzeug.exceptions import NotFound
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from . import session
from .backend import Backend, BackendError, LocalhostBackend
from .faults import Faults
from .machine import DeclarationError, Machine

LOOK_SECONDS = 0.05

log = logging.getLogger("ec2_emulator")


def main() -> int:
    """Answer until nobody uses the server any more, or SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(prog="ec2_emulator.server", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--lag", type=float, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--ca-bundle", required=True)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())

    directory: Path = options.directory
    folders = directory / "machines"
    declared = json.load(sys.stdin)
    faults = Faults(directory / "faults.json")
    try:
        backend = _backend(options, declared, faults)
        machines = [Machine(one, folders, backend, options.lag) for one in declared]
    except (DeclarationError, BackendError) as error:
        print(error, file=sys.stderr)
        return 2
    if importlib.util.find_spec("moto") is None:
        print("the Python package moto is missing; install moto[ec2,server]", file=sys.stderr)
        return 2
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    server = make_server("127.0.0.1", 0, NotFound(), threaded=True)
    place = {"gateway": backend.gateway, "network": backend.subnet}
    announced = {"backend": options.backend, "instances": declared} | place
    session.announce(directory, f"http://127.0.0.1:{server.server_port}", announced)
    # Its import takes longer than all before it. Requests that come meanwhile wait in the socket's queue.
    from .addresses import ElasticAddresses
    from .api import Application
    from .cloud import Cloud

    addresses = ElasticAddresses(directory / "addresses.json", {one.id: one for one in machines}, backend)
    server.app = Application(Cloud(machines, addresses), faults, {"pid": os.getpid()})
    threading.Thread(target=server.serve_forever, args=(LOOK_SECONDS,), daemon=True).start()
    while not _over(directory, ended.wait(LOOK_SECONDS), server, machines):
        for machine in machines:
            machine.look()
    log.info("ended")
    return 0


def _backend(options: argparse.Namespace, declared: list[dict[str, Any]], faults: Faults) -> Backend:
    if options.backend == "localhost":
        return LocalhostBackend(options.directory / "machines", options.grace)
    from .containers import ContainerBackend

    keys = {one["id"]: one["public_key"] for one in declared}
    certificates = Path(options.ca_bundle) if options.ca_bundle else None
    return ContainerBackend(options.directory, options.image, keys, certificates, options.grace, faults)


def _over(directory: Path, ended: bool, server: BaseWSGIServer, machines: list[Machine]) -> bool:
    """End if told to or if nobody uses the server; tell whether.

    The machines come to rest before another server may start on the folder. It may be gone already, though.
    """
    if not ended and session.watchers(directory):
        return False
    with session.locked(directory) if directory.exists() else nullcontext():
        if not ended and session.watchers(directory):
            return False
        (directory / "endpoint.json").unlink(missing_ok=True)
        server.shutdown()
        for machine in machines:
            machine.settle()
        return True


if __name__ == "__main__":
    sys.exit(main())
