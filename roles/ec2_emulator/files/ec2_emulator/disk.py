"""What the emulator writes on a machine's disk before it boots."""

from __future__ import annotations

import io
import tarfile
import uuid
from pathlib import Path

UBUNTU = 1000
"""Numeric user and group of `ubuntu` in the machines' image."""

AUTHORIZED = "home/ubuntu/.ssh/authorized_keys"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def contents(instance_id: str, keys: str, certificates: Path | None, wanted: dict[str, str]) -> bytes:
    """Pack the files into a tar archive.

    Parameters
    ----------
    instance_id : str
        Id that cloud-init would have written.
    keys : str
        Public SSH keys of the user `ubuntu`, one per line.
    certificates : Path or None
        Authorities that the machine trusts instead of Debian's.
    wanted : dict
        What this boot is to do: files of /etc/ec2-machine.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        _add(archive, "etc/machine-id", uuid.uuid5(uuid.NAMESPACE_OID, instance_id).hex + "\n")
        _add(archive, "var/lib/cloud/data/instance-id", f"{instance_id}\n")
        _add(archive, AUTHORIZED, keys, owner=UBUNTU, mode=0o600)
        if certificates:
            _add(archive, CERTIFICATES, certificates.read_text())
        for name, text in ({"resolv.conf": resolvers(), "no_ssh": ""} | wanted).items():
            _add(archive, f"etc/ec2-machine/{name}", text)
    return packed.getvalue()


def with_key(packed: bytes, key: str) -> str:
    """Add the key to those in a packed file, unless it is there: keys that others authorised stay."""
    there = ""
    if packed:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            file = archive.extractfile(archive.getmembers()[0])
            there = file.read().decode() if file else ""
    return there if key in there.splitlines() else "\n".join([*there.splitlines(), key]) + "\n"


def resolvers() -> str:
    """Name the servers that this computer asks for names, as far as they are not on its own loopback.

    The machines ask them directly: the engine's own server does not answer containers inside containers.
    """
    for file in RESOLVERS:
        lines = file.read_text().splitlines() if file.exists() else []
        servers = [line for line in lines if line.startswith("nameserver ")]
        if servers and not any(line.split()[1].startswith("127.") for line in servers):
            return "\n".join(servers) + "\n"
    return ""


def _add(archive: tarfile.TarFile, path: str, text: str, owner: int = 0, mode: int = 0o644) -> None:
    data = text.encode()
    if owner:
        folder = tarfile.TarInfo(str(Path(path).parent))
        folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o700, owner, owner
        archive.addfile(folder)
    file = tarfile.TarInfo(path)
    file.size, file.mode, file.uid, file.gid = len(data), mode, owner, owner
    archive.addfile(file, io.BytesIO(data))
