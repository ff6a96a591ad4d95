import pytest
import torch

from sslticket import models
from sslticket.errors import BadInput
from sslticket.evaluation import CONTROLS
from sslticket.evaluation.controls import get_control, make_control
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.ticket import Ticket


def backbone(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return pruned_model.read_state(models.create_model("conv3", channels=1, image_size=8))


@pytest.fixture
def ticket() -> Ticket:
    state = backbone(0)
    names = prunable_weights(models.create_model("conv3", channels=1, image_size=8))
    dense = Mask.ones_like(state, names)
    # Skewed on purpose: early layers keep more, as magnitude pruning leaves them.
    scores = {name: torch.rand_like(state[name]) + 1 / (1 + number) for number, name in enumerate(names)}
    return Ticket.from_dense_weights(
        Mask.top(scores, keep=1000, within=dense), state, level=4, recipe={}, provenance={"objective": "rotnet"}
    )


@pytest.mark.parametrize("kind", sorted({*CONTROLS.names()} - {"adjusted"}))  # test_natural.py has that one
def test_a_control_has_the_tickets_density_and_weights_drawn_anew(ticket: Ticket, kind: str) -> None:
    initial = backbone(1)
    random = make_control(ticket, get_control(kind), initial=initial, seed=7)
    assert random.mask.survivors == 1000
    for name, value in random.weights.items():
        assert torch.equal(value, initial[name] * random.mask[name] if name in random.mask else initial[name])
        if name in random.mask:
            assert (value != 0).sum() == random.mask[name].sum(), "no weight was zeroed by the ticket before"
    assert random.mask.equals(make_control(ticket, get_control(kind), initial=initial, seed=7).mask)


def test_preserved_keeps_the_mask_local_the_layers_counts_random_only_the_total(ticket: Ticket) -> None:
    initial = backbone(1)
    preserved, local, everywhere = (
        make_control(ticket, get_control(kind), initial=initial, seed=7).mask
        for kind in ("preserved", "local", "random")
    )
    assert preserved.equals(ticket.mask)
    assert local.layer_counts() == ticket.mask.layer_counts()
    assert not local.equals(ticket.mask)
    densities = [kept / total for kept, total in everywhere.layer_counts().values()]
    assert everywhere.layer_counts() != ticket.mask.layer_counts()
    # 1,000 of 13,968 at random: 7.16%, within four standard deviations in every layer.
    for density, (_, total) in zip(densities, everywhere.layer_counts().values(), strict=True):
        assert abs(density - 1000 / 13_968) < 4 * (0.0716 * 0.9284 / total) ** 0.5
    assert not everywhere.equals(make_control(ticket, get_control("random"), initial=initial, seed=8).mask)


def test_an_unknown_control_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean random"):
        get_control("randm")


@pytest.mark.parametrize("is_supermask", [True, False])
def test_a_control_of_a_supermask_keeps_the_entries_of_the_head_that_its_ticket_keeps(
    ticket: Ticket, is_supermask: bool
) -> None:
    kept = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    origin = {"objective": "supervised"} | ({"head_kept": 3, "head_total": 6} if is_supermask else {})
    head = {"weight": kept, "bias": torch.zeros(2)}
    found = Ticket.from_dense_weights(ticket.mask, backbone(0), level=4, recipe={}, provenance=origin, head=head)
    drawn = {"weight": torch.full((2, 3), 5.0), "bias": torch.ones(2)}
    control = make_control(found, get_control("random"), initial=backbone(1), seed=7, head=drawn)
    assert torch.equal(control.head["weight"], drawn["weight"] * (kept != 0) if is_supermask else drawn["weight"])
    assert torch.equal(control.head["bias"], torch.ones(2)), "only weights are masked"
