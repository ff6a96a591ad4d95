"""The weights that training takes to zero by itself, and the random baseline that starts from them."""

from pathlib import Path

import pytest
import torch

from sslticket import models
from sslticket.errors import BadInput
from sslticket.evaluation.controls import NaturalMask, get_control, make_control, random_submask
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import MACHINE_PRECISION, prunable_weights
from sslticket.ticket import Ticket

TOLD = {"model": "conv3", "protocol": "cifar10", "seed": 0}


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return pruned_model.read_state(models.create_model("conv3", channels=1, image_size=8))


NAMES = prunable_weights(models.create_model("conv3", channels=1, image_size=8))


def natural(keep: int) -> NaturalMask:
    """Of the 13,968 weights, all but so many are zero in training's way: tiny, not 0."""
    trained = weights(0)
    tops = Mask.top({name: trained[name].abs() for name in NAMES}, keep=keep, within=Mask.ones_like(trained, NAMES))
    for name in NAMES:
        trained[name][~tops[name]] = 1e-9
    found = NaturalMask.from_weights(trained, NAMES, TOLD)
    assert found.mask.equals(tops)
    return found


def ticket(keep: int) -> Ticket:
    state = weights(2)
    mask = Mask.top({name: state[name].abs() for name in NAMES}, keep=keep, within=Mask.ones_like(state, NAMES))
    return Ticket.from_dense_weights(mask, state, level=4, recipe={}, provenance={})


def test_a_weight_is_zero_up_to_machine_precision() -> None:
    assert pytest.approx(2.0**-23, abs=0) == MACHINE_PRECISION
    trained = {"a": torch.tensor([0.0, 1e-8, -MACHINE_PRECISION, 1.2e-7, -0.5]), "bn": torch.zeros(3)}
    assert NaturalMask.from_weights(trained, ["a"], TOLD).mask["a"].tolist() == [False, False, False, True, True]
    with pytest.raises(BadInput, match="every weight of conv3 has gone to zero under cifar10"):
        NaturalMask.from_weights({"a": torch.zeros(4)}, ["a"], TOLD)


def test_below_the_natural_density_survivors_are_drawn_among_the_natural_ones() -> None:
    kept, initial = natural(3000), weights(1)
    drawn = make_control(ticket(1000), get_control("adjusted"), initial=initial, seed=7, natural=kept.mask)
    assert drawn.mask.survivors == 1000
    assert drawn.mask.is_subset_of(kept.mask)
    for name in NAMES:
        assert torch.equal(drawn.weights[name], initial[name] * drawn.mask[name])
    assert drawn.mask.equals(random_submask(kept.mask, 1000, seed=7))
    assert not drawn.mask.equals(random_submask(kept.mask, 1000, seed=8))
    # A third of each layer's natural weights, within four standard deviations of a hypergeometric draw.
    for (mine, _), (theirs, _) in zip(
        drawn.mask.layer_counts().values(), kept.mask.layer_counts().values(), strict=True
    ):
        assert abs(mine - theirs / 3) <= 4 * (theirs * 2 / 9) ** 0.5


def test_above_it_the_mask_is_the_natural_one() -> None:
    kept = natural(3000)
    for keep in (3000, 9000, 13_968):
        drawn = make_control(ticket(keep), get_control("adjusted"), initial=weights(1), seed=7, natural=kept.mask)
        assert drawn.mask.equals(kept.mask)


def test_what_is_saved_is_what_is_loaded_and_damage_is_named(tmp_path: Path) -> None:
    path, kept = tmp_path / "natural" / "conv3.safetensors", natural(3000)
    kept.save(path)
    assert path.stat().st_size < 13_968 / 8 + 2000, "a bit a weight"
    again = NaturalMask.load(path)
    assert again.mask.equals(kept.mask)
    assert again.provenance == TOLD
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(BadInput, match=r"no whole safetensors file .*; delete it"):
        NaturalMask.load(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BadInput, match="does not match its hash; delete it"):
        NaturalMask.load(path)
