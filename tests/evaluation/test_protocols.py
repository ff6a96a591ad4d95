import pytest

from sslticket.data.catalogue import dataset
from sslticket.errors import BadInput
from sslticket.evaluation import protocols
from sslticket.evaluation.protocols import PROTOCOLS
from sslticket.fit import SGD, Adam

TRANSFER = ("fashion_mnist", "svhn", "cifar10", "cifar10a", "cifar10b", "cifar100", "imagenet", "places365")


def rates(name: str, model: str, epochs: tuple[int, ...]) -> list[float]:
    schedule = protocols.find(name).fit_for(model).schedule(50_000)
    return [schedule.at(epoch * 50_000 + 1) for epoch in epochs]


def test_the_transfer_protocols_are_those_of_one_ticket_to_win_them_all() -> None:
    for target in TRANSFER:
        sgd, adam = (protocols.find(f"{target}-{optimizer}") for optimizer in ("sgd", "adam"))
        assert sgd.seeds == (0, 1, 2, 3, 4, 5)
        for model, length in (("vgg19", "160ep"), ("resnet50", "90ep")):
            assert {(each.fit_for(model).length, each.fit_for(model).batch_size) for each in (sgd, adam)} == {
                (length, 512)
            }
            assert sgd.fit_for(model).optimizer == SGD(lr=0.1, momentum=0.9, weight_decay=1e-4)
            assert adam.fit_for(model).optimizer == Adam(lr=3e-4, betas=(0.9, 0.999), weight_decay=1e-4)
    assert rates("cifar100-sgd", "vgg19", (0, 79, 80, 120)) == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert rates("cifar100-adam", "resnet50", (0, 50, 65, 80)) == pytest.approx([3e-4, 3e-5, 3e-6, 3e-7])


def test_other_papers_protocols_keep_their_settings() -> None:
    assert protocols.find("cifar10").fit.optimizer == Adam(lr=1e-3, weight_decay=1e-4)
    assert protocols.find("places365").fit_for("resnet50").batch_size == 2048
    assert protocols.find("mnist").fit.clock(60_000).total == 50_000
    assert protocols.find("mnist").fit.batch_size == 60


def test_what_the_network_sees() -> None:
    for target in ("fashion_mnist", "svhn", "cifar10", "cifar100"):
        for optimizer in ("sgd", "adam"):
            train, plain = protocols.find(f"{target}-{optimizer}").views(dataset(target))
            assert (train.size, train.crop, train.pad, train.flip) == (32, "pad", 4, True)
            assert (plain.size, plain.crop, plain.flip) == (32, "center", False)
    assert [view.size for view in protocols.find("imagenet-sgd").views(dataset("imagenet"))] == [224, 224]
    # The padding of 2 in 32 pixels keeps its share.
    train, plain = protocols.find("cifar10b-small").views(dataset("cifar10"))
    assert (train.size, train.resize, train.pad, plain.size) == (16, 16, 1, 16)


def test_every_name_is_found_once_and_says_optimiser_and_half() -> None:
    names = [protocol.name for protocol in PROTOCOLS]
    assert len(names) == len(set(names))
    for protocol in PROTOCOLS:
        assert protocols.find(protocol.name) == protocol
        assert dataset(protocol.dataset).name == protocol.dataset
        assert protocol.name.startswith(f"{protocol.dataset}{protocol.half or ''}")
        if protocol.name.endswith("-sgd"):
            assert isinstance(protocol.fit.optimizer, SGD)


def test_a_data_sets_name_alone_is_answered_with_its_protocols() -> None:
    with pytest.raises(BadInput, match="did you mean cifar100-sgd or cifar100-adam"):
        protocols.find("cifar100")
