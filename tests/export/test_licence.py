import pytest

from sslticket.data.datasets import CATALOGUED
from sslticket.errors import BadInput
from sslticket.export.card import Licence


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("digits", {"license": "cc-by-4.0"}),
        ("mnist", {"license": "cc-by-sa-3.0"}),
        ("fashion_mnist", {"license": "mit"}),
        (
            "imagenet",
            {
                "license": "other",
                "license_name": "non-commercial-research",
                "license_link": "https://www.image-net.org/download.php",
            },
        ),
    ],
)
def test_the_catalogues_licence_under_the_hubs_name(dataset: str, expected: dict[str, str]) -> None:
    assert Licence.for_dataset(dataset, None).front_matter == expected


def test_every_known_set_has_one() -> None:
    for name in set(CATALOGUED) - {"folder"}:
        assert Licence.for_dataset(name, None).front_matter["license"]


@pytest.mark.parametrize("dataset", ["folder", "a set of another version"])
def test_where_none_is_known_it_has_to_be_said(dataset: str) -> None:
    with pytest.raises(BadInput, match=f"no licence is known of the images of '{dataset}'; say it with --data-licence"):
        Licence.for_dataset(dataset, None)
    assert Licence.for_dataset(dataset, "CC0 1.0").front_matter == {"license": "cc0-1.0"}
    mine = {"license": "other", "license_name": "mine-all-rights-reserved"}
    assert Licence.for_dataset(dataset, " mine, all rights reserved ").front_matter == mine
    with pytest.raises(BadInput, match="is no licence"):
        Licence.for_dataset(dataset, " ")
