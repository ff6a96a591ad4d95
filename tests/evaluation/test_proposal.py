"""What a search proposes to score its tickets under."""

from dataclasses import replace
from typing import Any

import pytest

from sslticket.config.flags import resolve_recipe
from sslticket.data.augment import Transform, View
from sslticket.evaluation.protocols import Protocol, find_protocol, propose_protocol
from tests.recipes import RECIPES, load

# The main paper's protocol of the data set scores what was found without labels, with few or with false ones.
MAIN = {
    "imagenet": (
        *("barlowtwins_resnet50", "byol_resnet50", "dino_resnet50", "mocov2_resnet50", "simclr_resnet50"),
        *("pretrained_simclr_resnet50", "pretrained_mocov2_resnet50"),
        *("simsiam_resnet50", "swav_resnet50", "vicreg_resnet50", "dinov2_vit_large"),
        *("exemplar_alexnet", "exemplar_resnet50", "rotnet_alexnet", "rotnet_resnet50", "s4l_resnet50"),
        *("supervised_alexnet", "supervised_resnet50"),
        *(f"supervised_resnet50_{by}{share}" for by in ("classes", "samples") for share in (1, 10, 30)),
        *(
            f"{task}_resnet50_{by}{share}"
            for task in ("exemplar", "rotnet", "simclr")
            for by in ("classes", "samples")
            for share in (1, 10)
        ),
        "s4l_resnet50_labels1",
    ),
    "places365": ("supervised_resnet50_places365",),
    "cifar10": tuple(
        f"{task}_{model}_cifar10"
        for task in ("exemplar", "rotnet", "shuffled", "supervised")
        for model in ("resnet18", "vgg19")
    ),
    "digits-demo": ("rigl_digits", "rotnet_digits", "supervised_digits"),
}
# Elsewhere it is the training of the search itself.
OWN = {
    "imagenet-sgd": ("transfer_resnet50_imagenet", "transfer_vgg19_imagenet"),
    "cifar10-sgd": ("transfer_resnet50_cifar10", "transfer_vgg19_cifar10"),
    "cifar10-adam": ("transfer_vgg19_cifar10_adam",),
    "mnist": ("stabilizing_lenet300_mnist",),
    "cifar10-resnet20": (
        "rigl_resnet20_cifar10",
        "set_resnet20_cifar10",
        "stabilizing_resnet20_cifar10_standard",
    ),
    "cifar10-resnet20-low": ("stabilizing_resnet20_cifar10_low",),
    "cifar10-resnet20-warmup": ("stabilizing_resnet20_cifar10_warmup",),
    "cifar10-vgg19": ("stabilizing_vgg19_cifar10_standard",),
    "cifar10-vgg19-low": ("stabilizing_vgg19_cifar10_low",),
    "cifar10-vgg19-warmup": ("stabilizing_vgg19_cifar10_warmup",),
    "imagenet-resnet50": ("stabilizing_resnet50", "stabilizing_resnet50_oneshot"),
    "imagenet-inception_v3": ("stabilizing_inception_oneshot",),
    # A transformer's own, however it was searched; what trains ResNets trains none.
    "imagenet-deit": ("supervised_vit_small", "dino_vit_small", "mae_vit_base", "ibot_vit_small"),
    "imagenet-convnext": ("supervised_convnext_tiny",),
    "imagenet-squeezenet1_0": ("stabilizing_squeezenet_oneshot",),
    "own": (
        "pretrained_supervised_resnet50",
        "rigl_resnet50",
        "rigl_resnet50_uniform",
        "set_resnet50",
        "static_resnet50",
        "structured_resnet50_2of4",
        "structured_resnet50_2of4_rewound",
    ),
    "cifar10-conv6": tuple(f"continuous_conv6_cifar10{kind}" for kind in ("", "_imp", "_iss")),
    "cifar10-conv6-100ep": tuple(f"continuous_conv6_cifar10_supermask{kind}" for kind in ("", "_ss")),
    "cifar10-resnet20-85ep": ("continuous_resnet20_cifar10", "continuous_resnet20_cifar10_imp"),
}
EXPECTED = {recipe: protocol for table in (MAIN, OWN) for protocol, recipes in table.items() for recipe in recipes}


def after(name: str, **given: object) -> Protocol | None:
    return propose_protocol(resolve_recipe(load(name), given).to_dict())


def name_after(name: str, **given: object) -> str | None:
    found = after(name, **given)
    return None if found is None else found.name


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe(name: str) -> None:
    assert name_after(name) == EXPECTED[name]


def test_a_search_with_labels_and_settings_of_nobody_proposes_its_own() -> None:
    found = after("stabilizing_resnet20_cifar10_standard", lr=0.05)
    assert found is not None
    assert (found.name, found.dataset, found.training.optimizer.lr, found.training.batch_size) == (
        "own",
        "cifar10",
        0.05,
        128,
    )
    # Another network has no protocol with the paper's settings.
    assert name_after("stabilizing_resnet20_cifar10_standard", model="resnet50") == "own"
    # The trainings are those of cifar10, the images are not.
    assert name_after("supervised_vgg19_cifar10", image_size=24) == "own"
    assert name_after("supervised_vgg19_cifar10", dataset="svhn_extra") == "own"


@pytest.mark.parametrize("change", [{"subset": 0.5}, {"shots": 5}, {"shuffle_labels": 0.5}])
def test_a_search_with_few_or_false_labels_proposes_all_true_ones(change: dict[str, object]) -> None:
    assert name_after("supervised_resnet18_cifar10", lr=0.5, **change) == "cifar10"
    assert name_after("supervised_resnet18_cifar10", lr=0.5) == "own"


def test_tickets_of_a_half_are_scored_on_the_other() -> None:
    assert name_after("supervised_vgg19_cifar10", half="a") == "cifar10b"
    assert name_after("transfer_vgg19_cifar10", half="b") == "cifar10a-sgd"
    assert name_after("supervised_vgg19_cifar10", half="a", lr=0.5) == "cifar10b"


def test_without_labels_it_is_what_takes_the_network_and_best_its_images() -> None:
    assert name_after("rotnet_vgg19_cifar10", dataset="cifar100", lr=0.5) == "cifar100-sgd"
    assert name_after("rotnet_digits", dataset="fashion_mnist", lr=0.5) == "fashion_mnist"
    assert name_after("rotnet_digits", dataset="fashion_mnist", image_size=12, lr=0.5) == "fashion_mnist-demo"
    # 28 pixels are nobody's. Three convolutions with a global pool take others, linear layers those that pooling makes
    # as few features of: 20 or 16 pixels come to 2 by 2.
    assert name_after("rotnet_digits", dataset="cifar10", image_size=28) == "cifar10"
    assert name_after("rotnet_digits", dataset="cifar10", image_size=28, model="conv6") is None
    assert name_after("rotnet_digits", dataset="cifar10", image_size=20, model="conv6") == "cifar10-small"
    assert name_after("rotnet_digits", dataset="svhn_extra") is None


def test_a_search_with_an_effect_of_its_own_is_no_reason_to_fail() -> None:
    class Sepia(Transform):
        def apply(self, pixels: Any) -> Any:
            return pixels

    recipe = load("supervised_resnet18_cifar10")
    views = View(size=32, transforms=(Sepia(),))
    changed = replace(recipe, data=replace(recipe.data, augment=views))
    found = propose_protocol(changed.to_dict())
    assert found is not None
    assert found.name == "cifar10"


def test_all_that_is_searched_in_a_folder_is_scored_under_that_folders_protocol() -> None:
    own = {"dataset": "folder:My flowers", "image_size": 64}
    found = {name_after(name, **own) for name in ("rotnet_resnet50", "supervised_resnet50")}
    found |= {name_after("supervised_resnet50", subset=0.1, batch_size=32, **own)}
    (name,) = found
    assert name is not None
    assert name.startswith("My-flowers-90ep-64px-sgd-")
    protocol = after("rotnet_resnet50", **own)
    assert protocol is not None
    assert protocol.spelling == "folder:My flowers,length=90ep,image_size=64,optimizer=sgd,batch_size=64"
    assert find_protocol(protocol.spelling) == protocol
    halved = after("rotnet_resnet50", half="a", **own)
    assert halved is not None
    assert (halved.half, halved.name[:24]) == ("b", "My-flowersb-90ep-64px-sg")
    small = propose_protocol(resolve_recipe(load("rotnet_digits"), own | {"batch_size": 16}).to_dict(), trial=True)
    assert small is not None
    assert small.spelling == "folder:My flowers,length=200it,image_size=64,optimizer=adam,batch_size=16"


def test_after_a_trial_of_a_transformer_at_another_size_it_is_its_own() -> None:
    """The trial's protocol shows 224 pixels, for which the position embedding is another tensor."""

    def name_after_trial(size: int) -> str | None:
        recipe = resolve_recipe(load("dino_vit_small"), {"model": "test_vit", "image_size": size, "length": "40it"})
        found = propose_protocol(recipe.to_dict(), trial=True)
        return None if found is None else found.name

    assert (name_after_trial(64), name_after_trial(224)) == ("own", "imagenet-trial")


def test_a_trial_proposes_what_is_as_short_as_it_is() -> None:
    def after_trial(name: str, **given: object) -> Protocol | None:
        return propose_protocol(resolve_recipe(load(name), {"length": "40it", **given}).to_dict(), trial=True)

    names = [found and found.name for found in map(after_trial, ("rotnet_resnet50", "rotnet_digits"))]
    assert names == ["imagenet-trial", "own"]
    own = after_trial("rotnet_digits")
    assert own is not None
    assert own.training.length == "40it"
