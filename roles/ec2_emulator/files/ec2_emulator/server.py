"""The server: `python -m ec2_emulator.server`, declared instances (JSON) on standard input."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from werkzeug.serving import WSGIRequestHandler, make_server

from . import session
from .api import Application
from .backend import LocalhostBackend
from .machine import DeclarationError, Machine

LOOK_SECONDS = 0.05

log = logging.getLogger("ec2_emulator")


def main() -> int:
    """Answer until nobody uses the server any more, or SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(prog="ec2_emulator.server", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--lag", type=float, required=True)
    parser.add_argument("--grace", type=float, required=True)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())

    directory: Path = options.directory
    folders = directory / "machines"
    declared = json.load(sys.stdin)
    backend = LocalhostBackend(folders, options.grace)
    try:
        machines = [Machine(one, folders, backend, options.lag) for one in declared]
    except DeclarationError as error:
        print(error, file=sys.stderr)
        return 2
    application = Application(machines, directory / "faults.json", {"pid": os.getpid()})
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, args=(LOOK_SECONDS,), daemon=True).start()
    session.announce(directory, f"http://127.0.0.1:{server.server_port}", declared)
    try:
        while not ended.wait(LOOK_SECONDS):
            for machine in machines:
                machine.look()
            if not session.watchers(directory) and _end(directory, machines, unless_used=True):
                break
    finally:
        _end(directory, machines)
        server.shutdown()
        log.info("ended")
    return 0


def _end(directory: Path, machines: list[Machine], *, unless_used: bool = False) -> bool:
    """Withdraw the endpoint and let the machines come to rest before another server may start; tell whether."""
    if directory.exists():
        with session.locked(directory):
            if unless_used and session.watchers(directory):
                return False
            (directory / "endpoint.json").unlink(missing_ok=True)
            for machine in machines:
                machine.settle()
    return True


if __name__ == "__main__":
    sys.exit(main())
