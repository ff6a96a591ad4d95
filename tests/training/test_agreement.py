"""What processes compare before the first step, and how a difference is told."""

from pathlib import Path

import pytest

from sslticket.errors import BadInput
from sslticket.machine import Machine
from sslticket.training.agreement import Fact, difference, flag, program, settings
from sslticket.training.workbench import Workbench

FIX = "--data-root must show the same images to all"


def images(count: int) -> Fact:
    return Fact(f"sees {count:,} training images", FIX)


def test_processes_that_say_the_same_differ_in_nothing() -> None:
    assert difference([{"seed": flag("seed", 1), "images": images(5)}] * 3) is None


def test_all_that_say_the_same_otherwise_are_named() -> None:
    told = [{"images": images(count)} for count in (1437, 1437, 1337, 12, 1337)]
    assert (
        difference(told)
        == f"process 2 (and 4) sees 1,337 training images, and process 0 sees 1,437 training images; {FIX}"
    )


def test_what_comes_first_is_told_first() -> None:
    told = [{"seed": flag("subset_by", by), "images": images(count)} for by, count in (("random", 5), ("classes", 4))]
    assert difference(told) == (
        "process 1 has --subset-by classes, and process 0 has --subset-by random; give the same flags to every process"
    )


def test_what_one_side_lacks_is_told() -> None:
    fact = Fact("has timm 1.0", "install it")
    assert difference([{"timm": fact}, {}]) == "process 1 has no timm, and process 0 has timm 1.0; install it"
    assert difference([{}, {"timm": fact}]) == "process 1 has timm 1.0, and process 0 has no timm; install it"


def test_where_images_lie_and_how_they_are_read_may_differ_and_how_is_computed_may_not() -> None:
    def odd(**given: object) -> bool:
        return difference([settings(Machine()), settings(Machine(**given))]) is not None  # type: ignore[arg-type]

    own = {"data_root": Path("a"), "threads": 3, "max_bad_images": 7, "tensorboard": True, "timeout": 2.0}
    assert not odd(**own)
    assert odd(accumulate=2)
    assert odd(channels_last=True)
    assert odd(compile=True)
    assert odd(probe="10it")


def test_the_code_is_known_by_its_content() -> None:
    facts = program()
    assert facts == program()
    assert len(facts["code"].says.removeprefix("runs code with the hash ")) == 16
    assert facts["torch"].says.startswith("has torch 2.")


def test_a_file_that_is_not_there_is_named_with_who_misses_it(tmp_path: Path) -> None:
    bench = Workbench.on(Machine(), "fp32")
    bench.shared(tmp_path)
    with pytest.raises(BadInput, match="ticket is not visible to process 0; give --out on a shared folder"):
        bench.shared(tmp_path / "ticket")
