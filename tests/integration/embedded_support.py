"""What the tests of the embedded database share."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import psycopg2.extras
from databases import Server, embedded_database, embedded_server


def started(directory: Path) -> Server:
    done = embedded_database("start", directory)
    assert done.returncode == 0, done.stderr
    return embedded_server(directory)


def postmaster(directory: Path) -> psutil.Process:
    return psutil.Process(int((directory / "data" / "postmaster.pid").read_text().split("\n")[0]))


def connect(server: Server, **options: Any) -> psycopg2.extensions.connection:
    return psycopg2.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname=server.name,
        **options,
    )


def ask(server: Server, statement: str = "SELECT current_user") -> str:
    """Run a statement over a fresh connection and return its first value."""
    connection = connect(server)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return str(cursor.fetchone()[0])
    finally:
        connection.close()


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the single line of a refusal."""
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]
