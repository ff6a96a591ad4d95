"""MAE: what the network sees, the loss by definition, and masks that are the same in every process."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from sslticket.config.recipe import Data
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.data.augment import View
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.errors import BadInput
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import Levels, find_ticket_files, make_tasks
from sslticket.models.backbones import create_model
from sslticket.objectives.mae import MAE
from sslticket.objectives.patch_tokens import PatchNoise, PatchTokens, hide_patches
from sslticket.pruning.prunable import prunable_weights
from sslticket.results.table import read_rows
from sslticket.search.imp import IMP
from sslticket.search.plan import plan_search
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from tests.objectives.patch_networks import SMALL_MAE, batch, build, rows_of, tiny, torchvision_tiny
from tests.runs import BATCH, REWIND, STEPS, recipe, search

SMALL = SMALL_MAE
SEED = torch.tensor(5)


def masks(net: Any, data: Any, progress: float) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = net.objective._masks(net.heads, data, 16, progress)
    return found


def lightly_view(backbone: nn.Module, token: Tensor) -> Any:
    """The same network in lightly's wrapper, which runs the layers by itself."""
    from lightly.models.modules import MaskedVisionTransformerTIMM, MaskedVisionTransformerTorchvision

    wrapper = MaskedVisionTransformerTIMM if hasattr(backbone, "patch_embed") else MaskedVisionTransformerTorchvision
    kept = {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
    wrapped = wrapper(
        cast(Any, backbone),
        mask_token=nn.Parameter(token.view(1, 1, -1)),
        weight_initialization="skip",
        pos_embed_initialization="skip",
    )
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(kept[name])
    return wrapped


@pytest.mark.parametrize("model", [tiny, torchvision_tiny])
def test_tokens_are_those_of_lightlys_network_whatever_is_left_out_or_replaced(model: Any) -> None:
    net, images = build(SMALL, model).eval(), batch(3).views[0]
    patches, token = PatchTokens.of(net.backbone, "mae"), torch.randn(24)
    assert (patches.grid, patches.patch_size, patches.width, patches.prefix) == (4, 2, 24, 1)
    theirs, first = lightly_view(net.backbone, token), torch.zeros(3, 1, dtype=torch.int64)
    keep = torch.stack([torch.randperm(16)[:5] for _ in range(3)])
    hidden = torch.rand(3, 16) < 0.5
    with torch.no_grad():
        features, whole = patches.encode(images)
        torch.testing.assert_close(whole, theirs.encode(images))
        torch.testing.assert_close(features, net.backbone(images))
        kept = theirs.encode(images, idx_keep=torch.cat([first, keep + 1], dim=1))
        torch.testing.assert_close(patches.encode(images, keep=keep)[1], kept)
        replaced = theirs.encode(images, mask=torch.cat([first.bool(), hidden], dim=1))
        torch.testing.assert_close(patches.encode(images, hidden=hidden, token=token)[1], replaced)
        torch.testing.assert_close(net.backbone(images), features)  # and nothing of it is left
    assert net.passes.forward == 5 * 3


def test_the_loss_is_that_of_the_hidden_patches_alone_by_its_definition() -> None:
    net, data = build(SMALL).eval(), batch(3)
    keep, hidden = masks(net, data, 0.25)
    assert hidden.sum(dim=1).tolist() == [12, 12, 12]
    with torch.no_grad():
        tokens = PatchTokens.of(net.backbone, "mae").encode(data.views[0], keep=keep)[1]
        guesses = net.heads(tokens, keep, hidden).double().numpy()
    losses = []
    for image in range(3):
        pixels = data.views[0][image].double().numpy()  # (C, H, W)
        for patch in range(16):
            top, left = divmod(patch, 4)
            target = pixels[:, 2 * top : 2 * top + 2, 2 * left : 2 * left + 2].transpose(1, 2, 0).ravel()
            target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            if bool(hidden[image, patch]):
                losses.append(np.square(guesses[image, patch] - target).mean())
    (loss,) = SMALL.loss(net, data, 0.25).values()
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_decoder_sees_each_token_at_its_place_and_one_and_the_same_token_elsewhere() -> None:
    net, data = build(SMALL).eval(), batch(2)
    heads = cast(Any, net.heads)
    keep, hidden = masks(net, data, 0.0)
    tokens = torch.randn(2, 5, 24)
    with torch.no_grad():
        found = heads(tokens, keep, hidden)
        seen = heads.embed(tokens)
        for image in range(2):
            sequence = [seen[image, 0]] + [heads.decoder.mask_token[0, 0]] * 16
            for number, patch in enumerate(keep[image].tolist()):
                sequence[1 + patch] = seen[image, 1 + number]
            places = torch.stack(sequence)[None] + heads.decoder.pos_embed
            decoded = heads.decoder.norm(heads.decoder.blocks(places))
            torch.testing.assert_close(found[image], heads.predict(decoded)[0, 1:])


def test_what_is_hidden_reaches_no_token() -> None:
    net, data = build(SMALL).eval(), batch(4)
    keep, hidden = masks(net, data, 0.5)
    patches = PatchTokens.of(net.backbone, "mae")
    pixels = hidden.view(4, 1, 4, 4).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    with torch.no_grad():
        _, tokens = patches.encode(data.views[0], keep=keep)
        _, other = patches.encode(data.views[0].masked_fill(pixels, 9.0), keep=keep)
        _, whole = patches.encode(data.views[0].masked_fill(pixels, 9.0))
    assert torch.equal(tokens, other)
    assert not torch.allclose(tokens[:, 0], whole[:, 0])


def test_masks_depend_on_image_and_step_and_not_on_the_place_in_the_batch() -> None:
    net, data = build(SMALL), batch(6, 3)
    keep, hidden = masks(net, data, 0.5)
    turned = data._replace(indices=data.indices.flip(0))
    assert torch.equal(masks(net, turned, 0.5)[0], keep.flip(0))
    assert torch.equal(masks(net, rows_of(data, slice(2, 4)), 0.5)[1], hidden[2:4])
    assert not torch.equal(masks(net, data, 0.25)[1], hidden)
    assert not torch.equal(masks(build(SMALL, seed=1), data, 0.5)[1], hidden)
    assert len({tuple(row.tolist()) for row in keep}) == 6


def test_every_patch_is_hidden_as_often_and_whatever_becomes_of_the_others() -> None:
    noise = PatchNoise(SEED, torch.arange(20000), 0.1)
    hidden = noise.draw(16).argsort(dim=1).argsort(dim=1) >= 4
    often = hidden.float().mean(dim=0)
    assert (often - 0.75).abs().max() < 0.015  # five standard deviations
    pairs = torch.corrcoef(hidden.T.double())
    pairs.fill_diagonal_(-1 / 15)  # of a draw without replacement
    assert (pairs + 1 / 15).abs().max() < 0.036
    values = torch.cat([noise.uniform(3), noise.uniform(2)], dim=1)
    assert values.min() >= 0
    assert values.max() < 1
    assert (values.mean(dim=0) - 0.5).abs().max() < 0.0105
    assert (torch.corrcoef(values.T.double()) - torch.eye(5)).abs().max() < 0.036


def test_blocks_hide_exactly_as_many_patches_as_asked_for_and_lie_together() -> None:
    count = torch.randint(1, 98, (400,), generator=torch.Generator().manual_seed(0))
    found = {}
    for shape in ("block", "random"):
        hidden = hide_patches(PatchNoise(SEED, torch.arange(400), 0.0), count, 14, cast(Any, shape))
        assert torch.equal(hidden.sum(dim=1), count)
        square = hidden.view(-1, 14, 14)
        neighbours = (square[:, 1:] & square[:, :-1]).sum() + (square[:, :, 1:] & square[:, :, :-1]).sum()
        found[shape] = float(neighbours / count.sum())
    assert found["block"] > 2 * found["random"]


def test_metrics_are_the_same_for_every_way_to_cut_the_set() -> None:
    net, data = build(SMALL).eval(), batch(6)
    with torch.no_grad():
        whole = SMALL.metrics(net, data)
        parts = [SMALL.metrics(net, rows_of(data, slice(first, first + 2))) for first in (0, 2, 4)]
        (loss,) = SMALL.loss(net, data, 1.0).values()
    for name, values in whole.items():
        torch.testing.assert_close(values, torch.cat([part[name] for part in parts]))
    torch.testing.assert_close(whole["loss"].mean(), loss)
    flat = whole["loss of flat patches"]
    torch.testing.assert_close(flat, torch.full((6,), 11 / 12))  # unbiased, of 12 numbers


def test_it_learns_and_the_backbone_is_the_plain_network() -> None:
    net, data = build(SMALL), batch(16)
    assert [name for name, _ in net.backbone.named_parameters()] == [name for name, _ in tiny(3, 8).named_parameters()]
    assert "blocks.0.attn.qkv.weight" in prunable_weights(net.backbone)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    smooth = nn.functional.interpolate(data.views[0][:, :, :2, :2], size=(8, 8), mode="bilinear")
    losses = []
    for step in range(60):
        (loss,) = net(data._replace(views=(smooth,)), step / 60).values()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(weight.grad is not None for weight in net.parameters() if weight.requires_grad)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_view_is_a_crop_without_colours() -> None:
    (view,) = MAE().views(get_dataset("imagenet").train_view)
    assert view == View(size=224, crop="resized", scale=(0.2, 1.0), flip=True)


def test_what_has_no_patches_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"mae must have a vision transformer.* got a VGG; give --model vit_small"):
        plan_search(recipe(MAE()), RuntimeConfig(), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(BadInput, match="got a ResNet"):
        MAE().check_backbone(resnet18(), ())
    with pytest.raises(BadInput, match=r"whole patches of 2 pixels, got 9 pixels; give --image-size 8"):
        MAE().check_backbone(tiny(3, 8), (View(size=9),))
    with pytest.raises(BadInput, match="at least 2 patches"):
        MAE().check_backbone(tiny(3, 2), (View(size=2),))
    with pytest.raises(BadInput, match="--mask-ratio must be between 0 and 1, got 1"):
        MAE(mask_ratio=1.0)
    with pytest.raises(BadInput, match=r"--decoder-width must be a multiple .* got 30"):
        MAE(decoder_width=30)


def test_a_search_finds_tickets_that_are_evaluated_on_whole_images(tmp_path: Path) -> None:
    which = recipe(
        SMALL,
        model="test_vit",
        data=Data(dataset="digits", image_size=32),
        search=IMP(levels=1, rate=0.5, rewind=f"{REWIND}it"),
    )
    planned = search(tmp_path, which)
    rows = read_rows([planned.run_dir.path])
    levels = rows[rows.kind == "level"].sort_values("level")
    assert levels.forward_images.tolist() == [REWIND * BATCH, (STEPS - REWIND) * BATCH]
    assert levels.loss.between(0.5, 3).all()
    ticket = Ticket.load(planned.run_dir.ticket_path(1))
    assert set(ticket.weights) == set(create_model("test_vit", image_size=32, channels=1).state_dict())
    short = Protocol(
        name="short",
        dataset="digits",
        image_size=32,
        training=TrainConfig(length="4it", batch_size=32, optimizer=SGD(lr=0.1)),
    )
    asked = make_tasks(find_ticket_files([planned.run_dir.path], Levels((1,))), [], [short], [0])
    (scored,) = evaluate_tasks(asked, Engine.create(RuntimeConfig(), "fp32"))
    assert scored["objective"] == "mae"


def test_a_preview_hides_what_the_first_step_hides() -> None:
    net, data = build(SMALL), batch(2)
    shown = SMALL.preview_with(lambda: net, data)
    assert list(shown) == ["view 1", "seen"]
    _, hidden = masks(net, data, 0.0)
    grey = (shown["seen"] == 0).all(dim=1)[:, ::2, ::2].flatten(1)
    assert torch.equal(grey, hidden)


def test_gray_images_have_one_channel() -> None:
    net = build(SMALL, channels=1)
    gray = batch(2)._replace(views=(batch(2).views[0][:, :1],))
    (loss,) = SMALL.loss(net, gray, 0.0).values()
    assert loss.isfinite()


def test_compiled_code_does_not_go_on_with_the_masks_of_its_first_call() -> None:
    plain, compiled = build(SMALL).eval(), build(SMALL).eval()
    compiled.backbone.compile(backend="eager")
    data = batch(2)
    with torch.no_grad():
        for progress in (0.0, 0.5):
            torch.testing.assert_close(SMALL.loss(compiled, data, progress), SMALL.loss(plain, data, progress))
            torch.testing.assert_close(compiled.backbone(data.views[0]), plain.backbone(data.views[0]))
    assert compiled.backbone._compiled_call_impl is not None
