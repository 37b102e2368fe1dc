"""A git server on loopback that asks for a user and a token, as a private repository's does."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from loopback import Quiet, served


class _Handler(Quiet, BaseHTTPRequestHandler):
    """Checks the credential, then lets git's own CGI program answer."""

    folder: Path
    credential: str
    refused: list[str]

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        if given != f"Basic {base64.b64encode(self.credential.encode()).decode()}":
            self.refused.append(given)
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="private"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        answer = subprocess.run(
            ["git", "http-backend"],
            input=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "REMOTE_USER": "tester",
            },
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout
        head, _, body = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 -- as the base class calls it


@contextmanager
def git_server(folder: Path, user: str, token: str) -> Iterator[tuple[str, list[str]]]:
    """Serve the repositories of a folder; yield the URL, and what was refused."""
    refused: list[str] = []
    kind = type(
        "Handler", (_Handler,), {"folder": folder, "credential": f"{user}:{token}", "refused": refused}
    )
    with served(kind) as url:
        yield url, refused
