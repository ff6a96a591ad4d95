import pytest

from sslticket.config.recipe import Data
from sslticket.data.augment import Blur, View
from sslticket.data.datasets.catalogue import InputSpec, get_dataset
from tests.runs import recipe

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
GRAY = ((0.3046,), (0.3755,))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (Data(dataset="cifar10"), InputSpec(3, 32, *CIFAR10)),
        (Data(dataset="cifar10", half="a"), InputSpec(3, 32, *CIFAR10)),
        (Data(dataset="cifar10", image_size=16), InputSpec(3, 16, *CIFAR10)),
        (Data(dataset="cifar10", channels=1), InputSpec(1, 32, (), ())),
        (Data(dataset="digits"), InputSpec(1, 8, *GRAY)),
        (Data(dataset="digits", channels=3), InputSpec(3, 8, (0.3046,) * 3, (0.3755,) * 3)),
        (Data(dataset="digits", augment=View(size=12)), InputSpec(1, 12, *GRAY)),
        (Data(dataset="digits", augment=(View(size=24, transforms=(Blur(),)), View(size=12))), InputSpec(1, 24, *GRAY)),
        (Data(dataset="digits", augment=(View(size=24), View(size=12)), image_size=16), InputSpec(1, 16, *GRAY)),
    ],
)
def test_a_recipe_tells_what_its_network_sees(data: Data, expected: InputSpec) -> None:
    which = recipe(data=data)
    assert InputSpec.from_recipe(which.to_dict()) == expected
    (first, *_) = which.views(get_dataset(data.dataset).train_view)
    assert first.size == expected.image_size, "as the search has it"


def test_other_recipes_tell_nothing() -> None:
    for other in ({}, {"data": 5}, {"data": {"dataset": "a set of another version"}}):
        assert InputSpec.from_recipe(other) is None
