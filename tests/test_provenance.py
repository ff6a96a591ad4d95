"""The commit of a row is that of our own checkout, whatever git is told of others."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sslticket import provenance

GIT = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A checkout of another project, with one commit."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "file").write_text("theirs")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "theirs"]):
        subprocess.run([*GIT, "-C", str(folder), *words], check=True)
    return folder


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"])
def test_variables_that_name_another_checkout_change_no_commit(
    other: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if not (ours := provenance.git_commit.__wrapped__()):
        pytest.skip("not a checkout")
    place = {"GIT_WORK_TREE": other, "GIT_INDEX_FILE": other / ".git" / "index"}.get(name, other / ".git")
    monkeypatch.setenv(name, str(place))
    assert provenance.git_commit.__wrapped__() == ours


def test_an_environment_inside_another_checkout_has_not_its_commit(other: Path) -> None:
    shutil.copytree(Path(provenance.__file__).parent, other / "lib" / "sslticket")
    code = "from sslticket import provenance; print(provenance.__file__); print(provenance.git_commit())"
    told = subprocess.run([sys.executable, "-c", code], cwd=other / "lib", env={}, capture_output=True, text=True)
    place, commit = told.stdout.split("\n")[:2]
    assert place.startswith(str(other))
    assert commit == ""


def test_a_commit_counts_no_changes_of_what_is_named(other: Path) -> None:
    shutil.copytree(Path(provenance.__file__).parent, other / "sslticket")
    for words in (["add", "sslticket/provenance.py"], ["commit", "-q", "-m", "ours"]):
        subprocess.run([*GIT, "-C", str(other), *words], check=True)
    (other / "file").write_text("changed")
    code = (
        "from sslticket.provenance import git_commit\n"
        "for names in ((), ('file',), ('lib',)): print(git_commit(besides=names))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=other, env={}, capture_output=True, text=True, check=True)
    changed, named, others = told.stdout.split()
    assert changed == others == f"{named}+changes"
    assert len(named) == 12
