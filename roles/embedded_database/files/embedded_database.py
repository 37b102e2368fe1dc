"""Start, stop and use a private PostgreSQL server whose programs come from a Python wheel.

Everything lives in one directory:

    data/                the cluster; belongs to the user who runs the server
    socket/              the Unix socket alone, so that a container can mount it
    password             password of the one role that may log in, mode 0600
    connection.json      where the server listens; no secret
    embedded_database.lock

The role owns its database and is no superuser, since a superuser could run programs on this machine
through the server. The superuser has no password and no line in pg_hba.conf, so nobody can log in as it.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from address import read_connection
from programs import DatabaseError
from server import Server

STOPPED = 3  # what `status` returns when the server is not running, as service managers do


def report(server: Server, changed: bool, as_json: bool) -> int:
    """Print the state of the server and return the exit status of `status`."""
    where = read_connection(server.connection_file)
    running = server.pid() is not None
    if as_json:
        print(json.dumps({"running": running, "changed": changed, "connection": where}))
    elif running:
        address = f"{where['tcp_host']}:{where['tcp_port']} and {where['host']}"
        print(f"The embedded database is {'now running' if changed else 'running'} at {address}.")
    else:
        print(
            f"The embedded database in {server.directory} is {'now stopped' if changed else 'not running'}."
        )
    return 0 if running else STOPPED


def environment(server: Server) -> dict[str, str]:
    """Give the variables that tell DataJoint to use the server."""
    where = read_connection(server.connection_file)
    return {
        "DJ_BACKEND": where["backend"],
        "DJ_HOST": where["host"],
        "DJ_PORT": str(where["port"]),
        "DJ_USER": where["user"],
        "DJ_PASS": server.password_file.read_text(encoding="utf-8").strip(),
        "DJ_DATABASE_NAME": where["name"],
    }


def execute(server: Server, command: list[str]) -> int:
    """Run a command with the server up, then put the server back as it was.

    Returns
    -------
    int
        The command's exit status; 128 + the signal's number if a signal ended it; 127 if there is no
        such command, as shells do.
    """
    if not command:
        raise DatabaseError("exec: no command given: write `exec -- COMMAND ARGUMENTS`")
    # Ctrl-C reaches the command by itself, a SIGTERM is passed on; the server is stopped in both cases.
    # Handlers, unlike SIG_IGN, are not inherited by the command.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    started = server.start()
    try:
        child = subprocess.Popen(command, env={**os.environ, **environment(server)})
        signal.signal(signal.SIGTERM, lambda number, _frame: child.send_signal(number))
        status = child.wait()
        return status if status >= 0 else 128 - status
    except (FileNotFoundError, PermissionError) as error:
        print(f"embedded database: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    finally:
        if started:
            server.stop()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="embedded_database.py", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    descriptions = {
        "start": "start the server, creating it first if needed; harmless when it runs",
        "stop": "stop the server; harmless when it does not run",
        "status": f"say whether it runs: exit status 0 if it does, {STOPPED} if not",
        "exec": "run a command with DJ_* set; stop the server afterwards if this started it",
    }
    for verb, description in descriptions.items():
        subparser = verbs.add_parser(verb, help=description, description=description)
        subparser.add_argument("--directory", type=Path, required=True, help="where the database lives")
        if verb == "start":
            subparser.add_argument("--address", type=IPv4Address, help="listen there too, besides 127.0.0.1")
            subparser.add_argument("--clients", type=IPv4Network, help="network that may use that address")
        if verb == "exec":
            subparser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
        else:
            subparser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Carry out one verb."""
    options = parse(arguments)
    try:
        further = (options.address, options.clients) if options.verb == "start" else ()
        server = Server(options.directory, *further)
        if options.verb == "exec":
            return execute(server, options.command[1:] if options.command[:1] == ["--"] else options.command)
        if options.verb == "status":
            return report(server, changed=False, as_json=options.json)
        changed = server.start() if options.verb == "start" else server.stop()
        report(server, changed, options.json)
    except DatabaseError as error:
        print(f"embedded database: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or options.directory
        remedy = "free some space" if error.errno == errno.ENOSPC else "choose another --directory"
        print(f"embedded database: cannot use {where}: {error.strerror}: {remedy}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
