"""What processes compare before the first step, and how a difference is told."""

from pathlib import Path
from typing import Any

import pytest

from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.training.engine import (
    Engine,
    Invariant,
    first_mismatch,
    flag_invariant,
    program_invariants,
    runtime_invariants,
)

FIX = "--data-root must show the same images to all"


def images(count: int) -> Invariant:
    return Invariant(f"sees {count:,} training images", FIX)


def test_processes_that_say_the_same_differ_in_nothing() -> None:
    assert first_mismatch([{"seed": flag_invariant("seed", 1), "images": images(5)}] * 3) is None


def test_all_that_say_the_same_otherwise_are_named() -> None:
    told = [{"images": images(count)} for count in (1437, 1437, 1337, 12, 1337)]
    assert (
        first_mismatch(told)
        == f"process 2 (and 4) sees 1,337 training images, and process 0 sees 1,437 training images; {FIX}"
    )


def test_what_comes_first_is_told_first() -> None:
    told = [
        {"seed": flag_invariant("subset_by", by), "images": images(count)}
        for by, count in (("random", 5), ("classes", 4))
    ]
    assert first_mismatch(told) == (
        "process 1 has --subset-by classes, and process 0 has --subset-by random; give the same flags to every process"
    )


def test_what_one_side_lacks_is_told() -> None:
    fact = Invariant("has timm 1.0", "install it")
    assert first_mismatch([{"timm": fact}, {}]) == "process 1 has no timm, and process 0 has timm 1.0; install it"
    assert first_mismatch([{}, {"timm": fact}]) == "process 1 has timm 1.0, and process 0 has no timm; install it"


def test_where_images_lie_and_how_they_are_read_may_differ_and_how_is_computed_may_not() -> None:
    def odd(**given: Any) -> bool:
        settings = [runtime_invariants(RuntimeConfig()), runtime_invariants(RuntimeConfig(**given))]
        return first_mismatch(settings) is not None

    own = {
        "data_root": Path("a"),
        "threads": 3,
        "max_bad_images": 7,
        "tensorboard": True,
        "log": ("mlflow",),
        "timeout": 2.0,
    }
    assert not odd(**own)
    assert odd(accumulate=2)
    assert odd(channels_last=True)
    assert odd(compile=True)
    assert odd(probe="10it")


def test_the_code_is_known_by_its_content() -> None:
    facts = program_invariants()
    assert facts == program_invariants()
    assert len(facts["code"].description.removeprefix("runs code with the hash ")) == 16
    assert facts["torch"].description.startswith("has torch 2.")


def test_a_file_that_is_not_there_is_named_with_who_misses_it(tmp_path: Path) -> None:
    bench = Engine.create(RuntimeConfig(), "fp32")
    bench.wait_for_file(tmp_path)
    with pytest.raises(BadInput, match="ticket is not visible to process 0; give --out on a shared folder"):
        bench.wait_for_file(tmp_path / "ticket")
