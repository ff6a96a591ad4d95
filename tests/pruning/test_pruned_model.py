import copy

import pytest
import torch
from torch import nn

from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def gated(seed: int = 1) -> tuple[nn.Sequential, Mask]:
    net = network()
    names = prunable_weights(net)
    pruned_model.attach_gates(net, names)
    generator = torch.Generator().manual_seed(seed)
    mask = Mask(
        {name: torch.rand(pruned_model.stored_state(net)[name].shape, generator=generator) < 0.4 for name in names}
    )
    return net, mask


@pytest.mark.parametrize("kind", ["nesterov", "adam"])
def test_pruned_weights_stay_exactly_zero_through_momentum_and_weight_decay(kind: str) -> None:
    net, mask = gated()
    pruned_model.set_mask(net, mask)
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True)
        if kind == "nesterov"
        else torch.optim.Adam(net.parameters(), lr=0.1, weight_decay=1e-2)
    )
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.randn(8, 1, 4, 4)).square().sum().backward()
        optimizer.step()
    for name, layer in mask.items():
        assert not pruned_model.stored_state(net)[name][~layer].any(), "not even in what is stored"
        assert pruned_model.read_state(net)[name][layer].abs().min() > 0
    for state in optimizer.state.values():
        for value in state.values():
            assert torch.isfinite(value).all()


def test_an_open_gate_changes_nothing_and_names_stay_clean() -> None:
    plain, (net, _) = network(), gated()
    images = torch.randn(5, 1, 4, 4)
    torch.testing.assert_close(net(images), plain(images), rtol=0, atol=0)
    assert pruned_model.read_state(net).keys() == plain.state_dict().keys()


def test_state_is_written_and_read_back_under_clean_names() -> None:
    (net, mask), (other, _) = gated(), gated()
    pruned_model.set_mask(net, mask)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    pruned_model.write_state(other, pruned_model.read_state(net))
    for name, value in pruned_model.read_state(net).items():
        assert torch.equal(pruned_model.read_state(other)[name], value)


def test_a_deep_copy_has_gates_of_its_own() -> None:
    net, mask = gated()
    twin = copy.deepcopy(net)
    pruned_model.set_mask(twin, mask)
    assert all(pruned_model.read_state(net)[name].all() for name in mask)
    assert not pruned_model.read_state(twin)["0.weight"][~mask["0.weight"]].any()


def test_a_state_of_another_network_is_refused() -> None:
    net, _ = gated()
    with pytest.raises(BadInput, match=r"got 2 without a partner, .* it is of another model"):
        pruned_model.write_state(net, nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).state_dict())
    wider = network()
    wider[4] = nn.Linear(16, 5)
    with pytest.raises(BadInput, match=r"4.bias of a state must have shape \(3,\), got \(5,\)"):
        pruned_model.write_state(net, wider.state_dict())


def test_a_mask_falls_on_the_copies_that_follow_the_backbone() -> None:
    backbone, mask = gated()
    net = nn.ModuleDict(
        {"backbone": backbone, "heads": nn.ModuleDict({"target": pruned_model.MaskedCopy(copy.deepcopy(backbone))})}
    )
    pruned_model.set_mask_everywhere(net, mask)
    for part in ("backbone", "heads.target.backbone"):
        stored = pruned_model.stored_state(net.get_submodule(part))
        for name, layer in mask.items():
            assert not stored[name][~layer].any()
            assert stored[name][layer].abs().min() > 0
