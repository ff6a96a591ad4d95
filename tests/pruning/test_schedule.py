"""How many weights a level keeps, for separate rates, layers on their own, and a minimum in each layer."""

import json
from pathlib import Path

import pytest
import torch

from sslticket import models
from sslticket.config.recipe import Data
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, Clock, Span, TrainConfig
from sslticket.errors import BadInput
from sslticket.pruning.effective_sparsity import effective_mask
from sslticket.pruning.mask import Mask, SparsitySchedule
from sslticket.results.rows import row_error
from sslticket.search.imp import IMP
from sslticket.search.plan import plan_search
from sslticket.ticket import Ticket
from tests.runs import BATCH, recipe, search, tickets

CLOCK = Clock(Span.parse("40it"), 16, 1000)
CONV6 = {  # shapes of Conv-6 on 8-pixel grey images
    **{f"conv{n}": (out, inward, 3, 3) for n, (inward, out) in enumerate(((1, 64), (64, 64), (64, 128), (128, 128)))},
    "fc1": (256, 256),
    "fc2": (256, 256),
}


def ones(shapes: dict[str, tuple[int, ...]]) -> Mask:
    return Mask({name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()})


def scores(mask: Mask) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Linear weights are smaller, as in a real network: ranked with the convolutions' they would go first.
    return {
        name: torch.rand(layer.shape, generator=generator) * (0.1 if layer.dim() == 2 else 1)
        for name, layer in mask.items()
    }


def test_each_kind_of_layer_loses_its_own_share_of_its_own_total() -> None:
    """Continuous Sparsification, section 4.1: 15% of Conv-6's convolutions and 20% of its linear weights a round."""
    mask = dense = ones(CONV6)
    rule, given = SparsitySchedule(rate=0.15, linear_rate=0.2), scores(dense)
    for level in range(1, 11):
        smaller = rule.select(given, level, mask)
        counts = smaller.layer_counts()
        linear, convolutions = (
            sum(counts[name][0] for name in CONV6 if name.startswith(kind)) for kind in ("fc", "conv")
        )
        total = sum(layer.numel() for name, layer in dense.items() if name.startswith("conv"))
        assert convolutions == round(total * 0.85**level)
        assert linear == round(2 * 65_536 * 0.8**level)
        assert smaller.survivors == rule.num_kept(dense, level)
        assert smaller.is_subset_of(mask)
        mask = smaller


def test_with_one_rate_for_both_small_linear_weights_go_first() -> None:
    dense = ones(CONV6)
    counts = SparsitySchedule(rate=0.2).select(scores(dense), 1, dense).layer_counts()
    assert counts["fc1"][0] < 0.6 * 65_536


def test_conv6_finds_tickets_with_separate_rates(tmp_path: Path) -> None:
    which = recipe(
        model="conv6",
        training=TrainConfig(length="2it", batch_size=BATCH, optimizer=SGD(lr=0.01)),
        search=IMP(levels=1, rate=0.15, linear_rate=0.2, rewind="1it"),
    )
    counts = tickets(search(tmp_path, which))[1].mask.layer_counts()
    linear = [counts[name] for name in counts if name.startswith("classifier")]
    convolutions = [counts[name] for name in counts if name.startswith("features")]
    assert sum(kept for kept, _ in linear) == round(0.8 * sum(total for _, total in linear))
    assert sum(kept for kept, _ in convolutions) == round(0.85 * sum(total for _, total in convolutions))


def test_layers_on_their_own_have_the_rate_of_their_kind_and_their_minimum() -> None:
    dense = ones({"conv0": (10, 2, 1, 1), "conv1": (100, 2, 1, 1), "fc": (10, 30)})
    rule = SparsitySchedule(rate=0.5, linear_rate=0.9, scope="layer", min_per_layer=4)
    for level, kept in ((1, [10, 100, 30]), (3, [4, 25, 4]), (9, [4, 4, 4])):
        counts = rule.select(scores(dense), level, dense).layer_counts()
        assert [left for left, _ in counts.values()] == kept
        assert rule.num_kept(dense, level) == sum(kept)


def test_a_layer_on_its_own_keeps_its_highest_scores() -> None:
    given = {"a": torch.arange(10.0), "b": 100 + torch.arange(20.0)}
    drawn = SparsitySchedule(rate=0.7, scope="layer").select(given, 1, ones({"a": (10,), "b": (20,)}))
    assert drawn.layer_counts() == {"a": (3, 10), "b": (6, 20)}
    assert drawn["a"].nonzero().flatten().tolist() == [7, 8, 9]


def test_the_plan_tells_what_the_tickets_keep(tmp_path: Path) -> None:
    for rule in (IMP(levels=2, rate=0.5, rewind="1it", scope="layer", min_per_layer=50), IMP(levels=2, rewind="1it")):
        planned = search(tmp_path, recipe(search=rule))
        assert planned.stages.survivors == tuple(ticket.mask.survivors for ticket in tickets(planned))


def test_a_minimum_saves_the_layer_that_would_vanish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def found(**settings: int) -> Mask:
        # In a narrow layer with small weights none is among the largest 0.04%.
        rule = IMP(levels=1, rate=0.9996, rewind="1it", **settings)  # type: ignore[arg-type]
        return tickets(search(tmp_path, recipe(search=rule, data=Data(dataset="digits"))))[1].mask

    plain = found()
    said = capsys.readouterr().err
    names = [name.removesuffix(".weight") for name in plain.empty_layers]
    assert names, "the test needs a layer that vanishes"
    assert f"level 1: at density 0.043% no weight is left in {', '.join(names)}; --min-per-layer 1 keeps" in said
    kept = found(min_per_layer=2)
    assert "no weight is left" not in capsys.readouterr().err
    assert kept.survivors == plain.survivors == 6
    assert min(left for left, _ in kept.layer_counts().values()) >= 2


def test_a_search_says_where_its_weights_no_longer_meet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A weight or two in each layer of conv3 and no path; at 30% nearly all are on one, and nothing is said."""
    rule = IMP(levels=2, rate=0.7, rewind="1it", min_per_layer=1)
    fine = search(tmp_path, recipe(search=rule))
    assert "path" not in capsys.readouterr().err
    rule = IMP(levels=9, rate=0.5, rewind="1it")
    thinned = search(tmp_path, recipe(search=rule))
    said = capsys.readouterr().err
    rows = [json.loads(thinned.run_dir.row_path(level).read_text()) for level in range(10)]
    thin = [row["level"] for row in rows if row["effective_density"] < row["density"] / 2]
    assert rows[thin[0]]["effective_density"] > 0, "the test needs a level with less than half"
    assert said.count("of the weights are on a path to the features") == 1
    assert f"level {thin[0]}: at density {rows[thin[0]]['density']:.3%} only" in said
    rule = IMP(levels=1, rate=0.9996, rewind="1it", min_per_layer=2)
    cut = search(tmp_path, recipe(search=rule))
    said = capsys.readouterr().err
    at = "level 1: at density 0.043% no path leads from the image to the features, so nothing can be learned"
    assert f"{at}; give fewer --levels or --scope layer" in said
    for planned in (fine, cut):
        for ticket in tickets(planned):
            row = json.loads(planned.run_dir.row_path(ticket.level).read_text())
            assert row_error(row) is None
            net = models.create_model("conv3", channels=1, image_size=8)
            alive = effective_mask(net, ticket.mask, channels=1, image_size=8)
            assert row["effective_density"] == alive.survivors / ticket.mask.total
    assert row["effective_density"] == 0


def test_networks_that_no_mask_thins_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"masks do not act in test_nfnet: at a density of 10% .* give a --model"):
        plan_search(
            recipe(model="test_nfnet", data=Data(dataset="digits", image_size=64)), RuntimeConfig(), tmp_path / "runs"
        )
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_tells_the_density_over_all_parameters(tmp_path: Path) -> None:
    """conv3 on gray images has 13,968 prunable weights, and 240 in biases and batch norm."""
    text = plan_search(recipe(search=IMP(levels=1, rate=0.5, rewind="1it")), RuntimeConfig(), tmp_path).describe()
    told = "14,208 in the backbone, 98.31% of them in the masks; over all of them level 1 has a density of 50.845%"
    assert told in text


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"rate": 1.0}, r"--rate must be in \(0, 1\), got 1; give"),
        ({"linear_rate": 0.0}, r"--linear-rate must be in \(0, 1\), got 0; give"),
        ({"min_per_layer": -1}, "--min-per-layer must be at least 0, got -1; give 0 or more"),
        ({"retrain": "again"}, "--retrain must be rewind, rate or finetune, got 'again'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, float], answer: str) -> None:
    with pytest.raises(BadInput, match=answer):
        IMP(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        # 1,000 weights in two layers: level 4 keeps 62, level 3 125.
        (
            {"levels": 4, "min_per_layer": 40},
            "level 4 keeps 62 of 1,000 weights, and --min-per-layer 40 needs 80 in 2 layers; "
            "give --levels 3 or less, or --min-per-layer 31 or less",
        ),
        (
            {"levels": 9, "linear_rate": 0.9},
            "9 levels at rate 0.9 leave none of 200 linear weights; give --levels 2 or less",
        ),
    ],
)
def test_a_density_that_cannot_be_reached_is_refused(settings: dict[str, int], answer: str) -> None:
    dense = ones({"conv": (80, 10, 1, 1), "fc": (10, 20)})
    with pytest.raises(BadInput, match=answer):
        IMP(rate=0.5, rewind="1it", **settings).stages(CLOCK, dense)  # type: ignore[arg-type]
    assert IMP(rate=0.5, rewind="1it", levels=4, min_per_layer=31).stages(CLOCK, dense).levels == 4


def test_a_rate_for_linear_layers_needs_both_kinds() -> None:
    rule = IMP(rate=0.5, linear_rate=0.2, levels=1, rewind="1it")
    for shapes, lacking in (({"fc": (10, 20)}, "convolution"), ({"conv": (8, 8, 1, 1)}, "linear layer")):
        with pytest.raises(BadInput, match=f"no {lacking} may be pruned; leave it out"):
            rule.stages(CLOCK, ones(shapes))  # type: ignore[arg-type]


def test_a_search_of_other_layers_is_not_gone_on_with(tmp_path: Path) -> None:
    """As those of networks whose attention earlier versions left dense."""
    rule = IMP(levels=1, rate=0.5, rewind="1it")
    path = search(tmp_path, recipe(search=rule)).run_dir.ticket_path(0)
    ticket = Ticket.load(path)
    fewer = ticket.mask.restrict(list(ticket.mask)[1:])
    Ticket.from_dense_weights(fewer, ticket.weights, level=0, recipe=ticket.recipe, provenance=ticket.provenance).save(
        path
    )
    with pytest.raises(BadInput, match=r"level-00.safetensors has a mask of other layers .* give another --out"):
        search(tmp_path, recipe(search=rule))
