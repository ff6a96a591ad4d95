"""Trials choose kernels by what they measure; a choice is written before anything is trained, repeated, and told."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sslticket.analysis.trained_weights import Stability
from sslticket.config.runtime import RuntimeConfig
from sslticket.data.augment import View
from sslticket.data.loader import Batch, MemoryLoader
from sslticket.data.source import open_split
from sslticket.errors import BadInput
from sslticket.evaluation.protocols import Protocol
from sslticket.objectives.barlowtwins import BarlowTwins
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import innermost, pruned_model, sparse_layers
from sslticket.pruning.compaction import Compaction, is_compact
from sslticket.pruning.criteria import SNIP
from sslticket.pruning.mask import Mask
from sslticket.search.imp import IMP
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.training import engine as engines
from sslticket.training import numerics
from sslticket.training import trial as trials
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork, measure_metrics
from sslticket.training.numerics import Numerics
from sslticket.training.progress import Progress
from sslticket.training.trial import Kernels, Trial, computing_with, dense_layers
from tests.runs import BATCH, STEPS, recipe, search, tickets
from tests.search.test_killed import files, told
from tests.training.test_snapshots import stopped_every

LAYERS = ("features.4.weight", "features.8.weight")  # of conv3's three; trials of these tests choose them


def build() -> MaskedNetwork:
    return MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=3)


def digits(count: int) -> Batch:
    source = open_split("digits", "train")
    loader = Engine.create(RuntimeConfig(), "fp32").make_loader(
        source, (View(size=8),), batch_size=count, order=1, augment=2
    )
    (batch,) = loader.train(0, 1)
    return batch


def sparse_mask(network: MaskedNetwork, density: float = 0.2) -> Mask:
    dense = pruned_model.current_mask(network.backbone)
    drawn = torch.Generator().manual_seed(0)
    return Mask({name: torch.rand(layer.shape, generator=drawn) < density for name, layer in dense.items()})


def killing_mask(network: MaskedNetwork) -> Mask:
    """A sparse mask under which every second channel has no weight that leads to it."""
    mask = sparse_mask(network)
    for layer in mask.values():
        layer[::2], layer[1::2, 0] = False, True
    return mask


class Clock:
    """Seconds that passes take as a test says, whatever they take.

    Args:
        contiguous: Seconds of a pass in that layout.
        channels_last: Seconds of a pass in the other.
        innermost: What these are multiplied by where images lie innermost.
        compact: What they are multiplied by where channels are left out.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        contiguous: float,
        channels_last: float,
        innermost: float = 1.0,
        compact: float = 1.0,
    ) -> None:
        self.now, self.seconds, self.passes = 0.0, {False: contiguous, True: channels_last}, 0
        monkeypatch.setattr(trials, "_clock", lambda: self.now)
        whole = trials._Pass.__call__

        def run(one: Any) -> None:
            whole(one)
            self.passes += 1
            factors = innermost if one.kernels.images_innermost else 1, compact if one.kernels.left_out else 1
            self.now += self.seconds[one.kernels.channels_last] * factors[0] * factors[1]

        monkeypatch.setattr(trials._Pass, "__call__", run)


@pytest.mark.parametrize(
    ("contiguous", "channels_last", "chosen"), [(2.0, 1.0, True), (1.05, 1.0, False), (1, 2, False)]
)
def test_the_layout_is_the_faster_one_by_a_tenth(
    contiguous: float, channels_last: float, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, contiguous, channels_last)
    accelerator = Engine.create(RuntimeConfig(), "fp32").accelerator
    trial = Trial(build=build, mask=None, batch=digits(16), layouts=(False, True), compile_for=0)
    before = torch.random.get_rng_state()
    assert trial.choose(accelerator) == (Kernels(channels_last=chosen), "")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert clock.passes == 9, "one to warm up and three rounds of each, and one to see that the other layout works"


class Views(torch.nn.Module):
    """What a user's network may do that knows images in the usual layout alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(len(x), -1)


def test_a_network_that_knows_one_layout_stays_in_it() -> None:
    def views() -> MaskedNetwork:
        network = build()
        network.backbone.features.append(Views())
        return network

    trial = Trial(build=views, mask=None, batch=digits(16), layouts=(False, True), compile_for=0)
    assert trial.choose(Engine.create(RuntimeConfig(), "fp32").accelerator) == (Kernels(), "")


def test_layers_that_gain_are_sparse_in_the_trial_of_each_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_layers, "faster_sparse_layers", lambda *_, **__: list(LAYERS))
    Clock(monkeypatch, 1.0, 2.0)
    network = build()
    trial = Trial(build=build, mask=sparse_mask(network), batch=digits(16), layouts=(False, True), compile_for=0)
    chosen, _ = trial.choose(Engine.create(RuntimeConfig(), "fp32").accelerator)
    assert chosen == Kernels(sparse=LAYERS, layers=3)
    assert str(chosen) == "2 of 3 layers sparse"
    assert str(replace(chosen, channels_last=True)) == "channels-last; 2 of 3 layers sparse"
    assert str(Kernels()) == ""


@pytest.mark.parametrize(("seconds", "chosen"), [(0.9, True), (0.95, False)])
def test_images_lie_innermost_where_that_is_faster_by_a_tenth(
    seconds: float, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_layers, "faster_sparse_layers", lambda *_, **__: list(LAYERS))
    Clock(monkeypatch, 1.0, 2.0, seconds)
    trial = Trial(build=build, mask=sparse_mask(build()), batch=digits(16), layouts=(False,), compile_for=0)
    found, _ = trial.choose(Engine.create(RuntimeConfig(), "fp32").accelerator)
    # With the same layers sparse, or with all, whichever the clock finds faster.
    assert replace(found, sparse=LAYERS) == Kernels(sparse=LAYERS, layers=3, images_innermost=chosen)
    assert str(replace(found, sparse=LAYERS)) == "images innermost; " * chosen + "2 of 3 layers sparse"


@pytest.mark.parametrize(("seconds", "float32"), [(0.5, True), (2.0, False)])
def test_fast_trainings_leave_bfloat16_where_it_is_slower(
    seconds: float, float32: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, 1.0, 1.0)
    whole = trials._Pass.__call__
    types: set[torch.dtype] = set()

    def run(one: Any) -> None:
        whole(one)
        if not one._accelerator.native_amp:
            clock.now += seconds - 1.0

    monkeypatch.setattr(trials._Pass, "__call__", run)
    monkeypatch.setattr(sparse_layers, "faster_sparse_layers", lambda *_, **__: [])
    engine, network, path = Engine.create(RuntimeConfig(fast=True, threads=1), "bf16"), build(), tmp_path / "a.json"
    loader = engine.make_loader(open_split("digits", "train"), (View(size=8),), batch_size=16, order=1, augment=2)
    kernels = engine.choose_kernels(path, network, build, lambda: loader, recipe().training, trials.TRIAL_FROM_STEPS)
    assert kernels == Kernels.read(path)
    assert kernels.float32 == float32
    assert ("float32" in str(kernels)) == float32
    network.backbone.register_forward_hook(lambda _, given, output: types.add(output.dtype))
    with engine.prepare(network, 1, recipe().training, kernels) as wrapped:
        wrapped(digits(16), 0.0)
        measure_metrics(engine.accelerator, network, loader)
        later = engine.choose_kernels(
            tmp_path / "b.json", network, build, lambda: loader, recipe().training, 200, earlier=kernels
        )
    assert types == {torch.float32 if float32 else torch.bfloat16}
    assert later.float32 == float32, "all levels of a search compute alike"
    assert engine.accelerator.native_amp


def test_code_that_cannot_be_compiled_is_said_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(network: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(trials, "compile_network", fail)
    Clock(monkeypatch, 1.0, 1.0)
    trial = Trial(build=build, mask=None, batch=digits(16), layouts=(False,), compile_for=600)
    chosen, note = trial.choose(Engine.create(RuntimeConfig(fast=True), "fp32").accelerator)
    assert chosen == Kernels()
    assert note == "nothing is compiled, since torch.compile fails here: no compiler"
    short = replace(trial, compile_for=599)  # seconds of training, at one a step: compiling would not pay
    assert short.choose(Engine.create(RuntimeConfig(fast=True), "fp32").accelerator) == (Kernels(), "")


def test_sparse_layers_are_in_use_for_as_long_as_they_should_be() -> None:
    network = build()
    pruned_model.set_mask_everywhere(network, sparse_mask(network))
    images = digits(16).views[0]
    dense = network.backbone(images)
    with computing_with(Kernels(sparse=LAYERS, layers=3), network):
        assert set(sparse_layers.sparse_layers(network.backbone)) == set(LAYERS)
        torch.testing.assert_close(network.backbone(images), dense, rtol=1e-4, atol=1e-5)
        with dense_layers(network):
            assert not sparse_layers.sparse_layers(network.backbone)
        assert set(sparse_layers.sparse_layers(network.backbone)) == set(LAYERS)
        network.heads.teacher = copy.deepcopy(network.backbone)  # as an objective may do in any step
    assert not sparse_layers.sparse_layers(network)


@pytest.mark.parametrize(("compact", "left_out"), [(0.9, 24), (0.95, 0)])
def test_channels_are_left_out_where_that_is_faster_by_a_tenth(
    compact: float, left_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_layers, "faster_sparse_layers", lambda *_, **__: list(LAYERS[:1]))
    Clock(monkeypatch, 1.0, 1.0, compact=compact)
    network = build()
    mask = killing_mask(network)
    trial = Trial(
        build=build,
        mask=mask,
        batch=digits(16),
        layouts=(False,),
        compile_for=0,
        compaction=Compaction.plan(network.backbone, mask),
    )
    chosen, _ = trial.choose(Engine.create(RuntimeConfig(), "fp32").accelerator)
    assert chosen == Kernels(sparse=LAYERS[:1], layers=3, left_out=left_out, channels=48 if left_out else 0)
    assert str(chosen) == "1 of 3 layers sparse" + "; 24 of 48 channels left out" * (left_out > 0)


def test_channels_are_left_out_for_as_long_as_they_should_be() -> None:
    network = build()
    network.heads.slow = pruned_model.MaskedCopy(copy.deepcopy(network.backbone))
    pruned_model.set_mask_everywhere(network, killing_mask(network))
    images = digits(16).views[0]
    dense = network.backbone(images)
    kernels = Kernels(sparse=LAYERS, layers=3, left_out=24, channels=48)
    with computing_with(kernels, network):
        for backbone in pruned_model.backbone_and_copies(network):
            assert is_compact(backbone)
            torch.testing.assert_close(backbone(images), dense, rtol=1e-4, atol=1e-5)
        with dense_layers(network):
            assert not is_compact(network)
            assert not sparse_layers.sparse_layers(network)
        assert all(is_compact(backbone) for backbone in pruned_model.backbone_and_copies(network))
        torch.testing.assert_close(network.backbone(images), dense, rtol=1e-4, atol=1e-5)
    assert not is_compact(network)
    assert torch.equal(network.backbone(images), dense)


def test_a_damaged_file_is_refused_and_a_whole_one_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "kernels" / "search.level-00.json"
    assert Kernels.read(path) is None
    kernels = Kernels(channels_last=True, sparse=LAYERS, layers=3)
    kernels.write(path)
    assert Kernels.read(path) == kernels
    path.write_text('{"channels_last": true, "compiled": false, "sparse": [], "layers": 3}')
    assert Kernels.read(path) == Kernels(channels_last=True, layers=3), "as versions wrote it that had no more"
    for damaged in ("{}", '{"channels_last": 1, "compiled": false, "sparse": [], "layers": 3}', "[]"):
        path.write_text(damaged)
        with pytest.raises(BadInput, match=r"is damaged \(it names no kernels\); delete it"):
            Kernels.read(path)


class Chosen:
    """Trials that choose what a test says, in place of what the clock does.

    Attributes:
        asked: The densities of the masks under which something was tried.
        layouts: The layouts that were tried.
        left_out: The channels that could be left out, which are.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, innermost: bool = False, layers: tuple[str, ...] = LAYERS
    ) -> None:
        self.asked: list[float] = []
        self.left_out: list[int] = []
        self.layouts: list[tuple[bool, ...]] = []
        monkeypatch.setattr(engines, "TRIAL_FROM_STEPS", STEPS)

        def choose(trial: Trial, accelerator: object) -> tuple[Kernels, str]:
            self.layouts.append(trial.layouts)
            density = 1.0 if trial.mask is None else trial.mask.density
            self.asked.append(density)
            sparse: dict[str, Any] = {}
            if trial.mask is not None:
                sparse = {"sparse": layers or tuple(trial.mask), "layers": len(trial.mask)}
                sparse["images_innermost"] = innermost
            plan = trial.compaction
            self.left_out.append(0 if plan is None else plan.left_out)
            channels = {} if plan is None else {"left_out": plan.left_out, "channels": plan.channels}
            return Kernels(channels_last=trial.layouts[-1], **sparse, **channels), ""

        monkeypatch.setattr(Trial, "choose", choose)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("rows/search.level-*.jsonl"))]


def test_a_choice_is_written_before_a_level_starts_and_repeated_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Chosen(monkeypatch)
    planned = search(tmp_path)
    densities = [ticket.mask.density for ticket in tickets(planned)][:3]
    assert chosen.asked == densities, "once for each network that is trained, the dense one with its layouts"
    assert chosen.layouts == [(False, True), (True,), (True,)]
    told = [row["kernels"] for row in rows(planned.run_dir.path)]
    # W_k and the first level's mask were both found by training the dense network.
    assert told == ["channels-last; 2 of 3 layers sparse"] * 4
    assert {row["numerics"] for row in rows(planned.run_dir.path)} == {"fp32"}
    assert Kernels.read(planned.run_dir.kernels_path(2)) == Kernels(channels_last=True, sparse=LAYERS, layers=3)


def test_analyses_tell_the_kernels_of_the_trainings_that_they_rest_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = search(tmp_path)
    Chosen(monkeypatch)
    short = Protocol(name="short", dataset="digits", training=recipe().training, start="0", seeds=(0,))
    (row,) = Stability().rows([planned.run_dir.ticket_path(1)], short, None, Engine.create(RuntimeConfig(), "fp32"))
    assert row["kernels"] == "channels-last; 2 of 3 layers sparse"


def test_a_search_that_is_stopped_again_and_again_computes_by_its_first_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Chosen(monkeypatch, innermost=True)
    search(tmp_path / "whole")
    assert stopped_every(3, lambda: search(tmp_path / "stopped")) >= 2
    assert len(chosen.asked) == 2 * 3, "what was chosen before a stop is not asked again"
    assert told(tmp_path / "stopped") == told(tmp_path / "whole")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_batch_norm_with_images_innermost_can_be_stopped_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Chosen(monkeypatch, innermost=True, layers=())  # all of them
    normalised, normalise = [], innermost.normalise
    monkeypatch.setattr(innermost, "normalise", lambda *given: normalised.append(1) or normalise(*given))
    which = recipe(model="resnet20", search=IMP(levels=2, rate=0.9, rewind="2it"))
    search(tmp_path / "whole", which)
    assert len(normalised) >= STEPS * 19, "the layers of batch norm were computed in that layout"
    assert stopped_every(3, lambda: search(tmp_path / "stopped", which)) >= 2
    assert told(tmp_path / "stopped") == told(tmp_path / "whole")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_a_search_that_leaves_channels_out_can_be_stopped_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Chosen(monkeypatch)
    which = recipe(search=IMP(levels=3, rate=0.95, rewind="2it"))
    whole = search(tmp_path / "whole", which)
    assert chosen.left_out[0] == 0
    assert chosen.left_out[2] >= 10, "of 48, at a density of 0.25%"
    assert rows(whole.run_dir.path)[-1]["kernels"].endswith(f"{chosen.left_out[2]} of 48 channels left out")
    assert stopped_every(3, lambda: search(tmp_path / "stopped", which)) >= 2
    assert told(tmp_path / "stopped") == told(tmp_path / "whole")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("objective", "ghost_batch", "left_out"),
    [
        ("supervised", None, 24),
        ("supervised", 16, 24),
        ("barlowtwins", None, 24),
        ("barlowtwins", 16, 0),
        ("own", None, 0),
    ],
)
def test_channels_stay_where_others_look_at_them_or_batch_norm_sees_parts(
    objective: str, ghost_batch: int | None, left_out: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ghost batches that go through the network one after the other are normalised whole."""
    chosen, bench = Chosen(monkeypatch), Engine.create(RuntimeConfig(), "fp32")
    training = replace(recipe().training, ghost_batch=ghost_batch)
    kind = {"supervised": Supervised, "barlowtwins": BarlowTwins, "own": LooksAtGradients}[objective]
    network = MaskedNetwork.build("conv3", kind(), channels=1, image_size=8, classes=10, seed=3)
    pruned_model.set_mask(network.backbone, killing_mask(network))
    loader = bench.make_loader(open_split("digits", "train"), (View(size=8),), batch_size=BATCH, order=1, augment=2)
    path = tmp_path / "kernels.json"
    kernels = bench.choose_kernels(path, network, build, lambda: loader, training, STEPS)
    assert (kernels.left_out, chosen.left_out) == (left_out, [left_out])
    Kernels(left_out=24, channels=48).write(path)
    assert bench.choose_kernels(path, network, build, pytest.fail, training, STEPS).left_out == left_out


def test_a_search_that_was_begun_without_a_trial_keeps_its_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = search(tmp_path)
    assert not (planned.run_dir.path / trials.KERNELS_FOLDER).exists(), "so short a training tries nothing"
    planned.run_dir.ticket_path(3).unlink()
    chosen = Chosen(monkeypatch)
    run_search(planned, RuntimeConfig())
    assert chosen.layouts == [(False,)]
    assert [row.get("kernels") for row in rows(planned.run_dir.path)] == [None] * 3 + ["2 of 3 layers sparse"]


@pytest.mark.parametrize(
    ("runtime", "layouts"),
    [
        (RuntimeConfig(exact=True), []),
        (RuntimeConfig(channels_last=True), [(True,)] * 3),
        (RuntimeConfig(channels_last=False), [(False,)] * 3),
        (RuntimeConfig(channels_last=True, exact=True), []),
    ],
)
def test_what_flags_ask_for_is_not_tried(
    runtime: RuntimeConfig, layouts: list[tuple[bool, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Chosen(monkeypatch)
    planned = plan_search(recipe(), runtime, tmp_path)
    run_search(planned, runtime)
    assert chosen.layouts == layouts


def test_a_flag_that_is_given_later_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Chosen(monkeypatch)
    network, path = build(), tmp_path / "a.json"
    Kernels(channels_last=True, sparse=LAYERS, layers=3).write(path)
    for runtime, kernels in (
        (RuntimeConfig(), Kernels(channels_last=True, sparse=LAYERS, layers=3)),
        (RuntimeConfig(channels_last=False), Kernels(sparse=LAYERS, layers=3)),
        (RuntimeConfig(compile=True), Kernels(channels_last=True, layers=3)),
        (RuntimeConfig(compile=False), Kernels(channels_last=True, sparse=LAYERS, layers=3)),
        (RuntimeConfig(exact=True), Kernels()),
    ):
        bench = Engine.create(runtime, "fp32")
        found = bench.choose_kernels(path, network, build, pytest.fail, recipe().training, STEPS)
        assert found == kernels
    Kernels(compiled=True).write(path)
    bench = Engine.create(RuntimeConfig(compile=False), "fp32")
    assert bench.choose_kernels(path, network, build, pytest.fail, recipe().training, STEPS) == Kernels()
    Kernels(sparse=LAYERS, layers=3, images_innermost=True).write(path)
    bench = Engine.create(RuntimeConfig(compile=True), "fp32")
    found = bench.choose_kernels(path, network, build, pytest.fail, recipe().training, STEPS)
    assert str(found) == "", "no layer is left that would hand such batches on"


def test_a_file_that_names_other_layers_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Chosen(monkeypatch)
    path = tmp_path / "a.json"
    Kernels(sparse=(*LAYERS, "layers.0.weight"), layers=3).write(path)
    bench = Engine.create(RuntimeConfig(), "fp32")
    with pytest.raises(BadInput, match=r"a\.json is damaged \(it names layers\.0\.weight, which is no layer"):
        bench.choose_kernels(path, build(), build, pytest.fail, recipe().training, STEPS)


def test_a_run_goes_on_densely_where_numba_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Chosen(monkeypatch)
    path = tmp_path / "a.json"
    Kernels(channels_last=True, sparse=LAYERS, layers=3).write(path)
    monkeypatch.setattr(engines, "can_compute", lambda: False)
    bench = Engine.create(RuntimeConfig(), "fp32")
    found = bench.choose_kernels(path, build(), build, pytest.fail, recipe().training, STEPS)
    assert found == Kernels(channels_last=True, layers=3)


class LooksAtGradients(Supervised):
    """An objective that reads gradients after each step."""

    name = "looks_at_gradients"
    seen: list[bool] = []  # noqa: RUF012

    def after_step(self, network: Any, progress: float) -> None:
        self.seen.append(all(parameter.grad is not None for parameter in network.parameters()))


def test_gradients_are_there_after_the_step_of_sparse_layers() -> None:
    network = MaskedNetwork.build("conv3", LooksAtGradients(), channels=1, image_size=8, classes=10, seed=3)
    pruned_model.set_mask_everywhere(network, sparse_mask(network))
    bench = Engine.create(RuntimeConfig(), "fp32")
    loader = bench.make_loader(open_split("digits", "train"), (View(size=8),), batch_size=16, order=1, augment=2)
    with bench.prepare(network) as wrapped, computing_with(Kernels(sparse=LAYERS, layers=3), network):
        loop = bench.make_loop(
            network, wrapped, loader, recipe().training, set_size=64, seed=0, progress=Progress(0, show=False)
        )
        before = network.backbone.get_parameter(LAYERS[0]).detach().clone()
        loop.run(0, 2)
    assert LooksAtGradients.seen == [True, True]
    assert not torch.equal(network.backbone.get_parameter(LAYERS[0]), before)


def test_scores_that_need_second_derivatives_get_them_from_torchs_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Chosen(monkeypatch)
    which = recipe(
        search=IMP(
            levels=1,
            rate=0.5,
            rewind="2it",
            early_bird=0.9,
            early_bird_window=1,
            early_bird_every="1it",
            criterion=SNIP(score_images=BATCH),
        )
    )
    plain = plan_search(which, RuntimeConfig(exact=True), tmp_path / "exact")
    run_search(plain, RuntimeConfig(exact=True))
    planned = plan_search(which, RuntimeConfig(), tmp_path / "tried")
    run_search(planned, RuntimeConfig())
    assert tickets(planned)[1].mask.survivors == tickets(plain)[1].mask.survivors
    assert rows(planned.run_dir.path)[1]["kernels"] == "channels-last; 2 of 3 layers sparse"


def test_further_loaders_share_the_images_and_give_the_same_batches() -> None:
    source, views = open_split("digits", "train"), (View(size=8, crop="pad", pad=1, flip=True),)
    shared, fresh = Engine.create(RuntimeConfig(), "fp32"), Engine.create(RuntimeConfig(), "fp32")
    first = shared.make_loader(source, views, batch_size=16, order=1, augment=2)
    second = shared.make_loader(source, views, batch_size=8, order=3, augment=4)
    alone = fresh.make_loader(source, views, batch_size=8, order=3, augment=4)
    assert isinstance(first, MemoryLoader)
    assert isinstance(second, MemoryLoader)
    assert second._groups is first._groups

    def seen(loader: Any, last: int) -> Iterator[torch.Tensor]:
        return (value for batch in loader.train(0, last) for value in (*batch.views, batch.labels, batch.indices))

    assert all(torch.equal(one, other) for one, other in zip(seen(second, 3), seen(alone, 3), strict=True))
    again = Engine.create(RuntimeConfig(), "fp32").make_loader(source, views, batch_size=16, order=1, augment=2)
    assert all(torch.equal(one, other) for one, other in zip(seen(first, 2), seen(again, 2), strict=True))
    other = shared.make_loader(replace(source), views, batch_size=8, order=3, augment=4)
    assert isinstance(other, MemoryLoader)
    assert other._groups is not first._groups, "other images may have other pixels"


def test_fast_is_bf16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "_device_type", lambda: "cpu")
    for has, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(numerics, "_cpu_has_bfloat16", lambda has=has: has)
        assert Numerics.resolve(RuntimeConfig(fast=True), None).precision == precision
        assert Numerics.resolve(RuntimeConfig(), None).precision == "fp32"
        assert Numerics.resolve(RuntimeConfig(fast=True), "fp32").precision == "fp32"
    with pytest.raises(BadInput, match="--fast and --exact must not be given together"):
        RuntimeConfig(fast=True, exact=True)
