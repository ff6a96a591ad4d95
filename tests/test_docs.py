"""The pages on objectives and learnt masks say what the code does: every setting with its default, no dead link."""

import dataclasses
import re
from pathlib import Path

import pytest

import sslticket
from sslticket.config.recipe_files import published_recipes
from sslticket.objectives.base import Objective
from sslticket.objectives.s4l import S4L
from sslticket.pruning.criteria import Criterion
from sslticket.search.base import Search

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.stem: path for path in (DOCS / "objectives").glob("*.md")}
OBJECTIVES = [
    found
    for name in sslticket.__all__
    if isinstance(found := getattr(sslticket, name), type) and issubclass(found, Objective) and found is not Objective
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.__name__)
def test_a_page_lists_every_setting_with_its_default(objective: type[Objective]) -> None:
    name = "s4l" if issubclass(objective, S4L) else objective.__name__.lower()
    text = PAGES[name].read_text()
    listed = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", text, re.MULTILINE)
    for field in dataclasses.fields(objective):  # type: ignore[arg-type]
        default = str(field.default)
        if dataclasses.is_dataclass(field.default):
            changed = [
                f"{each.name}={getattr(field.default, each.name)!r}"
                for each in dataclasses.fields(field.default)
                if getattr(field.default, each.name) != each.default
            ]
            default = f"{type(field.default).__name__}({', '.join(changed)})"
        assert (field.name, default) in listed


def test_the_criteria_page_lists_every_setting_with_its_default() -> None:
    found = {name: getattr(sslticket, name) for name in sslticket.__all__}
    criteria = {
        name: each
        for name, each in found.items()
        if isinstance(each, type) and issubclass(each, Criterion) and dataclasses.is_dataclass(each)
    }
    text = (DOCS / "criteria.md").read_text()
    listed = {
        (name, field, default)
        for field, names, default in re.findall(r"^\| `(\w+)` \| (.*?) \| `(.*?)` \|", text, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    fields = {
        (name, each.name, str(each.default)) for name, one in criteria.items() for each in dataclasses.fields(one)
    }
    assert listed == fields
    assert all(f"| `{name}()` |" in text for name in criteria)


def test_dynamic_sparse_training_lists_every_setting_with_both_defaults() -> None:
    listed = re.findall(r"^\| `(\w+)` \| `(.*?)` \| `(.*?)` \|", (DOCS / "dynamic-sparse.md").read_text(), re.MULTILINE)
    shared = {field.name for field in dataclasses.fields(Search)}
    both = zip(dataclasses.fields(sslticket.RigL), dataclasses.fields(sslticket.SET), strict=True)
    defaults = [(one.name, str(one.default), str(other.default)) for one, other in both if one.name not in shared]
    assert sorted(listed) == sorted(defaults)


@pytest.mark.parametrize("name", ["ContinuousSparsification", "StochasticSparsification", "EdgePopup", "MaskTraining"])
def test_learnt_masks_list_every_setting_with_its_default(name: str) -> None:
    section = (DOCS / "learnt-masks.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", section, re.MULTILINE)
    shared = {field.name for field in dataclasses.fields(Search)}
    fields = [field for field in dataclasses.fields(getattr(sslticket, name)) if field.name not in shared]
    assert sorted(listed) == sorted((field.name, str(field.default)) for field in fields)


@pytest.mark.parametrize(
    "page",
    [*(DOCS / f"{name}.md" for name in ("criteria", "dynamic-sparse", "learnt-masks", "objectives")), *PAGES.values()],
    ids=lambda page: page.stem,
)
def test_links_and_recipes_are_there(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for name in re.findall(r"`(\w+_(?:resnet50|alexnet|digits|vgg19_cifar10|resnet18_cifar10)\w*)`", text):
        assert name in published_recipes(), name


def test_the_page_of_imp_lists_every_setting_with_its_flag_and_default() -> None:
    page = (DOCS / "imp.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \|", page, re.MULTILINE)
    for field in dataclasses.fields(sslticket.IMP):
        flag = f"`--{field.name.replace('_', '-')}`"
        default = "`Magnitude()`" if field.name == "criterion" else str(field.default or "none")
        default = "0" if field.default == 0 else "none" if field.default == () else default
        assert (field.name, flag, default) in listed


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_files_of_the_project_that_a_page_names_are_there(page: Path) -> None:
    others = r"In `models/base.py`|`OPEN_LTH` names a clone.*?as it is\."  # files of another project, in docs/speed.md
    text = re.sub(others, "", page.read_text(), flags=re.DOTALL)
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]+\.(?:py|toml|csv|md))[:`]", text):
        top = name.split("/")[0]
        if (ROOT / top).is_dir():
            assert (ROOT / name).exists() or (ROOT / "sslticket" / name).exists(), name
        elif (ROOT / "sslticket" / top).is_dir():
            assert (ROOT / "sslticket" / name).exists(), name
