"""The role workflow_image: which images stay, and how a build that fails is told."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from image_support import BASE, COMMITS, connect, make, small_clone


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small_clone(tmp_path / "source")


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = connect()
    yield client
    client.close()


def test_old_images_go_but_one_in_use_stays(
    engine: docker.DockerClient, source: Path, tmp_path: Path
) -> None:
    """A container of a round that was never launched, or has died, does not count; one that runs does."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    of_a_round = {"labels": {"datajoint-round": "20260101T000000Z-0123456"}}
    made = []
    try:
        for commit, own in zip(COMMITS[:4], ({}, of_a_round, of_a_round, {}), strict=True):
            outcome = make(tmp_path, source, name=name, commit=commit, keep=1)
            assert outcome.status == 0, outcome.output
            made.append(engine.containers.create(f"{name}:{commit}", ["sleep", "600"], **own))
            if commit == COMMITS[2]:
                made[2].start()
        tags = {tag for image in engine.images.list(name) for tag in image.tags}
        assert tags == {f"{name}:{commit}" for commit in (COMMITS[0], COMMITS[2], COMMITS[3])}
        with pytest.raises(docker.errors.NotFound):
            made[1].reload()
    finally:
        for container in engine.containers.list(all=True, ignore_removed=True):
            if container in made:
                container.remove(force=True)
        for image in engine.images.list(name):
            engine.images.remove(image.tags[0])


def test_another_base_builds_again(engine: docker.DockerClient, source: Path, tmp_path: Path) -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    label = 'LABEL org.opencontainers.image.base.name="${BASE_IMAGE}"'
    (source / "Dockerfile").write_text(f"ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\nARG BASE_IMAGE\n{label}\n")
    engine.images.get(BASE).tag(name, "base")
    try:
        assert make(tmp_path, source, name=name).changed > 0
        replaced = engine.images.get(f"{name}:{COMMITS[0]}").id
        assert make(tmp_path, source, name=name, base=f"{name}:base").changed > 0
        labels = engine.images.get(f"{name}:{COMMITS[0]}").labels
        assert labels["org.opencontainers.image.base.name"] == f"{name}:base"
        with pytest.raises(docker.errors.ImageNotFound):
            engine.images.get(replaced)
        used = engine.containers.create(f"{name}:{COMMITS[0]}")
        assert make(tmp_path, source, name=name).changed > 0
        assert engine.images.get(used.image.id).tags == []
        used.remove()
        engine.images.remove(used.image.id)
    finally:
        engine.images.remove(f"{name}:{COMMITS[0]}")
        engine.images.remove(f"{name}:base")


@pytest.mark.parametrize(
    ("instructions", "said"),
    [
        ("FROM {BASE}\nRUN echo 'Error: a bad day' && exit 7", "exit status 7: Error: a bad day; mend"),
        ("FROM {BASE}\nRUN false", "step 2/2 (RUN false) failed: exit status 1: nothing was printed; mend"),
        ("FROM {BASE}\nCOPY nothing /", "step 2/2 (COPY nothing /) failed: COPY failed: file not found"),
        ("FROM {BASE}\nNONSENSE", "/Dockerfile: dockerfile parse error line 2: "),
        ("FROM 127.0.0.1:1/nothing:1", "step 1/1 (FROM 127.0.0.1:1/nothing:1) failed: "),
    ],
)
def test_a_dockerfile_that_fails_is_named_with_the_step_and_a_fix(
    engine: docker.DockerClient, source: Path, tmp_path: Path, instructions: str, said: str
) -> None:
    (source / "Dockerfile").write_text(instructions.format(BASE=BASE) + "\n")
    outcome = make(tmp_path, source, runtime="docker", name="test-fails")
    refusal = outcome.refusal()
    assert refusal.startswith(f"Action failed: The image could not be built from {source}/Dockerfile: ")
    assert said in refusal
    assert refusal.endswith(("run again.", "another in workflow_image_base."))
    assert not engine.images.list("test-fails")


def test_the_last_lines_of_a_failed_build_are_shown_without_credentials(
    engine: docker.DockerClient, source: Path, tmp_path: Path
) -> None:
    (source / "Dockerfile").write_text(
        f"FROM {BASE}\nRUN seq --format=printed%g 100 && echo at $HTTPS_PROXY && false\n"
    )
    proxy = {"HTTPS_PROXY": "http://someone:swordfish@127.0.0.1:1"}
    outcome = make(tmp_path, source, runtime="docker", name="test-fails", build_args=proxy)
    assert [f"printed{number}" in outcome.output for number in (50, 90, 100)] == [False, True, True]
    assert "exit status 1: at http://…@127.0.0.1:1;" in outcome.refusal()
    assert "swordfish" not in outcome.output


def test_a_full_disk_is_refused_before_building(
    engine: docker.DockerClient, source: Path, tmp_path: Path
) -> None:
    outcome = make(tmp_path, source, runtime="docker", name="test-full", minimum_free_mb=10**9)
    assert re.search(
        r"Only \d+ MB free on /.*; .* needs 1000000000 MB .*docker image prune\.$", outcome.refusal()
    )
    assert not engine.images.list("test-full")


def test_a_ca_bundle_that_cannot_be_copied_is_told(
    engine: docker.DockerClient, source: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.touch()
    (source / "ca-bundle.crt").mkdir()
    refusal = make(tmp_path, source, runtime="docker", name="test-fails", ca_bundle=str(bundle)).refusal()
    assert f"install: cannot overwrite directory '{source}/ca-bundle.crt'" in refusal
    assert refusal.endswith("read what workflow_image_ca_bundle names, and write into its clone.")
    assert not engine.images.list("test-fails")
