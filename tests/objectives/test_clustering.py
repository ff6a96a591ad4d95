"""SwAV by definition, and what SwAV and DINO have in common: the crops and the layer that waits."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket import IMP, Data, Recipe, RuntimeConfig, TrainConfig, evaluate_tickets, find_tickets
from sslticket.config.training import SGD, Adam
from sslticket.data.augment import View
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective
from sslticket.objectives.dino import DINO
from sslticket.objectives.multiview import multicrop_forward
from sslticket.objectives.swav import SwAV
from sslticket.pruning import pruned_model
from sslticket.training.optim import build_optimizer
from tests.objectives.multicrop import BOTH, IDS, batch, build, train, waiting


def codes(scores: Tensor, sharpness: float, steps: int) -> Tensor:
    """Sinkhorn's iterations: shares of images (B, K) made to use all prototypes equally, then to sum to 1."""
    shares = torch.exp(scores / sharpness)
    for _ in range(steps):
        shares = shares / shares.sum(dim=0, keepdim=True)
        shares = shares / shares.sum(dim=1, keepdim=True)
    return shares


@pytest.mark.parametrize("steps", [3, 300])
def test_swav_predicts_the_balanced_codes_of_the_other_views(steps: int) -> None:
    objective = SwAV(hidden=12, dim=6, prototypes=5, temperature=0.2, epsilon=0.1, sinkhorn_steps=steps)
    net, data = build(objective).eval(), batch(7)
    heads = cast(Any, net.heads)
    with torch.no_grad():
        projected = [F.normalize(heads.projection(net.backbone(view)).double(), dim=1) for view in data.views]
        scores = [view @ heads.prototypes().double().T for view in projected]
    terms = []
    for number in (0, 1):
        shares = codes(scores[number], 0.1, steps)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(7).double())
        if steps == 300:
            torch.testing.assert_close(shares.sum(dim=0), torch.full((5,), 7 / 5).double())
        for other, prediction in enumerate(scores):
            if other != number:
                terms.append(-(shares * (prediction / 0.2).log_softmax(dim=1)).sum(dim=1).mean())
    (loss,) = objective.loss(net, data, 0.0).values()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(float(sum(terms)) / len(terms), rel=1e-5)
    assert len(terms) == 2 * 4


def test_prototypes_stay_on_the_unit_sphere() -> None:
    net = build(BOTH[0])
    for start in range(0, 10, 2):
        torch.testing.assert_close(waiting(net)().norm(dim=1), torch.ones(5))
        train(net, start, start + 2)


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_every_trained_parameter_gets_a_gradient_from_the_first_step_on(objective: Objective) -> None:
    net = build(objective)
    (loss,) = net(batch(4), 0.0).values()
    loss.backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("spec", [SGD(lr=0.1, weight_decay=0.1), Adam(lr=0.1, weight_decay=0.1)], ids=["sgd", "adam"])
@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_a_frozen_layer_neither_decays_nor_gathers_momentum(objective: Objective, spec: SGD | Adam) -> None:
    net = build(objective)
    layer, optimiser = waiting(net), build_optimizer(spec, net.parameters())
    drawn = layer().detach().clone()
    for step in range(3):
        train(net, step, step + 1, optimiser)
        assert torch.equal(layer(), drawn), f"{step / 10} of the training is below 0.3"
    optimiser.zero_grad()
    (loss,) = net(batch(8, 3), 0.3).values()
    loss.backward()
    assert torch.equal(layer(), drawn), "the release itself moves nothing"
    gradient = layer.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0
    optimiser.step()
    if isinstance(spec, SGD):
        torch.testing.assert_close(layer(), drawn - 0.1 * (gradient + 0.1 * drawn), msg="no momentum from before")
    assert not torch.allclose(layer(), drawn, atol=1e-4)


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_metrics_are_per_image_and_change_nothing(objective: Objective) -> None:
    net = build(objective)
    train(net, 0, 5)
    net.eval()
    before = copy.deepcopy(dict(net.named_buffers()) | net.state_dict())
    with torch.no_grad():
        metrics = objective.metrics(net, batch(5, 9, sizes=(16, 16)))
    assert {value.shape for value in metrics.values()} == {(5,)}
    for name, value in (dict(net.named_buffers()) | net.state_dict()).items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_a_net_written_from_another_goes_on_as_that_one_does(objective: Objective) -> None:
    first, second = build(objective), build(objective, seed=1)
    train(first, 0, 4)
    pruned_model.write_state(second, pruned_model.read_state(first))
    for one, other in zip(train(first, 4, 7), train(second, 4, 7), strict=True):
        assert torch.equal(one, other)


def test_views_of_one_size_share_a_forward_and_keep_their_order() -> None:
    seen = []

    def backbone(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape))
        return images.mean(dim=(2, 3))

    data = batch(2)
    features = multicrop_forward(cast(nn.Module, backbone), data.views)
    assert seen == [(4, 3, 16, 16), (6, 3, 7, 7)]
    torch.testing.assert_close(features, torch.cat([view.mean(dim=(2, 3)) for view in data.views]))


def test_local_crops_are_three_sevenths_as_large_and_small_images_have_none() -> None:
    large, small = View(size=224, crop="resized", flip=True), View(size=32, crop="pad", pad=2, flip=True)
    assert [view.size for view in SwAV().views(large)] == [224] * 2 + [96] * 6
    assert [view.size for view in DINO().views(large)] == [224] * 2 + [96] * 8
    assert [view.size for view in DINO(local_crops=4).views(small)] == [32] * 2 + [14] * 4
    for objective in (SwAV(), DINO()):
        assert [view.size for view in objective.views(small)] == [32, 32]
        assert {view.scale for view in objective.views(large)} == {(0.14, 1.0), (0.05, 0.14)}
    chances = [{type(e).__name__: e.probability for e in view.transforms} for view in DINO(local_crops=1).views(large)]
    assert [chance["Blur"] for chance in chances] == [1.0, 0.1, 0.5]
    assert [chance.get("Solarize") for chance in chances] == [None, 0.2, None]
    with pytest.raises(BadInput, match="--local-crops must be at least 0, got -1"):
        SwAV(local_crops=-1).views(large)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(BadInput, match="swav must get at least 2 images at a time, got 1"):
        SwAV().check(1, 2)
    with pytest.raises(BadInput, match="dino must get at least 2 views of an image to compare, got 1"):
        DINO().check(8, 1)
    with pytest.raises(BadInput, match=r"--epsilon must be at least 0.012, got 0.01"):
        SwAV(epsilon=0.01)
    scores = torch.eye(4)
    assert torch.isfinite(torch.exp(scores / SwAV(epsilon=0.012).epsilon).sum())
    with pytest.raises(BadInput, match="--teacher-start must be above 0, got 0"):
        DINO(teacher_start=0.0)
    with pytest.raises(BadInput, match=r"--frozen-for must be in \[0, 1\], got 1.5"):
        DINO(frozen_for=1.5)


@pytest.mark.data
@pytest.mark.parametrize("objective", [replace(cast(Any, each), local_crops=2) for each in BOTH], ids=IDS)
def test_a_vision_transformer_of_timm_s_finds_tickets_by_crops_of_two_sizes(
    objective: Objective, few_photographs: Path, tmp_path: Path
) -> None:
    """Local crops of 27 pixels are two patches a side, padded; the tensors are those of a ViT for 64 pixels."""
    which = Recipe(
        model="test_vit",
        data=Data(dataset="folder", image_size=64),
        objective=objective,
        training=TrainConfig(length="2it", batch_size=6, optimizer=SGD(lr=0.01)),
        search=IMP(levels=1, rate=0.5, rewind="1it"),
        precision="fp32",
    )
    assert {view.size for view in which.objective.views(View(size=64))} == {64, 27}
    runtime = RuntimeConfig(data_root=few_photographs)
    *_, ticket = find_tickets(which, out=tmp_path, runtime=runtime, progress=False)
    fixed = timm.create_model(which.model, num_classes=0, img_size=64, dynamic_img_size=False)
    fixed.load_state_dict(ticket.weights, strict=False)
    shapes = {name: value.shape for name, value in fixed.state_dict().items()}
    assert {name: value.shape for name, value in ticket.weights.items()} == shapes
    assert ticket.mask.survivors == ticket.mask.total // 2
    scored = evaluate_tickets(ticket, protocol="own", controls=(), runtime=runtime, progress=False)
    assert 0 <= scored["top1"].item() <= 1


@pytest.mark.data
def test_a_network_of_one_size_is_refused_with_what_takes_several(few_photographs: Path, tmp_path: Path) -> None:
    which = Recipe(
        model="vit_b_16",  # torchvision's
        data=Data(dataset="folder", image_size=64),
        objective=replace(cast(Any, BOTH[1]), local_crops=1),
        training=TrainConfig(length="2it", batch_size=6, optimizer=SGD(lr=0.01)),
        search=IMP(levels=1, rate=0.5, rewind="1it"),
    )
    with pytest.raises(BadInput, match=r"vit_b_16 cannot take views of 27 .*timm's ViT .*vit_small_patch16"):
        find_tickets(which, out=tmp_path, runtime=RuntimeConfig(data_root=few_photographs), progress=False)
