"""Settings of the worker: the only module that reads the environment.

Every setting comes from an environment variable or, failing that, from a file in the secrets
directory (``/run/secrets/datajoint`` unless ``WORKFLOW_SECRETS`` names another one). The files
carry the names that DataJoint gives them: ``database.host``, ``database.password`` and so on.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SECRETS_DIRECTORY = Path("/run/secrets/datajoint")

#: Upstream schemas: the name in our code and the lab's name for it.
UPSTREAM_SCHEMAS = {
    "lab": "map_lab",
    "exp2": "arseny_s1alm_experiment2",
    "img": "arseny_learning_imaging",
    "stimanal": "arseny_learning_photostim_anal",
}
_SECRET_FILES = {
    "DJ_BACKEND": "database.backend",
    "DJ_HOST": "database.host",
    "DJ_PORT": "database.port",
    "DJ_USER": "database.user",
    "DJ_PASS": "database.password",
    "DJ_DATABASE_NAME": "database.name",
}
_DEFAULT_PORTS = {"mysql": 3306, "postgresql": 5432}
_SCHEMA_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class SettingsError(ValueError):
    """A setting is missing or wrong; the message is one line that names the variable."""


@dataclass(frozen=True)
class Database:
    """How to reach the database server."""

    backend: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    name: str | None = None

    @property
    def is_socket(self) -> bool:
        """Whether ``host`` is the directory of a Unix socket."""
        return self.host.startswith("/")

    def __str__(self) -> str:
        """Where the server is, without the password."""
        return f"{self.backend} server {self.user}@{self.host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """Everything that the environment decides."""

    database: Database
    prefix: str
    upstream: Mapping[str, str]
    declare_upstream: bool
    commit: str
    round: str
    user: str
    modules: tuple[str, ...] = ()
    image: str = ""
    grace: float = 30.0
    heartbeat: float = 5.0
    patience: float = 300.0


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and validate the settings.

    Parameters
    ----------
    environ : mapping of str to str, optional
        The environment; the process's own if not given.

    Returns
    -------
    Settings

    Raises
    ------
    SettingsError
        If a value is missing or wrong.
    """
    source = _Source(os.environ if environ is None else environ)
    prefix = source.get("WORKFLOW_PREFIX", "workflow_")
    if not _SCHEMA_NAME.fullmatch(prefix):
        raise SettingsError(
            f"WORKFLOW_PREFIX is {prefix!r}: it must start with a lower-case letter and hold only "
            "lower-case letters, digits and underscores"
        )
    commit = source.get("WORKFLOW_COMMIT", "")
    if commit and not _COMMIT.fullmatch(commit):
        raise SettingsError(f"WORKFLOW_COMMIT is {commit!r}: give the full commit id (40 hex digits)")
    return Settings(
        database=_database(source),
        prefix=prefix,
        upstream={name: _schema_name(source, name, default) for name, default in UPSTREAM_SCHEMAS.items()},
        declare_upstream=_choice(source, "WORKFLOW_UPSTREAM", "read", ("read", "declare")) == "declare",
        commit=commit,
        round=source.get("WORKFLOW_ROUND", ""),
        user=source.get("WORKFLOW_USER", "") or _login(),
        modules=_modules(source.get("WORKFLOW_MODULES", "")),
        image=source.get("WORKFLOW_IMAGE", ""),
        grace=_seconds(source, "WORKFLOW_GRACE", 30.0, 0.0),
        heartbeat=_seconds(source, "WORKFLOW_HEARTBEAT", 5.0, 0.1),
        patience=_seconds(source, "WORKFLOW_PATIENCE", 300.0, 0.0),
    )


def _modules(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise SettingsError(
                f"WORKFLOW_MODULES: {name!r} is not the name of a Python module: give names such as "
                "'lab.sorting', with commas between them"
            )
    return names


def _seconds(source: _Source, variable: str, default: float, least: float) -> float:
    text = source.get(variable, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        raise SettingsError(f"{variable} is {text!r}: it must be a number of seconds from {least:g}")
    return value


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid {os.getuid()}"


class _Source:
    """Environment first, then the secrets directory."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        directory = environ.get("WORKFLOW_SECRETS", "")
        self._directory = Path(directory) if directory else SECRETS_DIRECTORY
        if directory and not self._directory.is_dir():
            raise SettingsError(f"WORKFLOW_SECRETS is {directory!r}: there is no such directory")

    def get(self, variable: str, default: str) -> str:
        value = self._environ.get(variable, "")
        return value or self._secret(variable) or default

    def require(self, variable: str, meaning: str) -> str:
        value = self.get(variable, "")
        if not value:
            secret = self._directory / _SECRET_FILES[variable]
            raise SettingsError(
                f"{variable} is not set: give {meaning} in {variable} or in the file {secret}"
            )
        return value

    def _secret(self, variable: str) -> str:
        name = _SECRET_FILES.get(variable)
        if name is None:
            return ""
        path = self._directory / name
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise SettingsError(f"{variable}: cannot read the file {path}: {reason}") from None


def _database(source: _Source) -> Database:
    backend = _choice(source, "DJ_BACKEND", "mysql", tuple(_DEFAULT_PORTS))
    host = source.require("DJ_HOST", "the database server's name or address")
    port = source.get("DJ_PORT", str(_DEFAULT_PORTS[backend]))
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise SettingsError(f"DJ_PORT is {port!r}: it must be a whole number from 1 to 65535")
    if ":" in host:
        raise SettingsError(f"DJ_HOST is {host!r}: give the port in DJ_PORT, not in the host")
    return Database(
        backend=backend,
        host=host,
        port=int(port),
        user=source.require("DJ_USER", "the database user's name"),
        password=source.require("DJ_PASS", "the database user's password"),
        name=(source.get("DJ_DATABASE_NAME", "") or None) if backend == "postgresql" else None,
    )


def _choice(source: _Source, variable: str, default: str, choices: tuple[str, ...]) -> str:
    value = source.get(variable, default)
    if value not in choices:
        raise SettingsError(f"{variable} is {value!r}: it must be one of {', '.join(choices)}")
    return value


def _schema_name(source: _Source, name: str, default: str) -> str:
    variable = f"WORKFLOW_SCHEMA_{name.upper()}"
    value = source.get(variable, default)
    if not _SCHEMA_NAME.fullmatch(value):
        raise SettingsError(
            f"{variable} is {value!r}: a schema name holds only lower-case letters, digits and underscores"
        )
    return value
