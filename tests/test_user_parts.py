"""Parts of users: found by name, loaded from their files, recorded with a hash, never run because a file names them."""

import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslticket import registry
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective
from sslticket.registry import Registry

BASE = "sslticket.objectives.base:Objective"
MINE = """
import dataclasses
import numbers_beside
from sslticket.objectives.rotnet import RotNet

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(RotNet):
    strength: int = numbers_beside.STRENGTH
"""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSLTICKET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_user_modules", {})
    path = list(sys.path)
    yield
    assert sys.path == path, "the folder is on the path only while a file is loaded"
    sys.modules.pop("numbers_beside", None)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "numbers_beside.py").write_text("STRENGTH = 7\n")
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def objectives() -> Registry[type[Objective]]:
    return Registry("objective", {"RotNet": "sslticket.objectives.rotnet:RotNet"}, base=BASE)


def test_built_in_parts_are_imported_when_asked_for() -> None:
    unused = Registry[object]("objective", {"Gone": "no_such_module:Gone"})
    assert unused.names() == ["Gone"]
    assert objectives().get("RotNet").__name__ == "RotNet"


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"unknown objective 'RotNett'; did you mean RotNet\?"):
        objectives().get("RotNett")


def test_a_part_of_a_file_is_found_and_named(mine: Path) -> None:
    found = objectives()
    part = found.get(f"{mine}:Mine")
    assert dataclasses.fields(part)[-1].default == 7  # type: ignore[arg-type]
    assert found.name_of(part) == found.name_of(part()) == "mine.py:Mine"
    assert found.name_of(found.get("RotNet")()) == "RotNet"
    assert not list(mine.parent.rglob("*.pyc") and mine.parent.glob("__pycache__/mine*"))
    with pytest.raises(BadInput, match=r"unknown objective in .*mine\.py 'Mines'; did you mean Mine"):
        found.get(f"{mine}:Mines")


def test_what_is_of_another_kind_is_refused(mine: Path) -> None:
    mine.write_text("class Mine: pass\n")
    with pytest.raises(
        BadInput, match=r"must be of the class sslticket\.objectives\.base\.Objective to be an objective"
    ):
        objectives().get(f"{mine}:Mine")


def test_a_file_is_loaded_once_and_anew_when_it_has_changed(mine: Path) -> None:
    first = registry.load_user_file(mine)
    assert registry.load_user_file(mine.parent / "." / "mine.py") is first
    mine.write_text(MINE + "more = 1\n")
    assert registry.load_user_file(mine).more == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a = 1\nb = a / 0\n", r"division by zero \(line 2\)"),
        ("raise SystemExit(1)\n", "it ends the program"),
        ("a = (\n", "was never closed"),
    ],
)
def test_a_file_that_cannot_be_imported_says_where(mine: Path, text: str, complaint: str) -> None:
    mine.write_text(text)
    with pytest.raises(BadInput, match=complaint):
        registry.load_user_file(mine)


def test_an_entry_point_of_an_installed_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    point = EntryPoint("turning", "sslticket.objectives.rotnet:RotNet", "sslticket.objective")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: EntryPoints([point]).select(group=group))
    found = Registry[type[Objective]]("objective", {}, base=BASE)
    assert found.get("turning").__name__ == "RotNet"
    with pytest.raises(BadInput, match="did you mean turning"):
        found.get("turnin")


def test_a_registered_part_has_its_name_and_takes_none_of_ours() -> None:
    found = objectives()

    @found.register()
    class Mine:
        pass

    assert found.get("Mine") is Mine  # type: ignore[comparison-overlap]
    with pytest.raises(BadInput, match="must be new, got 'RotNet'"):
        found.register("RotNet")(Mine)


def test_what_is_built_in_requires_no_parts() -> None:
    from tests.recipes import load

    assert registry.required_parts(load("rotnet_resnet50")) == {}


def test_a_recorded_part_is_loaded_again_only_where_it_was_run_and_is_unchanged(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = registry.load_user_file(mine).Mine
    recorded = registry.required_parts([part()])
    assert list(recorded) == [f"{mine}:Mine"]
    assert len(recorded[f"{mine}:Mine"]) == 16
    assert registry.load_recorded_parts(recorded) == {"Mine": part}

    def another_command() -> None:
        monkeypatch.setattr(registry, "_user_modules", {})

    another_command()
    with pytest.raises(BadInput, match=r"has not been run by you here; give --parts .*mine\.py"):
        registry.load_recorded_parts(recorded)
    registry.remember_parts(recorded)
    assert registry.load_recorded_parts(recorded)["Mine"].__name__ == "Mine"
    another_command()
    mine.write_text(MINE + "# later\n")
    with pytest.raises(BadInput, match="has changed since; give --parts"):
        registry.load_recorded_parts(recorded)
    registry.load_user_file(mine)  # what --parts does
    assert registry.load_recorded_parts(recorded)["Mine"].__name__ == "Mine"
    another_command()
    mine.unlink()
    with pytest.raises(BadInput, match="is not there; give its file with --parts"):
        registry.load_recorded_parts(recorded)


def test_a_part_of_a_notebook_is_asked_for() -> None:
    space: dict[str, object] = {"__name__": "a_notebook"}
    exec("class Mine: pass", space)
    recorded = registry.required_parts(space["Mine"])
    assert recorded == {"<interactive>:Mine": ""}
    with pytest.raises(BadInput, match="was defined in a notebook or a shell; save it in a file"):
        registry.load_recorded_parts(recorded)


def test_a_file_that_was_imported_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "imported.py"
    path.write_text("class Mine: ...\n")
    spec = importlib.util.spec_from_file_location("imported", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "imported", module)
    spec.loader.exec_module(module)
    assert registry.load_user_file(path) is module
    assert registry.loaded_part("Mine", path) is module.Mine
    path.write_text("class Mine: ...\n# changed\n")
    assert registry.load_user_file(path) is not module
