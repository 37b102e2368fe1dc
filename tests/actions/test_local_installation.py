"""docs/local_installation_and_deployment.md, carried out as it stands, by a reader with a shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest
import yaml
from booted import INSTANCE, Booted, booted
from ec2_machines import engine_or_skip
from image_support import BASE, certificates
from pressed import DATABASE, ROOT, TOY, borrow_environment, copy_tree, lend_environment, publish

ONE_TABLE = {"round_arguments": ["run", "--tables", "svd.PopulationSVD"]}
#: What the toy needs of an image: no package.
TOY_IMAGE = """ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG COMMIT
ARG VERSION
COPY program.py /program.py
ENTRYPOINT ["python3", "/program.py"]
"""
#: Another cloud's command: it starts and stops an emulated machine, and gives its address the machine's name.
GCLOUD = """#!{python}
import sys
sys.path.insert(0, {helpers!r})
from pathlib import Path
import ec2_support as ec2
api, verb = ec2.client({url!r}), sys.argv[3]
assert sys.argv[1:] == ["compute", "instances", verb, "worker1"]
if verb == "start":
    ec2.started(api, {instance!r})
    address = ec2.describe(api, {instance!r})["PublicIpAddress"]
    Path({config!r}).write_text(Path({config!r} + ".template").read_text().replace("ADDRESS", address))
else:
    api.stop_instances(InstanceIds=[{instance!r}])
    ec2.until(lambda: ec2.state(api, {instance!r}) == "stopped")
with open({asked!r}, "a") as asked:
    print(verb, file=asked)
"""
PAGE = ROOT / "docs" / "local_installation_and_deployment.md"
pytestmark = pytest.mark.timeout(1800)


class Reader:
    """One shell that stays open from the first line of the page to its last.

    Parameters
    ----------
    folder : Path
        Where the reader starts.
    instead : dict
        What the reader has in place of the page's examples: other names, no other commands.
    own : dict
        What is in the reader's environment.
    """

    def __init__(self, folder: Path, instead: dict[str, str], own: dict[str, str]) -> None:
        self.instead = instead
        foreign = (
            "DJ_",
            "WORKFLOW_",
            "SANDBOX_",
            "MAKE",
            "ARGS",
        )  # of the `make test` that this is part of, too
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        tools = folder / "tools"
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=inherited
            | {"ANSIBLE_NOCOLOR": "1", "PATH": f"{tools}:{inherited['PATH']}", "HOME": str(folder)}
            | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, command: str, answer: str = "") -> tuple[int, str]:
        """Type one command, and what it asks for; return its exit status and what it printed."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        for example, own in self.instead.items():
            command = command.replace(example, own)
        end = uuid.uuid4().hex
        typed = f"{command}\n{answer}" + f'echo "{end} $?"\n'
        self.shell.stdin.write(typed)
        self.shell.stdin.flush()
        printed = []
        for line in self.shell.stdout:
            if line.startswith(end):
                return int(line.split()[1]), "".join(printed)
            printed.append(line)
        raise AssertionError(f"the shell ended at {command}: {''.join(printed)}")

    def folder(self) -> Path:
        """Ask where the reader is."""
        return Path(self.type("pwd")[1].strip())


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(section: str) -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```$", sections()[section], re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The lab's own database, with the synthetic sample in it."""
    folder = tmp_path_factory.mktemp("own") / "database"
    subprocess.run([sys.executable, DATABASE, "start", "--directory", folder], check=True, timeout=120)
    try:
        load = [
            sys.executable,
            DATABASE,
            "exec",
            "--directory",
            folder,
            "--",
            sys.executable,
            "-m",
            "workflow",
        ]
        upstream = {**os.environ, "WORKFLOW_UPSTREAM": "declare"}
        subprocess.run([*load, "sample", "--size", "small"], cwd=ROOT, env=upstream, check=True, timeout=300)
        connection = json.loads((folder / "connection.json").read_text())
        yield {**connection, "password": (folder / "password").read_text().strip()}
    finally:
        subprocess.run([sys.executable, DATABASE, "stop", "--directory", folder], check=True, timeout=120)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree as somebody's repository."""
    folder = tmp_path_factory.mktemp("published") / "datajoint-round.git"
    copy_tree(folder)
    publish(folder)
    return folder


@pytest.fixture(scope="module")
def reader(
    tmp_path_factory: pytest.TempPathFactory, origin: Path, database: dict[str, str]
) -> Iterator[Reader]:
    """Somebody with a database of his own."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "tools").mkdir()
    own = f"DJ_BACKEND=postgresql DJ_HOST={database['host']} DJ_PORT={database['port']}"
    instead = {
        "https://github.com/your-lab/datajoint-round.git": str(origin),
        "DJ_BACKEND=mysql DJ_HOST=db.example.org DJ_USER=me": f"{own} DJ_USER={database['user']} "
        f"DJ_DATABASE_NAME={database['name']} WORKFLOW_UPSTREAM=declare",
    }
    # One table is enough: this is no test of computations. ssh looks for its files where the user's home is.
    one_table = {**ONE_TABLE, "workflow_image_runtime": "venv"}
    (folder / "one_table.json").write_text(json.dumps(one_table))
    (folder / ".ssh").mkdir()
    config = f"-F {folder / '.ssh' / 'config'} -o ControlMaster=auto -o ControlPersist=60s"
    made = Reader(folder, instead, {"ARGS": f"-e @{folder}/one_table.json", "ANSIBLE_SSH_ARGS": config})
    try:
        yield made
    finally:
        assert made.shell.stdin is not None
        made.shell.stdin.close()
        made.shell.wait(60)
        if made.shell.stdout is not None:
            made.shell.stdout.close()


def test_the_page_has_these_sections_and_this_reader_reads_them_all() -> None:
    known = [
        "To try it",
        "Your own database, no Ansible",
        "Your own database, in rounds: the machine you sit at",
    ]
    assert list(sections()) == [*known, "Another machine, another cloud", "As a plain container"]


def test_to_try_it(reader: Reader) -> None:
    clone, enter, run, status = commands("To try it")
    assert reader.type(clone)[0] == 0
    assert reader.type(enter)[0] == 0
    folder = reader.folder()
    # What `make run` would install is lent, and newer than what it is made from.
    lend_environment(folder)
    borrow_environment(folder / ".sandbox" / "venv")
    outcome, printed = reader.type(run)
    assert "installing" not in printed
    assert outcome == 0, printed
    assert "sandbox: succeeded" in printed
    outcome, printed = reader.type(status)
    assert (outcome, "svd.PopulationSVD" in printed) == (0, True), printed


def test_your_own_database(reader: Reader, database: dict[str, str]) -> None:
    tell, password, plan, run = commands("Your own database, no Ansible")
    assert reader.type(tell)[0] == 0
    assert reader.type(password, database["password"] + "\n")[0] == 0
    for command in (plan, run):
        outcome, printed = reader.type(command)
        assert outcome == 0, printed
        assert "svd.PopulationSVD" in printed
    assert reader.type("ls results/report.html results/summary.json")[0] == 0


def test_in_rounds_on_this_machine(reader: Reader, database: dict[str, str]) -> None:
    section = "Your own database, in rounds: the machine you sit at"
    blocks = r"^`(\S+)`\n\n```yaml\n(.*?)^```$"
    [(path, text)] = re.findall(blocks, sections()[section], re.MULTILINE | re.DOTALL)
    folder = reader.folder()
    (folder / path).write_text(text)
    variables = folder / "inventory" / "local" / "group_vars" / "workers.yml"
    own = {
        "workflow_source_repository": str(folder),
        "workflow_image_python": sys.executable,
        "workflow_image_venv_directory": str(folder / ".sandbox" / "venv"),
        "workflow_settings_backend": "postgresql",
        "workflow_settings_port": database["port"],
        "workflow_settings_database_name": database["name"],
        "round_environment": {"WORKFLOW_UPSTREAM": "declare"},
        **ONE_TABLE,
        "round_home": str(folder / ".sandbox" / "rounds"),
    }
    variables.write_text(yaml.safe_dump(yaml.safe_load(variables.read_text()) | own))
    check, run, status = commands(section)
    outcome, printed = reader.type(check)
    assert (outcome, "this_machine: ready" in printed) == (0, True), printed
    assert not list(folder.glob("artifacts/*/this_machine"))
    outcome, printed = reader.type(run)
    assert (outcome, "this_machine: succeeded" in printed) == (0, True), printed
    assert database["password"] not in printed
    assert len(list(folder.glob("artifacts/*/this_machine/report.html"))) == 1
    outcome, printed = reader.type(status)
    assert (outcome, "with exit code 0" in " ".join(printed.split())) == (0, True), printed


@pytest.fixture
def workstation(reader: Reader, tmp_path: Path) -> Iterator[Booted]:
    """A machine that is reached over SSH by its name, as the user `lab`, who may use its Docker engine."""
    home = Path(reader.type('echo "$HOME"')[1].strip())
    with booted(tmp_path / "ec2", BASE) as machine:
        config = home / ".ssh" / "config"
        known, key = home / ".ssh" / "known_hosts", machine.directory / "key"
        config.with_suffix(".template").write_text(
            "Host workstation.example.org\n  HostName ADDRESS\n  HostKeyAlias workstation.example.org\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
            f"  IdentityFile {key}\n  IdentitiesOnly yes\n"
        )
        machine.on()
        machine.run("useradd", "--create-home", "--groups", "docker", "--shell", "/bin/bash", "lab")
        machine.run("cp", "-r", "/home/ubuntu/.ssh", "/home/lab/.ssh")
        machine.run("chown", "-R", "lab:lab", "/home/lab/.ssh")
        keys = machine.run("sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub").splitlines()
        known.write_text("".join(f"workstation.example.org {key}\n" for key in keys))
        machine.api.stop_instances(InstanceIds=[INSTANCE])
        machine.off()
        (home / "tools" / "gcloud").write_text(
            GCLOUD.format(
                python=sys.executable,
                helpers=str(ROOT / "tests" / "integration"),
                url=machine.api.meta.endpoint_url,
                instance=INSTANCE,
                config=str(config),
                asked=str(home / "asked"),
            )
        )
        (home / "tools" / "gcloud").chmod(0o755)
        yield machine


def test_another_machine_of_another_cloud(reader: Reader, workstation: Booted, tmp_path: Path) -> None:
    """Over SSH, with a toy of a computation; the cloud's command starts and stops an emulated machine."""
    section = "Another machine, another cloud"
    [text] = re.findall(r"^```yaml\n(.*?)^```$", sections()[section], re.MULTILINE | re.DOTALL)
    folder = reader.folder()
    hosts = folder / "inventory" / "local" / "hosts.yml"
    before, _, _ = hosts.read_text().partition("        this_machine:")
    hosts.write_text(before + text)
    toy = tmp_path / "toy"
    (toy / "requirements").mkdir(parents=True)
    (toy / "requirements" / "worker.txt").touch()
    (toy / "program.py").write_text(TOY)
    (toy / "Dockerfile").write_text(TOY_IMAGE)
    publish(toy)
    variables = folder / "inventory" / "local" / "group_vars" / "workers.yml"
    own = {
        "workflow_source_repository": str(toy),
        "workflow_source_ship": True,
        "round_arguments": ["run", "--at-once"],
        "round_home": "~/datajoint-round",
    }
    variables.write_text(yaml.safe_dump(yaml.safe_load(variables.read_text()) | own))
    for command in commands(section):
        outcome, printed = reader.type(command)
        assert outcome == 0, printed
        assert "gcloud" in command.split()[0] or "workstation: succeeded" in printed, printed
    assert len(list(folder.glob("artifacts/*/workstation/report.html"))) == 1
    asked = (Path(reader.type('echo "$HOME"')[1].strip()) / "asked").read_text().splitlines()
    assert asked == ["start", "stop"]
    assert workstation.state() == "stopped"


def test_as_a_plain_container(reader: Reader, database: dict[str, str]) -> None:
    engine_or_skip()
    name = f"test-{uuid.uuid4().hex[:12]}"
    reader.instead |= {"--tag datajoint-round ": f"--tag {name} ", " datajoint-round run": f" {name} run"}
    # The database of this test is behind a Unix socket, and the package index maybe behind a proxy.
    mount = f"--rm --init --env WORKFLOW_UPSTREAM=declare --volume {database['host']}:{database['host']}:ro"
    reader.instead["--rm --init"] = mount
    reader.instead[" run --output"] = " run --tables svd.PopulationSVD --output"
    reader.instead["mkdir -p secrets"] = (
        "mkdir -p secrets && printf %s $DJ_PORT > secrets/database.port"
        " && printf %s $DJ_DATABASE_NAME > secrets/database.name && mkdir -p"
    )
    if certificates():
        reader.type(f"cp {certificates()} ca-bundle.crt")
        reader.instead["docker build"] = "docker build --network host --build-arg CA_BUNDLE=ca-bundle.crt"
    with closing(docker.from_env()) as engine:
        engine.images.get(BASE)
        try:
            *steps, remove = commands("As a plain container")
            for command in steps:
                outcome, printed = reader.type(command)
                assert outcome == 0, printed
            assert reader.type("ls container-results/summary.json")[0] == 0
            assert reader.type(remove)[0] == 0
        finally:
            for image in engine.images.list(name):
                engine.images.remove(image.tags[0])
