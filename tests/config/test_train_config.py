import math

import pytest

from sslticket.config.training import SGD, Clock, Span, TrainConfig, format_duration
from sslticket.errors import BadInput

IMAGENET = 1_281_167


@pytest.mark.parametrize(
    ("set_size", "batch_size", "length", "updates", "share"),
    [
        (1_280_000, 1536, "90ep", 2500, 0.033),
        (384_000, 1536, "200ep", 2500, 0.05),
        (128_000, 768, "200ep", 5000, 0.15),
        (12_800, 768, "1000ep", 5000, 0.30),
    ],
)
def test_the_papers_rewind_point_is_its_table_1(
    set_size: int, batch_size: int, length: str, updates: int, share: float
) -> None:
    clock = Clock(Span.parse(length), batch_size, set_size)
    rewind = Span.parse("3840000samples")
    assert clock.steps(rewind) == updates
    assert clock.samples(rewind) / clock.samples(clock.length) == pytest.approx(share, abs=0.0005)


def test_steps_reach_at_least_the_samples_and_no_step_more() -> None:
    clock = Clock(Span.parse("90ep"), 1536, IMAGENET)
    assert (clock.total_steps - 1) * 1536 < 90 * IMAGENET <= clock.total_steps * 1536
    assert Clock(Span.parse("0.1ep"), 100, 1000).total_steps == 1
    assert Clock(Span.parse("3ep"), 64, 10).total_steps == 1, "an epoch smaller than a batch still counts its samples"
    assert Clock(Span.parse("40it"), 16, 1000).steps(Span.parse("10%")) == 4


@pytest.mark.parametrize("text", ["90", "ep", "-3ep", "2.5it", "3epochs", "", "1e6samples"])
def test_what_is_no_length_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"must be like 90ep|can be fractions") as caught:
        Span.parse(text)
    assert "\n" not in str(caught.value)


def fit(**changes: object) -> TrainConfig:
    settings = {
        "length": "90ep",
        "batch_size": 1536,
        "optimizer": SGD(lr=1.0),
        "warmup": "5ep",
        "drops": ("50ep", "65ep", "80ep"),
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


def test_the_rate_rises_over_warmup_and_falls_by_ten_after_each_drop() -> None:
    at = fit().schedule(IMAGENET).lr_at
    assert at(2.5 * IMAGENET) == pytest.approx(0.5)
    assert at(5 * IMAGENET) == pytest.approx(1.0)
    assert at(50 * IMAGENET) == 1.0
    assert at(50 * IMAGENET + 1536) == pytest.approx(0.1)
    assert at(65.1 * IMAGENET) == pytest.approx(0.01)
    assert at(90 * IMAGENET) == pytest.approx(0.001)
    assert at(1536) > 0, "the first step is not lost"


@pytest.mark.parametrize(
    ("decay", "half_way"), [("cosine", 0.55), ("linear", 0.55), ("exponential", math.sqrt(1.0 * 0.1))]
)
def test_a_curve_leads_from_the_end_of_warmup_to_the_last_rate(decay: str, half_way: float) -> None:
    at = fit(drops=(), warmup="10ep", decay=decay, last_lr=0.1).schedule(IMAGENET).lr_at
    assert at(5 * IMAGENET) == pytest.approx(0.5)
    assert at(10 * IMAGENET) == pytest.approx(1.0)
    assert at(50 * IMAGENET) == pytest.approx(half_way, rel=1e-4)
    assert at(90 * IMAGENET) == pytest.approx(0.1, rel=1e-4)
    rates = [at(epoch * IMAGENET) for epoch in range(10, 91)]
    assert rates == sorted(rates, reverse=True)


def test_a_cosine_is_steepest_in_the_middle() -> None:
    at = fit(drops=(), warmup="0ep", decay="cosine").schedule(IMAGENET).lr_at
    assert at(22.5 * IMAGENET) == pytest.approx((1 + math.cos(math.pi / 4)) / 2, rel=1e-4)


def test_a_stretched_training_keeps_the_places_of_warmup_and_drops() -> None:
    short = fit().with_length("18it")
    assert short.length == "18it"
    at = short.schedule(1000).lr_at
    clock = short.clock(1000)
    assert at(1 * 1536) == pytest.approx(1.0), "5 of 90 epochs are 1 of 18 steps"
    assert [step for step in range(1, 19) if at(step * 1536) < at((step - 1) * 1536) and step > 1] == [11, 14, 17]
    assert clock.total_steps == 18


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 0},
        {"length": "10%"},
        {"drops": ("30",)},
        {"optimizer": SGD(lr=0.0)},
        {"decay": "cosine"},
        {"decay": "exponential", "drops": ()},
        {"decay": "linear", "drops": (), "last_lr": 1.0},
    ],
)
def test_a_training_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        fit(**changes)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")),
        (4.5 * 86_400, "4 d 12 h"),
    ],
)
def test_durations_are_told_to_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
