"""Which commit a round runs, and how it comes to the worker: versions of every kind, and what is refused."""

from __future__ import annotations

import re
import shutil
import socket
import time
from pathlib import Path

import pytest
from checkouts import git
from role_support import Outcome, play

LOOPBACK = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
MISSING = "0123456789" * 4


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three commits: a tag of each kind on the first two, a branch on the second, and the last."""
    folder = tmp_path_factory.mktemp("checkout")
    git(folder, "init", "--quiet", "--initial-branch=main")
    for tag in (["light"], ["annotated", "--annotate", "--message=it has a commit of its own"], []):
        (folder / "text").write_text(tag[0] if tag else "last")
        git(folder, "add", "text")
        git(folder, "commit", "--quiet", "--message=one more")
        if tag:
            git(folder, "tag", *tag)
    git(folder, "branch", "study/one", "main~1")
    return folder


def find(folder: Path, repository: object, version: str = "HEAD", **more: object) -> Outcome:
    inputs = {"workflow_source_repository": str(repository), "workflow_source_version": version, **more}
    return play("workflow_source", folder, ("workflow_source_commit",), LOOPBACK, "preflight", **inputs)


def fetch(folder: Path, repository: object, commit: str, **more: object) -> Outcome:
    inputs = {
        "workflow_source_repository": str(repository),
        "workflow_source_commit": commit,
        "workflow_source_directory": str(folder / "source"),
    }
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    return play("workflow_source", folder, (), LOOPBACK | {"TMPDIR": str(temporary)}, **inputs, **more)


def test_nothing_stays_on_the_control_node_where_a_commit_cannot_be_packed(
    tmp_path: Path, checkout: Path
) -> None:
    said = fetch(tmp_path, checkout, MISSING, workflow_source_ship=True).output
    assert f"could not be fetched at {MISSING}" in said
    assert "fatal: update_ref failed" in said
    assert not list(tmp_path.glob("temporary/*.workflow_source"))
    assert (
        fetch(tmp_path, checkout, git(checkout, "rev-parse", "HEAD"), workflow_source_ship=True).status == 0
    )
    assert (tmp_path / "source" / "text").read_text() == "last"
    assert not list(tmp_path.glob("temporary/*.workflow_source"))


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    """It takes connections, and never answers: the control node says so, and so does the worker."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/lab.git"
        began = time.monotonic()
        asked = find(tmp_path, url, workflow_source_silence_seconds=2)
        fetched = fetch(tmp_path, url, MISSING, workflow_source_silence_seconds=2)
        assert time.monotonic() - began < 60
    assert f"{url} cannot be read: fatal:" in asked.refusal()
    assert "Operation too slow" in asked.output
    assert f"{url} could not be fetched" in fetched.output
    assert "Operation too slow" in fetched.output


@pytest.mark.parametrize(
    ("version", "meant"),
    [
        ("HEAD", "main"),
        ("light", "main~2"),
        ("annotated", "main~1"),
        ("study/one", "main~1"),
        ("{id}", "main~2"),
        ("{id:.7}", "main~2"),
    ],
)
def test_a_branch_a_tag_or_a_commit(tmp_path: Path, checkout: Path, version: str, meant: str) -> None:
    """A tag of its own kind too: what is run is the commit that it names."""
    commit = git(checkout, "rev-parse", meant)
    given = version.replace("{id:.7}", commit[:7]).replace("{id}", commit)
    found = find(tmp_path, checkout, given)
    assert found.facts["workflow_source_commit"] == commit, found.output


@pytest.mark.parametrize("version", [MISSING, MISSING[:7], "no-such-branch"])
def test_a_version_that_a_checkout_lacks_is_refused(tmp_path: Path, checkout: Path, version: str) -> None:
    """Before a machine is started."""
    said = find(tmp_path, checkout, version).refusal()
    assert f"workflow_source_version {version} does not exist in {checkout}" in said


def test_the_first_digits_of_a_commit_are_not_enough_for_a_server(tmp_path: Path, checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "main~1")
    url = f"file://{checkout}"
    assert "give a branch, a tag or a full commit id" in find(tmp_path, url, commit[:7]).refusal()
    assert find(tmp_path, url, commit).facts["workflow_source_commit"] == commit


def test_another_commit_than_the_one_asked_for_is_refused(tmp_path: Path, checkout: Path) -> None:
    """What is there already is not touched, whatever it is at."""
    git(tmp_path, "clone", "--quiet", str(checkout), "source")
    git(tmp_path / "source", "checkout", "--quiet", "light")
    wanted, there = git(checkout, "rev-parse", "main"), git(checkout, "rev-parse", "light")
    said = fetch(tmp_path, checkout, wanted).refusal()
    assert f"{tmp_path}/source is at {there} instead of {wanted}: remove the directory" in said


def test_without_a_repository_the_playbooks_own_is_sent(tmp_path: Path, checkout: Path) -> None:
    """Its last commit, whether or not anybody else has it; what is not committed stays, and that is said."""
    shutil.copytree(checkout, tmp_path / "lab")
    here = tmp_path / "lab" / "playbooks"
    here.mkdir()
    commit = git(here, "rev-parse", "HEAD")
    (tmp_path / "lab" / "text").write_text("not committed")
    found = find(here, "")
    assert found.facts["workflow_source_commit"] == commit, found.output
    words = re.sub(r"\s+", " ", found.output)
    assert f"{tmp_path}/lab has 2 changed or new files that are not committed" in words
    sent = fetch(here, "", commit)
    assert sent.status == 0, sent.output
    assert "Clone what the control node sends" in sent.output
    assert (here / "source" / "text").read_text() == "last"

    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    assert f"{nowhere} is in no git checkout" in find(nowhere, "").refusal()
