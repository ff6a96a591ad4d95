"""What `sslticket inspect` and a model card say of a ticket's images and labels."""

from dataclasses import replace
from typing import Any

import pytest

from sslticket.export.description import ticket_facts
from tests.export.conftest import made


@pytest.mark.parametrize(
    ("data", "came", "images", "labels"),
    [
        ({}, {}, "cifar10, 0.1 of the samples: 5,000 images", None),
        ({"half": None, "subset_list": None, "labels": 1.0}, {}, "cifar10, 0.1 of the samples: 5,000 images", None),
        ({"half": "b"}, {"dataset": "cifar10b"}, "cifar10b, half b of cifar10, 0.1 of the samples: 5,000", None),
        ({"subset": 0.3, "subset_by": "classes"}, {}, "cifar10, 0.3 of the classes: 5,000 images", None),
        ({"subset_by": "random"}, {}, "cifar10, 0.1 of the images, drawn without their labels: 5,000 images", None),
        ({"part": "few"}, {"dataset": "cifar10[few]"}, "cifar10[few], 0.1 of the samples: 5,000 images", None),
        ({"subset": 1.0, "subset_list": "/home/me/1percent.txt"}, {}, "cifar10, the images in 1percent.txt: 5", None),
        ({"subset": 1.0, "shots": 5}, {}, "cifar10, 5 of each class: 5,000 images", None),
        ({"subset": 1.0, "labels": 0.1}, {}, "cifar10: 5,000 images", "known of 0.1 of each class's images"),
        ({"labels_list": "lists/10.txt"}, {}, "cifar10, 0.1 of", "known of the images in 10.txt"),
        ({"shuffle_labels": 0.5}, {"permutation": {"hash": "ff20"}}, "cifar10, 0.1", "0.5 of them permuted"),
    ],
)
def test_parts_of_the_images_and_of_their_labels_are_told(
    data: dict[str, Any], came: dict[str, Any], images: str, labels: str | None
) -> None:
    ticket = made("resnet20", "cifar10")
    recipe = ticket.recipe | {"data": ticket.recipe["data"] | data}
    told = ticket_facts(replace(ticket, recipe=recipe, provenance=ticket.provenance | came))
    assert told["data"].startswith(images)
    assert ("labels" in told) == (labels is not None)
    assert told.get("labels", "").startswith(labels or "")
