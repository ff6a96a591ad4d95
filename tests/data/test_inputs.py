import pytest

from sslticket.data.catalogue import DATASETS
from sslticket.data.effects import Blur
from sslticket.data.inputs import Inputs
from sslticket.data.views import View
from sslticket.recipe import Data
from tests.runs import recipe

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
GRAY = ((0.3046,), (0.3755,))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (Data(dataset="cifar10"), Inputs(3, 32, *CIFAR10)),
        (Data(dataset="cifar10", half="a"), Inputs(3, 32, *CIFAR10)),
        (Data(dataset="cifar10", image_size=16), Inputs(3, 16, *CIFAR10)),
        (Data(dataset="cifar10", channels=1), Inputs(1, 32, (), ())),
        (Data(dataset="digits"), Inputs(1, 8, *GRAY)),
        (Data(dataset="digits", channels=3), Inputs(3, 8, (0.3046,) * 3, (0.3755,) * 3)),
        (Data(dataset="digits", augment=View(size=12)), Inputs(1, 12, *GRAY)),
        (Data(dataset="digits", augment=(View(size=24, effects=(Blur(),)), View(size=12))), Inputs(1, 24, *GRAY)),
        (Data(dataset="digits", augment=(View(size=24), View(size=12)), image_size=16), Inputs(1, 16, *GRAY)),
    ],
)
def test_a_recipe_tells_what_its_network_sees(data: Data, expected: Inputs) -> None:
    which = recipe(data=data)
    assert Inputs.of(which.to_dict()) == expected
    (first, *_) = which.views(DATASETS[data.dataset].train)
    assert first.size == expected.image_size, "as the search has it"


def test_other_recipes_tell_nothing() -> None:
    for other in ({}, {"data": 5}, {"data": {"dataset": "a set of another version"}}):
        assert Inputs.of(other) is None
