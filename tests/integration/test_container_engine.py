"""The role container_engine: an engine that answers, and the ways in which none does."""

from __future__ import annotations

import socket
import uuid
import venv
from pathlib import Path

from image_support import BASE, connect
from role_support import play

FACTS = ("container_engine_answers", "container_engine_reason", "container_engine_root")


def test_an_engine_that_answers_is_named_with_its_version(tmp_path: Path) -> None:
    client = connect()
    version = client.version()["Version"]
    client.close()
    outcome = play("container_engine", tmp_path, FACTS)
    assert outcome.status == 0, outcome.output
    assert outcome.changed == 0
    assert outcome.facts["container_engine_answers"] is True
    assert outcome.facts["container_engine_reason"] == f"Docker Engine {version} answers"
    assert outcome.facts["container_engine_root"].startswith("/")


def test_images_of_a_name_and_all_containers_are_listed_if_wanted(tmp_path: Path) -> None:
    lists = ("container_engine_images", "container_engine_containers")
    client = connect()
    name = f"test-{uuid.uuid4().hex[:12]}"
    client.images.get(BASE).tag(name, "one")
    container = client.containers.create(f"{name}:one", labels={"of": "a test"})
    try:
        outcome = play("container_engine", tmp_path, lists, container_engine_images_named=name)
        assert outcome.status == 0, outcome.output
        [image] = outcome.facts["container_engine_images"]
        assert (image["Id"], image["RepoTags"]) == (container.image.id, [f"{name}:one"])
        [ours] = [one for one in outcome.facts["container_engine_containers"] if one["Id"] == container.id]
        assert (ours["ImageID"], ours["State"], ours["Labels"]["of"]) == (image["Id"], "created", "a test")
        assert play("container_engine", tmp_path, lists).facts == {fact: [] for fact in lists}
    finally:
        container.remove()
        client.images.remove(f"{name}:one")
        client.close()


def test_a_missing_socket_is_an_answer_with_its_cause(tmp_path: Path) -> None:
    outcome = play("container_engine", tmp_path, FACTS, {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert outcome.status == 0, outcome.output
    assert outcome.facts["container_engine_answers"] is False
    assert outcome.facts["container_engine_reason"].startswith(
        "no Docker engine answers: its socket does not exist"
    )
    assert outcome.facts["container_engine_root"] == ""


def test_an_address_where_nothing_listens_is_an_answer(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: a connection is refused
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        outcome = play("container_engine", tmp_path, FACTS, {"DOCKER_HOST": address})
    assert outcome.status == 0, outcome.output
    assert outcome.facts["container_engine_answers"] is False
    assert (
        outcome.facts["container_engine_reason"] == "no Docker engine answers: nothing listens at its address"
    )


def test_an_engine_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        outcome = play(
            "container_engine", tmp_path, FACTS, {"DOCKER_HOST": address}, container_engine_timeout=1
        )
    assert outcome.status == 0, outcome.output
    assert (
        outcome.facts["container_engine_reason"] == "no Docker engine answers: nothing came back within 1 s"
    )


def test_a_python_without_the_module_requests_is_an_answer(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    bare = str(tmp_path / "bare" / "bin" / "python")
    outcome = play("container_engine", tmp_path, FACTS, ansible_python_interpreter=bare)
    assert outcome.status == 0, outcome.output
    assert outcome.facts["container_engine_answers"] is False
    assert "python3-requests" in outcome.facts["container_engine_reason"]


def test_a_timeout_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    outcome = play("container_engine", tmp_path, container_engine_timeout="soon")
    assert outcome.status == 2
    assert "container_engine_timeout" in outcome.output
