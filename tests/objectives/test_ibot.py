"""iBOT and DINOv2: the loss by definition, masks, centres, the teacher."""

import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from sslticket.data.datasets.catalogue import get_dataset
from sslticket.errors import BadInput
from sslticket.objectives.ibot import IBOT, DINOv2
from sslticket.objectives.patch_tokens import PatchTokens
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.search.estimate import Passes
from sslticket.training.network import MaskedNetwork
from tests.objectives.patch_networks import (
    SIZES,
    SMALL_IBOT,
    SMALL_V2,
    batch,
    build,
    rows_of,
    sgd,
    tiny,
    torchvision_tiny,
    train,
)

SMALL, V2 = SMALL_IBOT, SMALL_V2


def spread_out(net: MaskedNetwork) -> Any:
    """Its heads, with weights that make no two outputs alike."""
    heads = cast(Any, net.heads)
    heads.release()
    with torch.no_grad():
        for number, value in enumerate((*heads.student.parameters(), *heads.momentum.projection.parameters())):
            value.normal_(std=0.3, generator=torch.Generator().manual_seed(number))
        for centre in (heads.images_centre.centre, heads.patches_centre.centre, heads.mask_token):
            centre.normal_(std=0.3, generator=torch.Generator().manual_seed(len(centre)))
    return heads


def masks(net: MaskedNetwork, data: Any, progress: float) -> Tensor:
    objective, heads = cast(Any, net.objective), cast(Any, net.heads)
    hidden: Tensor = objective._masks(heads, data, PatchTokens.of(net.backbone, "ibot"), progress)
    return hidden


def cross_entropy(teacher: Tensor, centre: Tensor, student: Tensor, temperature: float) -> float:
    weights = [math.exp(float(value) / temperature) for value in teacher - centre]
    guesses = [math.exp(float(value) / 0.1) for value in student]
    return -sum(w / sum(weights) * math.log(g / sum(guesses)) for w, g in zip(weights, guesses, strict=True))


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 0.04), (0.1, 0.055), (1.0, 0.07)])
def test_the_loss_is_by_definition_that_of_other_views_and_of_hidden_patches(
    progress: float, temperature: float
) -> None:
    net, data = build(SMALL).eval(), batch(3, sizes=SIZES)
    heads, hidden = spread_out(net), masks(net, data, progress)
    with torch.no_grad():
        student, teacher, patches = [], [], []
        for number, view in enumerate(data.views):
            if number < 2:
                own = hidden.chunk(2)[number]
                features, tokens = PatchTokens.of(net.backbone, "ibot").encode(view, hidden=own, token=heads.mask_token)
                known, whole = PatchTokens.of(heads.momentum.backbone, "ibot").encode(view)
                teacher.append(heads.teacher["images"](known).double())
                for image in range(3):
                    places = own[image].nonzero().flatten()
                    seen = heads.student["images"](tokens[image, 1 + places]).double()
                    targets = heads.teacher["images"](whole[image, 1 + places]).double()
                    losses = [
                        cross_entropy(t, heads.patches_centre.centre.double(), s, temperature)
                        for t, s in zip(targets, seen, strict=True)
                    ]
                    patches.append(sum(losses) / max(1, len(losses)))
            else:
                features = net.backbone(view)
            student.append(heads.student["images"](features).double())
        images = [
            cross_entropy(teacher[one][image], heads.images_centre.centre.double(), student[other][image], temperature)
            for image in range(3)
            for one in range(2)
            for other in range(3)
            if one != other
        ]
    terms = SMALL.loss(net, data, progress)
    assert terms["images"].item() == pytest.approx(sum(images) / len(images), rel=1e-5)
    assert terms["patches"].item() == pytest.approx(2.0 * sum(patches) / 6, rel=1e-5)
    assert sum(loss > 0 for loss in patches) == 3, "one view of each image has hidden patches"


def test_patch_losses_are_lightlys_where_each_view_has_hidden_patches() -> None:
    from lightly.loss import IBOTPatchLoss

    objective = replace(SMALL, mask_probability=1.0, patch_weight=1.0, teacher_rise=0.0)
    net, data = build(objective).eval(), batch(3, sizes=(8, 8))
    heads, hidden = spread_out(net), masks(net, data, 0.5)
    theirs = IBOTPatchLoss(9, teacher_temp=0.07, student_temp=0.1)
    cast(Any, theirs.center).center.copy_(heads.patches_centre.centre)
    images = torch.cat(data.views)
    with torch.no_grad():
        tokens = PatchTokens.of(net.backbone, "ibot").encode(images, hidden=hidden, token=heads.mask_token)[1]
        whole = PatchTokens.of(heads.momentum.backbone, "ibot").encode(images)[1]
        expected = theirs(
            heads.teacher["images"](whole[:, 1:][hidden]),
            heads.student["images"](tokens[:, 1:][hidden]),
            hidden.view(-1, 4, 4),
        )
        torch.testing.assert_close(objective.loss(net, data, 0.5)["patches"], expected)
        objective.after_step(net, 0.5)
    moved = 0.8 * (cast(Any, theirs.center).center[0] - heads.patches_centre.centre)
    assert moved.abs().max() > 0  # theirs moves by a tenth, ours by the 0.2 that was asked for
    drawn = torch.empty(9).normal_(std=0.3, generator=torch.Generator().manual_seed(9))
    step = (heads.patches_centre.centre - drawn) / (cast(Any, theirs.center).center[0] - drawn)
    torch.testing.assert_close(step, torch.full((9,), 2.0), rtol=1e-3, atol=1e-3)


def test_half_of_the_views_hide_a_tenth_to_a_half_of_their_patches() -> None:
    net, data = build(SMALL), batch(500, sizes=(8, 8))
    hidden = masks(net, data, 0.5).sum(dim=1).view(2, 500)
    assert ((hidden > 0).sum(dim=0) == 1).all()
    assert 200 < int((hidden[0] > 0).sum()) < 300
    counts = hidden[hidden > 0]
    assert counts.min() == 1
    assert counts.max() == 7
    assert abs(float(counts.float().mean()) - (0.3 * 16 - 0.5)) < 0.3  # rounded down
    always = build(replace(SMALL, mask_probability=1.0, least_masked=0.5))
    assert (masks(always, data, 0.5).sum(dim=1) == 8).all()
    assert not masks(build(replace(SMALL, mask_probability=0.0)), data, 0.5).any()


def test_masks_depend_on_image_and_step_and_not_on_the_place_in_the_batch() -> None:
    net, data = build(SMALL), batch(6, 3, sizes=(8, 8))
    hidden = masks(net, data, 0.5).view(2, 6, 16)
    turned = masks(net, data._replace(indices=data.indices.flip(0)), 0.5).view(2, 6, 16)
    assert torch.equal(turned, hidden.flip(1))
    assert torch.equal(masks(net, rows_of(data, slice(2, 5)), 0.5).view(2, 3, 16), hidden[:, 2:5])
    assert not torch.equal(masks(net, data, 0.25).view(2, 6, 16), hidden)


def test_koleo_is_that_of_the_nearest_other_image_in_each_global_view() -> None:
    net, data = build(V2).eval(), batch(5, sizes=SIZES)
    heads, hidden = spread_out(net), masks(net, data, 0.5)
    expected = 0.0
    with torch.no_grad():
        for view, own in zip(data.views[:2], hidden.chunk(2), strict=True):
            features, _ = PatchTokens.of(net.backbone, "ibot").encode(view, hidden=own, token=heads.mask_token)
            unit = nn.functional.normalize(features.double(), dim=1)
            distance = torch.cdist(unit, unit) + 9 * torch.eye(5)
            expected -= float(distance.min(dim=1).values.log().mean())
        terms = V2.loss(net, data, 0.5)
    assert terms["koleo"].item() == pytest.approx(0.1 * expected, rel=1e-4)
    assert list(terms) == ["images", "patches", "koleo"]
    assert heads.student["patches"] is not heads.student["images"]
    assert (V2.collapsed_loss(5), replace(V2, koleo=0.0).collapsed_loss(5)) == (None, 1.5 * math.log(9))


def test_equal_outputs_are_the_collapse() -> None:
    net, data = build(SMALL), batch(6, sizes=SIZES)
    before = sum(term.item() for term in SMALL.loss(net, data, 0.0).values())
    directions = cast(Any, net.heads).student["images"].directions
    with torch.no_grad():
        directions.held.copy_(directions.held[:1].clone().expand(9, -1))
    collapsed = sum(term.item() for term in SMALL.loss(net, data, 0.0).values())
    assert collapsed == pytest.approx(SMALL.collapsed_loss(6), rel=1e-6)
    assert abs(before - collapsed) > 1e-3
    assert replace(SMALL, mask_probability=0.3).collapsed_loss(6) is None


def test_the_teacher_and_its_masks_follow() -> None:
    net = build(SMALL)
    names, stored = prunable_weights(net.backbone), pruned_model.stored_state(net.backbone)
    mask = Mask({name: torch.rand_like(stored[name]) < 0.3 for name in names})
    pruned_model.set_mask_everywhere(net, mask)
    before = pruned_model.read_state(net)
    optimiser = sgd(net)
    data = batch(8, 0, SIZES)
    for progress in (0.1, 0.4):
        torch.stack(list(net(data, progress).values())).sum().backward()
        pruned_model.mask_gradients(pruned_model.fixed_masks(net).values())
        optimiser.step()
        SMALL.after_step(net, progress)
    state = pruned_model.read_state(net)
    for name in names:
        for copied in (f"backbone.{name}", f"heads.momentum.backbone.{name}"):
            assert torch.equal(state[copied] != 0, mask[name]), copied
            assert not torch.equal(state[copied], before[copied]), copied
    assert not torch.equal(state["heads.mask_token"], before["heads.mask_token"])
    assert net.passes.forward == 2 * (2 * 16 + 8)
    assert net.passes.backward == 2 * (16 + 8)


def test_metrics_agree_with_the_loss_and_a_student_that_is_the_teacher_agrees_with_it() -> None:
    objective = replace(SMALL, teacher_rise=0.0)
    net, data = build(objective), batch(6, sizes=(8, 8))
    train(net, 2)
    net.eval()
    with torch.no_grad():
        found = objective.metrics(net, data)
        terms = objective.loss(net, data, 1.0)
        assert found["loss"].mean().item() == pytest.approx(sum(float(term) for term in terms.values()), rel=1e-5)
        assert found["target entropy"].max() <= math.log(9) + 1e-5
        assert found["patch agreement"].max() <= 0.5
        same = build(replace(objective, mask_probability=1.0)).eval()
        heads = cast(Any, same.heads)
        hidden = masks(same, data, 1.0)
        heads.mask_token.copy_(torch.zeros(24))
        assert hidden.any(dim=1).all()
    assert set(found) == {
        *("retrieval top1", "positive similarity", "negative similarity"),
        *("loss", "target entropy", "patch agreement"),
    }


@pytest.mark.parametrize("model", [tiny, torchvision_tiny])
def test_both_libraries_transformers_can_be_teachers(model: Any) -> None:
    net = build(SMALL, model)
    terms = net(batch(3, sizes=(8, 8)), 0.5)
    torch.stack(list(terms.values())).sum().backward()
    assert all(weight.grad is not None for weight in net.parameters() if weight.requires_grad)


def test_views_are_the_published_ones_and_counted_right() -> None:
    large, small = (get_dataset(name).train_view for name in ("imagenet", "cifar10"))
    assert [view.size for view in IBOT().views(large)] == [224] * 2 + [96] * 10
    assert [view.scale for view in DINOv2().views(large)] == [(0.32, 1.0)] * 2 + [(0.05, 0.32)] * 8
    assert len(IBOT().views(small)) == 2
    views = replace(SMALL, local_crops=10).views(large)
    found = Passes.count(replace(SMALL, local_crops=10), views, channels=3, batch_size=64, labelled=None)
    assert {size: (forward, back) for size, forward, back in found.training} == {224: (4, 2), 96: (10, 10)}
    assert found.measuring == ((224, 4),)
    assert found.backbones == 2


def test_a_preview_hides_what_the_first_step_hides() -> None:
    net, data = build(SMALL), batch(2, sizes=SIZES)
    shown = SMALL.preview_with(lambda: net, data)
    assert list(shown) == ["view 1", "view 2", "view 3"]
    for number, hidden in enumerate(masks(net, data, 0.0).chunk(2), 1):
        assert torch.equal((shown[f"view {number}"] == 0).all(dim=1)[:, ::2, ::2].flatten(1), hidden)
    assert torch.equal(shown["view 3"], data.views[2])


def test_settings_out_of_range_are_refused() -> None:
    for least, most in ((0.3, 0.2), (0.9, 0.5)):
        with pytest.raises(BadInput, match=f"--least-masked must be at most --most-masked, got {least} and {most}"):
            IBOT(least_masked=least, most_masked=most)
    with pytest.raises(BadInput, match="block"):
        IBOT(mask_shape=cast(Any, "blok"))
    with pytest.raises(BadInput, match="--koleo must be at least 0"):
        DINOv2(koleo=-1.0)
    with pytest.raises(BadInput, match="ibot must have a vision transformer"):
        IBOT().check_backbone(nn.Conv2d(3, 4, 3), ())
