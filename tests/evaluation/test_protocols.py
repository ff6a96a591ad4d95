import json
from dataclasses import replace

import pytest

from sslticket.config.training import SGD, Adam, AdamW, Span
from sslticket.data.augment import View
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.errors import BadInput
from sslticket.evaluation import protocols
from sslticket.evaluation.protocols import BUILT_IN_PROTOCOLS, propose_protocol
from sslticket.evaluation.tasks import check_network
from sslticket.evaluation.trainer import SplitCache
from sslticket.objectives.supervised import Supervised
from tests.recipes import RECIPES, load

TRANSFER = ("fashion_mnist", "svhn", "cifar10", "cifar10a", "cifar10b", "cifar100", "imagenet", "places365")


def rates(name: str, model: str, epochs: tuple[int, ...]) -> list[float]:
    schedule = protocols.find_protocol(name).training_for(model).schedule(50_000)
    return [schedule.lr_at(epoch * 50_000 + 1) for epoch in epochs]


def test_the_transfer_protocols_are_those_of_one_ticket_to_win_them_all() -> None:
    for target in TRANSFER:
        sgd, adam = (protocols.find_protocol(f"{target}-{optimizer}") for optimizer in ("sgd", "adam"))
        assert sgd.seeds == (0, 1, 2, 3, 4, 5)
        for model, length in (("vgg19", "160ep"), ("resnet50", "90ep")):
            assert {(each.training_for(model).length, each.training_for(model).batch_size) for each in (sgd, adam)} == {
                (length, 512)
            }
            assert sgd.training_for(model).optimizer == SGD(lr=0.1, momentum=0.9, weight_decay=1e-4)
            assert adam.training_for(model).optimizer == Adam(lr=3e-4, betas=(0.9, 0.999), weight_decay=1e-4)
    assert rates("cifar100-sgd", "vgg19", (0, 79, 80, 120)) == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert rates("cifar100-adam", "resnet50", (0, 50, 65, 80)) == pytest.approx([3e-4, 3e-5, 3e-6, 3e-7])


def test_other_papers_protocols_keep_their_settings() -> None:
    assert protocols.find_protocol("cifar10").training.optimizer == Adam(lr=1e-3, weight_decay=1e-4)
    assert protocols.find_protocol("places365").training_for("resnet50").batch_size == 2048
    assert protocols.find_protocol("mnist").training.clock(60_000).total_steps == 50_000
    assert protocols.find_protocol("mnist").training.batch_size == 60


def test_batch_norm_sees_as_many_images_as_a_gpu_of_the_paper_did() -> None:
    seen = {
        (name, model): protocols.find_protocol(name).training_for(model).ghost_batch
        for name in ("imagenet", "places365", "cifar10", "imagenet-sgd", "cifar10-adam", "places365-adam")
        for model in ("alexnet", "resnet50")
    }
    assert seen == {
        ("imagenet", "alexnet"): 512,
        ("imagenet", "resnet50"): 96,
        **{("places365", model): 128 for model in ("alexnet", "resnet50")},
        **{("cifar10", model): None for model in ("alexnet", "resnet50")},
        **{(name, model): 32 for name in ("imagenet-sgd", "places365-adam") for model in ("alexnet", "resnet50")},
        **{("cifar10-adam", model): 256 for model in ("alexnet", "resnet50")},
    }
    assert protocols.find_protocol("imagenet-trial").training.ghost_batch is None


def test_what_the_network_sees() -> None:
    for target in ("fashion_mnist", "svhn", "cifar10", "cifar100"):
        for optimizer in ("sgd", "adam"):
            train, plain = protocols.find_protocol(f"{target}-{optimizer}").views(get_dataset(target))
            assert (train.size, train.crop, train.pad, train.flip) == (32, "pad", 4, True)
            assert (plain.size, plain.crop, plain.flip) == (32, "center", False)
    assert [view.size for view in protocols.find_protocol("imagenet-sgd").views(get_dataset("imagenet"))] == [224, 224]
    # The padding of 2 in 32 pixels keeps its share.
    train, plain = protocols.find_protocol("cifar10b-small").views(get_dataset("cifar10"))
    assert (train.size, train.resize, train.pad, plain.size) == (16, 16, 1, 16)


def test_every_name_is_found_once_and_says_optimiser_and_half() -> None:
    names = [protocol.name for protocol in BUILT_IN_PROTOCOLS]
    assert len(names) == len(set(names))
    for protocol in BUILT_IN_PROTOCOLS:
        assert protocols.find_protocol(protocol.name) == protocol
        assert get_dataset(protocol.dataset).name == protocol.dataset
        assert protocol.name.startswith(f"{protocol.dataset}{protocol.half or ''}")
        if protocol.name.endswith("-sgd"):
            assert isinstance(protocol.training.optimizer, SGD)


def test_a_data_sets_name_alone_is_answered_with_its_protocols() -> None:
    with pytest.raises(BadInput, match="did you mean cifar100-sgd or cifar100-adam"):
        protocols.find_protocol("cifar100")


def test_the_protocols_of_one_network_are_the_recipes_of_it() -> None:
    """Every published recipe whose training a protocol has: fit and views, of training and of measuring."""
    seen = set()
    for name in RECIPES:
        recipe = load(name)
        protocol = propose_protocol(recipe.to_dict())
        assert protocol is not None, name
        few = recipe.data.subset < 1 or recipe.data.labels < 1
        if type(recipe.objective) is not Supervised or few or recipe.data.shuffle_labels:
            continue
        seen.add(protocol.name)
        entry = get_dataset(recipe.data.dataset)
        train, plain = protocol.views(entry)
        assert protocol.training_for(recipe.model) == recipe.training, name
        assert (train,) == recipe.views(entry.train_view), name
        assert (plain.size, plain.crop, plain.flip, plain.transforms) == (train.size, "center", False, ()), name
        assert not protocol.models or recipe.model in protocol.models
        assert len(protocol.models) < 2 or protocol.name in ("imagenet-deit", "imagenet-convnext")  # whole families
    assert {protocol.name for protocol in BUILT_IN_PROTOCOLS if protocol.models} <= seen
    assert {"imagenet", "places365", "cifar10", "mnist", "imagenet-sgd", "cifar10-sgd", "cifar10-adam"} <= seen


def test_networks_of_other_sizes_see_what_theirs_do() -> None:
    train, plain = protocols.find_protocol("imagenet-inception_v3").views(get_dataset("imagenet"))
    # 299 of 342 pixels, as 224 of 256.
    assert (train.size, train.crop, plain.size, plain.resize) == (299, "resized", 299, 342)


def test_a_name_says_which_network_a_protocol_is_for() -> None:
    for protocol in BUILT_IN_PROTOCOLS:
        if protocol.models:
            dataset, kind = protocol.name.split("-")[:2]
            assert dataset == protocol.dataset
            assert (kind,) == protocol.models or all(kind in model or "vit_" in model for model in protocol.models)
        assert "." not in protocol.name, "names of rows and endpoints are told apart by dots"


def test_a_protocol_of_one_network_refuses_others_and_names_what_fits() -> None:
    with pytest.raises(
        BadInput, match=r"cifar10-vgg19-low is for vgg19, not for resnet20; give --protocol cifar10 or "
    ) as told:
        protocols.find_protocol("cifar10-vgg19-low").training_for("resnet20")
    offered = str(told.value).partition("--protocol ")[2].split(" or ")
    assert {"cifar10-sgd", "cifar10-resnet20-low", "cifar10-resnet20-85ep", "own"} < set(offered)
    assert all(protocols.find_protocol(name).accepts("resnet20") for name in offered if name != "own")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("asked", "model", "told"),
    [
        ({"layer_decay": 0.5}, "conv3", "not for conv3: --layer-decay must have a network that knows its layers"),
        ({"drop_path": 0.1}, "conv3", "not for conv3: .*--drop-path"),
        ({"drop_path": 0.1}, "vgg11_bn", "not for vgg11_bn: .*--drop-path"),
    ],
)
def test_a_protocol_refuses_networks_that_lack_what_its_training_needs(
    asked: dict[str, float], model: str, told: str
) -> None:
    usual = protocols.find_protocol("cifar10")
    protocol = replace(usual, name="mine", training=replace(usual.training, **asked))
    with pytest.raises(BadInput, match=f"protocol mine is {told}"):
        check_network(protocol, model, 3)
    check_network(protocol, "vit_tiny_patch16_224", 3)
    check_network(usual, model, 3)


def test_the_protocols_of_the_paper_that_trains_what_is_left_start_at_the_rewind_point() -> None:
    assert {protocol.name for protocol in BUILT_IN_PROTOCOLS if protocol.start == "k"} == {
        "mnist",
        *(f"cifar10-{model}{schedule}" for model in ("resnet20", "vgg19") for schedule in ("", "-low", "-warmup")),
        *(f"imagenet-{model}" for model in ("resnet50", "inception_v3", "squeezenet1_0")),
    }


def test_a_suffix_gives_the_other_clock_and_the_own_one_no_other_name() -> None:
    whole, late = protocols.find_protocol("cifar10"), protocols.find_protocol("cifar10@k")
    assert late == replace(whole, name="cifar10@k", start="k")
    assert protocols.find_protocol("cifar10@0") == whole
    assert protocols.find_protocol("mnist@k") == protocols.find_protocol("mnist")
    assert (protocols.find_protocol("mnist@0").start, protocols.find_protocol("mnist@0").base) == ("0", "mnist")
    assert protocols.find_protocol("imagenet-trial@k").seeds == (0,)
    with pytest.raises(BadInput, match="must start at 0 or k, got cifar10@1; give cifar10@0 or cifar10@k"):
        protocols.find_protocol("cifar10@1")
    with pytest.raises(BadInput, match="unknown protocol 'cifar100'; did you mean cifar100-sgd or cifar100-adam"):
        protocols.find_protocol("cifar100@k")


def test_the_steps_of_both_clocks() -> None:
    """Stabilizing the Lottery Ticket Hypothesis: T* - k iterations, of 30K after 500, and of 90 epochs after 6."""
    standard = protocols.find_protocol("cifar10-resnet20")
    assert standard.steps("resnet20", 500 * 128, 50_000) == (500, 30_000)
    assert protocols.find_protocol("cifar10-resnet20@0").steps("resnet20", 500 * 128, 50_000) == (0, 30_000)
    # Of a search with other batches: 780 steps of 128 are 195 of 512, and the step within which they end counts whole.
    assert protocols.find_protocol("cifar10@k").steps("vgg19", 780 * 128, 50_000) == (195, 15_625)
    assert protocols.find_protocol("cifar10@k").steps("vgg19", 780 * 128 + 1, 50_000) == (196, 15_625)
    assert protocols.find_protocol("imagenet-resnet50").steps("resnet50", 6 * 1_281_167, 1_281_167) == (7507, 112_603)
    assert protocols.find_protocol("imagenet").steps("alexnet", 3_840_000, 1_281_167) == (0, 28_151)


def test_a_rewind_point_beyond_the_end_leaves_nothing_to_train() -> None:
    late = protocols.find_protocol("cifar10-trial@k")
    with pytest.raises(
        BadInput, match=r"48 samples is at step 6 of cifar10-trial@k, which has 6 .*cifar10-trial@0, or"
    ):
        late.steps("vgg19", 48, 50_000)
    assert late.steps("vgg19", 47 - 8, 50_000) == (5, 6)
    assert protocols.find_protocol("cifar10-trial").steps("vgg19", 48, 50_000) == (0, 6)


def test_the_hash_is_the_same_in_every_version() -> None:
    """Rows carry it: a number that changes here says that old and new rows are of different trainings."""
    pinned = {
        ("imagenet", "alexnet"): "81e653a8",
        ("imagenet", "resnet50"): "208b384d",
        ("cifar10", "vgg19"): "f2647fcc",
        ("cifar10b-sgd", "resnet50"): "211d2c6e",
        ("cifar10-resnet20-warmup", "resnet20"): "2281f2ee",
        ("imagenet-squeezenet1_0", "squeezenet1_0"): "bfb264f5",
        ("mnist", "lenet300"): "34568b3c",
        ("cifar10-small@k", "conv3"): "1661d33f",
    }
    assert {(name, model): protocols.find_protocol(name).hash_for(model) for name, model in pinned} == pinned


def test_the_hash_follows_every_setting_of_a_training_and_nothing_else() -> None:
    base = protocols.find_protocol("cifar10")
    changed = [
        replace(base, dataset="cifar100"),
        replace(base, half="a"),
        replace(base, start="k"),
        replace(base, image_size=16),
        replace(base, train=View(size=32)),
        replace(base, eval=View(size=32, resize=36)),
        replace(base, training=replace(base.training, warmup="1ep")),
        replace(base, training=replace(base.training, clip=1.0)),
        replace(base, training=replace(base.training, ghost_batch=256)),
        replace(base, training=replace(base.training, optimizer=SGD(lr=1e-3))),
        *(
            replace(base, training=replace(base.training, optimizer=AdamW(lr=1e-3, last_weight_decay=last)))
            for last in (None, 0.0, 0.4)
        ),
        replace(base, training_by_model={"vgg19": replace(base.training, batch_size=256)}),
    ]
    hashes = [each.hash_for("vgg19") for each in (base, *changed)]
    assert len(set(hashes)) == len(hashes)
    assert changed[-1].hash_for("resnet50") == base.hash_for("resnet50")
    before = replace(protocols.find_protocol("imagenet").training, ghost_batch=None)
    assert replace(protocols.find_protocol("imagenet"), training=before).hash_for("resnet50") == "32c50f53", (
        "that of rows before it"
    )
    same = replace(
        base, name="else", seeds=(7,), models=("vgg19",), image_size=32, train=get_dataset("cifar10").train_view
    )
    assert same.hash_for("vgg19") == base.hash_for("vgg19")


def test_own_is_the_recipes_training_with_labels() -> None:
    for name in RECIPES:
        recipe = load(name)
        mine = protocols.own_protocol(json.loads(json.dumps(recipe.to_dict())))
        assert (mine.name, mine.start, mine.seeds, mine.models) == ("own", "0", (0, 1, 2, 3, 4, 5), ())
        assert mine.training_for(recipe.model) == recipe.training
        entry = get_dataset(recipe.data.dataset)
        seen = replace(recipe, objective=Supervised()).views(entry.train_view)
        assert mine.views(entry)[0] == seen[0]
        assert mine.views(entry)[1] == entry.eval_view.at_size(seen[0].size)


def test_own_views_follow_size_half_and_augmentation() -> None:
    recipe = load("stabilizing_resnet20_cifar10_low")
    first = recipe.data.augment
    assert isinstance(first, View)
    data = replace(recipe.data, image_size=16, half="b", augment=(first, View(size=8)))
    mine = protocols.own_protocol(replace(recipe, data=data).to_dict())
    train, plain = mine.views(get_dataset("cifar10"))
    assert mine.half == "b"
    assert (train.size, train.resize, train.pad, train.flip) == (16, 16, 2, True)
    assert (plain.size, plain.resize, plain.crop) == (16, 16, "center")
    # Fashion-MNIST's 28 pixels in a black margin, in training and when measured: enlarged, clothes would be larger.
    fashion = replace(recipe, data=replace(recipe.data, dataset="fashion_mnist"))
    _, plain = protocols.own_protocol(fashion.to_dict()).views(get_dataset("fashion_mnist"))
    assert plain == View(size=32) == protocols.find_protocol("fashion_mnist-sgd").views(get_dataset("fashion_mnist"))[1]
    # A crop of any scale is measured as the data set is.
    large = replace(recipe, data=replace(recipe.data, dataset="imagenet", augment=View(size=112, crop="resized")))
    assert protocols.own_protocol(large.to_dict()).views(get_dataset("imagenet"))[1] == View(size=112, resize=128)


def test_own_of_earlier_versions_and_of_strangers() -> None:
    tree = load("supervised_resnet18_cifar10").to_dict()
    old = {**tree, "data": {"dataset": "cifar10"}}
    assert protocols.own_protocol(old) == protocols.own_protocol(tree)
    with pytest.raises(BadInput, match=r"own cannot follow .*unknown class 'Lion'.*give another --protocol"):
        protocols.own_protocol({**tree, "fit": {**tree["fit"], "optimizer": {"is": "Lion", "lr": 0.1}}})
    with pytest.raises(BadInput, match=r"own cannot follow .*unknown dataset 'cifar11'; did you mean cifar10"):
        protocols.own_protocol({**tree, "data": {"dataset": "cifar11"}})
    with pytest.raises(BadInput, match=r"own cannot follow .*'fit'"):
        protocols.own_protocol({"data": tree["data"]})


def test_own_needs_a_ticket() -> None:
    for name in ("own", "own@k"):
        with pytest.raises(BadInput, match=f"protocol {name} is each ticket's own recipe"):
            protocols.find_protocol(name)
    recipe = load("rotnet_resnet50").to_dict()
    assert (
        protocols.resolve_protocol("own", recipe)
        == protocols.resolve_protocol("own@0", recipe)
        == protocols.own_protocol(recipe)
    )
    assert protocols.resolve_protocol("own@k", recipe) == replace(
        protocols.own_protocol(recipe), name="own@k", start="k"
    )
    assert protocols.resolve_protocol("imagenet@k", recipe) == protocols.find_protocol("imagenet@k")


def test_six_seeds_but_for_trials() -> None:
    assert {protocol.seeds for protocol in BUILT_IN_PROTOCOLS} == {(0, 1, 2, 3, 4, 5)}
    assert {protocols.find_protocol(f"{name}-trial").seeds for name in ("cifar10", "imagenet")} == {(0,)}


def test_protocols_of_one_set_share_its_images() -> None:
    split_cache = SplitCache(None)
    one = protocols.find_protocol("digits-demo")
    mine = protocols.own_protocol(load("supervised_digits").to_dict())
    assert split_cache.get(one, 1) is split_cache.get(mine, 1) is split_cache.get(replace(one, start="k"), 1)
    assert len(split_cache.get(replace(mine, half="a"), 1).training.manifest) < 800


def test_a_folders_protocol_has_its_settings_in_its_name_and_follows_its_batch() -> None:
    plain = protocols.find_protocol("folder:flowers")
    assert (plain.dataset, plain.input_size, plain.training.length) == ("folder:flowers", 224, "90ep")
    assert plain.training.optimizer == SGD(lr=0.0125, momentum=0.9, weight_decay=1e-4), "0.1 for 512, so for 64"
    given = protocols.find_protocol("folder:flowers,length=30it,image_size=32,optimizer=adam,batch_size=16,half=b@k")
    assert given.training.optimizer == Adam(lr=3e-4, weight_decay=1e-4)
    assert (given.half, given.start, given.training.batch_size, given.input_size) == ("b", "k", 16, 32)
    assert [Span.parse(drop).unit for drop in given.training.drops] == ["%"] * 3
    assert given.name.startswith("flowersb-30it-32px-adam-")
    assert given.name.endswith("@k")
    assert protocols.find_protocol(given.spelling) == given
    decayed = protocols.find_protocol("folder:flowers,optimizer=adamw,length=30ep,image_size=32")
    assert decayed.training.optimizer == AdamW(lr=6.25e-5, spare="tokens"), "1e-3 for 1024, so for 64"
    assert (decayed.training.decay, decayed.training.last_lr, decayed.training.drop_path) == ("cosine", 0.0, 0.0)
    assert Span.parse(decayed.training.warmup).amount == pytest.approx(100 * 5 / 90)
    assert protocols.find_protocol(decayed.spelling) == decayed
    names = {
        protocols.find_protocol(f"folder:{rest}").name
        for rest in ("flowers", "flowers,lr=0.1", "flowers,batch_size=32", "flowers,length=9ep", "birds", "猫", "犬")
    }
    assert len(names) == 7
    assert all(name.isascii() for name in names)
    # A name may have commas, and what looks like a setting and is none is told.
    assert protocols.find_protocol("folder:cats, dogs,length=1ep").dataset == "folder:cats, dogs"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("lenght=1ep", "takes length, image_size, optimizer, batch_size, lr, half, got lenght"),
        ("length=1", "must be like 90ep"),
        ("length=0ep", "length must be above 0, got 0ep"),
        ("length=2ep,length=3ep", "must be given once"),
        ("image_size=big", "image_size must be a whole number from 1 on, got big"),
        ("batch_size=0", "batch_size must be a whole number from 1 on, got 0"),
        ("optimizer=lion", "optimizer must be sgd, adam, adamw, got lion"),
        ("half=c", "half must be a or b, got c"),
        ("lr=much", "lr must be a number, got much"),
    ],
)
def test_a_folders_protocol_refuses_what_it_cannot_be(settings: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        protocols.find_protocol(f"folder:flowers,{settings}")


def test_a_trial_protocol_has_the_rate_for_its_batch() -> None:
    trial, whole = (protocols.find_protocol(f"imagenet{end}").training for end in ("-trial", ""))
    assert trial.optimizer.lr == pytest.approx(whole.optimizer.lr * 8 / 1536, rel=1e-2)
