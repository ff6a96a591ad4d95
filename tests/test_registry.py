"""Settings that have been JSON come back as they were, and what is unknown is named."""

import inspect
import json
from typing import Any

import pytest

from sslticket import registry
from sslticket.config.training import LARS, SGD, Adam, TrainConfig
from sslticket.data import TRANSFORMS, augment
from sslticket.data.augment import Blur, HSVNoise, Jitter, Rotate, Transform, View
from sslticket.errors import BadInput
from tests.recipes import RECIPES, load


def through_json(settings: object) -> Any:
    return json.loads(json.dumps(registry.settings_to_json(settings)))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipes_training_and_views_come_back(name: str) -> None:
    recipe = load(name)
    assert TrainConfig.from_dict(through_json(recipe)["fit"]) == recipe.training
    for view in recipe.views(View(size=32, crop="resized")):
        assert View.from_dict(through_json(view)) == view


def test_nested_values_come_back_with_their_types() -> None:
    view = View(
        size=24,
        resize=28,
        scale=(0.2, 0.9),
        transforms=(
            Rotate(degrees=3.5),
            Jitter(probability=0.5, hue=0.1),
            HSVNoise(),
            Blur(sigma=(0.5, 1.5), kernel=5),
        ),
    )
    assert View.from_dict(through_json(view)) == view
    assert hash(View.from_dict(through_json(view))) == hash(view), "lists have become tuples"
    fit = TrainConfig(length="3ep", batch_size=8, optimizer=LARS(lr=2.0, bias_lr=0.5), decay="cosine", clip=1.5)
    assert TrainConfig.from_dict(through_json(fit)) == fit


def test_every_transform_of_the_package_has_its_name_in_the_registry() -> None:
    own = [each for _, each in inspect.getmembers(augment, inspect.isclass) if issubclass(each, Transform)]
    assert {each.__name__ for each in own if each is not Transform} <= set(TRANSFORMS.names())
    assert all(TRANSFORMS.get(each.__name__) is each for each in own if each is not Transform)


def test_recipes_of_earlier_versions_lack_later_settings() -> None:
    old = {"is": "Fit", "length": "90ep", "batch_size": 8, "optimizer": {"is": "SGD", "lr": 0.1}}
    assert TrainConfig.from_dict(old) == TrainConfig(length="90ep", batch_size=8, optimizer=SGD(lr=0.1))
    assert View.from_dict({"is": "View", "size": 32}) == View(size=32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": {"is": "Adma", "lr": 0.1}}, "unknown class 'Adma'; did you mean Adam"),
        (
            {"optimizer": {"is": "Adam", "lr": 0.1, "beta": [0.9, 0.99]}},
            "unknown field of Adam 'beta'; did you mean betas",
        ),
        ({"optimizer": "SGD"}, "an optimizer must be an Optimizer such as SGD"),
        ({"optimizer": {"is": "SGD", "momentum": 0.9}}, "SGD cannot be made of its values .*'lr'"),
        ({"lenght": "3ep"}, "unknown field of Fit 'lenght'; did you mean length"),
        ({"batch_size": "many"}, "Fit cannot be made of its values .*str"),
        ({"length": "10%"}, "--length must be in epochs, steps or samples, got 10%"),
    ],
)
def test_what_makes_no_training_is_named(change: dict[str, Any], message: str) -> None:
    fit = through_json(TrainConfig(length="3ep", batch_size=8, optimizer=Adam(lr=0.1)))
    with pytest.raises(BadInput, match=message):
        TrainConfig.from_dict(fit | change)


def test_what_makes_no_view_is_named() -> None:
    with pytest.raises(BadInput, match="unknown class 'Solarise'; did you mean Solarize"):
        View.from_dict({"is": "View", "size": 8, "effects": [{"is": "Solarise"}]})
    with pytest.raises(BadInput, match=r"unknown field of View 'padding'; .*pad"):
        View.from_dict({"is": "View", "size": 8, "padding": 2})
    with pytest.raises(BadInput, match="unknown view 'Sight'"):
        View.from_dict({"is": "Sight", "size": 8})
    with pytest.raises(BadInput, match="size of a view must be at least 1 pixel, got 0"):
        View.from_dict({"is": "View", "size": 0})
