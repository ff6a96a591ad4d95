import pytest
import torch
from torch import nn

from sslticket.errors import BadInput
from sslticket.models import paper_networks
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import SynFlow
from tests.pruning.criteria.scoring_inputs import cut_down, linear, subject


def test_a_weights_score_is_the_sum_of_its_paths_products_of_absolute_weights() -> None:
    net = linear([[1.0, -2.0], [-3.0, 4.0]], [[5.0, -6.0]])

    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert torch.equal(x, torch.ones(1, 2, 1, 1, dtype=torch.float64))
            found: torch.Tensor = self.layers(x.flatten(1))
            return found

    names = ["layers.0.weight", "layers.2.weight"]
    scores = SynFlow().scores(subject(Pixels(), channels=2, size=1), names)
    # Through the hidden units flow 1 + 2 and 3 + 4, times 5 and 6 on the way out.
    assert scores["layers.0.weight"].tolist() == [[5.0, 10.0], [18.0, 24.0]]
    assert scores["layers.2.weight"].tolist() == [[15.0, 42.0]]


def convolutional() -> nn.Sequential:
    """Homogeneous: no biases, and batch norm that only scales, each channel by its own factor."""
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(width) for width in (5, 7)]
    for norm in norms:
        nn.init.normal_(norm.weight)
        nn.init.uniform_(norm.running_var, 0.1, 4.0)  # type: ignore[arg-type]
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, bias=False),
        norms[0],
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 7, 3, stride=2, bias=False),
        norms[1],
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 3, bias=False),
    )


def test_what_flows_into_a_hidden_unit_flows_out_of_it_and_layers_have_equal_sums() -> None:
    net = convolutional()
    scores = SynFlow().scores(subject(net, channels=2, size=8), ["0.weight", "4.weight", "9.weight"])
    for before, after in (("0.weight", "4.weight"), ("4.weight", "9.weight")):
        into = scores[before].flatten(1).sum(dim=1)
        out = scores[after].transpose(0, 1).flatten(1).sum(dim=1)
        torch.testing.assert_close(into, out, rtol=1e-12, atol=0)
    sums = torch.stack([score.sum() for score in scores.values()])
    torch.testing.assert_close(sums, sums[0].expand(3), rtol=1e-12, atol=0)
    with torch.no_grad():  # 7 units of 6 taps each were equal by symmetry if batch norm did not count
        assert scores["4.weight"].flatten(1).sum(dim=1).std() > 0


def test_conservation_holds_for_what_a_mask_leaves() -> None:
    net = convolutional()
    inputs = subject(net, channels=2, size=8)
    mask = cut_down(inputs, SynFlow(rounds=3), 0.3)
    pruned_model.set_mask(net, mask)
    scores = SynFlow().scores(inputs, list(mask))
    assert all(not scores[name][~layer].any() for name, layer in mask.items())
    into, out = scores["0.weight"].flatten(1).sum(dim=1), scores["4.weight"].transpose(0, 1).flatten(1).sum(dim=1)
    torch.testing.assert_close(into, out, rtol=1e-12, atol=0)


def test_the_network_is_left_as_it_was_bit_for_bit_even_where_its_forward_fails() -> None:
    net = convolutional()
    net[4].eval()
    inputs = subject(net, channels=2, size=8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    SynFlow().scores(inputs, ["0.weight"])
    with pytest.raises(RuntimeError):
        SynFlow().scores(subject(net, channels=3, size=8), ["0.weight"])
    assert modes == [module.training for module in net.modules()]
    assert all(parameter.grad is None for parameter in net.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.dtype == before[name].dtype


def test_a_flow_beyond_float32_is_ranked() -> None:
    """60 layers of 10 weights of size 100: a flow of 1e180."""
    torch.manual_seed(0)
    layers = [nn.Linear(10, 10, bias=False) for _ in range(60)]
    for layer in layers:
        nn.init.uniform_(layer.weight, 90, 110)
    net = nn.Sequential(nn.Flatten(), *layers)
    scores = SynFlow().scores(subject(net, channels=10, size=1), ["1.weight", "60.weight"])
    torch.testing.assert_close(scores["1.weight"].sum(), scores["60.weight"].sum(), rtol=1e-10, atol=0)
    assert 1e170 < float(scores["1.weight"].sum()) < 1e190


@pytest.mark.parametrize("rounds", [1, 3])
def test_counts_are_exact_in_any_number_of_rounds(rounds: int) -> None:
    net = convolutional()
    mask = cut_down(subject(net, channels=2, size=8), SynFlow(rounds=rounds), 0.1)
    assert mask.survivors == round(mask.total * 0.1)


def test_a_hundred_rounds_empty_no_layer_where_one_round_does() -> None:
    """VGG-19 with an eighth of its channels; 0.1% are 312 weights in 16 layers."""
    narrow = [step if isinstance(step, str) else step // 8 for step in paper_networks.VGG19]
    emptied = {}
    for rounds in (1, 100):
        torch.manual_seed(0)
        net = paper_networks.VGG(3, narrow, batch_norm=True)
        mask = cut_down(subject(net, channels=3, size=16), SynFlow(rounds=rounds), 1e-3)
        assert mask.survivors == round(mask.total * 1e-3)
        emptied[rounds] = mask.empty_layers
    assert emptied[1]
    assert not emptied[100]


def test_rounds_count_from_1() -> None:
    with pytest.raises(BadInput, match="--rounds must be at least 1"):
        SynFlow(rounds=0)
