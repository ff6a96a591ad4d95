"""Jaccard indices and their chance, on masks small enough to count by hand, and which tickets are compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sslticket.analysis.overlap import Overlap, mask_overlap, pack_mask
from sslticket.config.recipe import Recipe
from sslticket.errors import BadInput
from sslticket.evaluation import tasks
from sslticket.pruning.mask import Mask
from sslticket.results.rows import row_error
from tests.runs import recipe, search


def mask(**layers: list[int]) -> Mask:
    return Mask({name: torch.tensor(kept, dtype=torch.bool) for name, kept in layers.items()})


def compare(one: Mask, other: Mask) -> tuple[float, float, dict[str, tuple[int, int, float]]]:
    return mask_overlap(pack_mask(one), pack_mask(other))


def test_the_jaccard_index_counts_both_over_either() -> None:
    one = mask(a=[1, 1, 1, 0, 0, 0, 0, 0, 0, 0], b=[1, 0])
    other = mask(a=[0, 1, 1, 1, 1, 0, 0, 0, 0, 0], b=[0, 1])
    jaccard, _, layers = compare(one, other)
    assert [counts[:2] for counts in layers.values()] == [(2, 5), (0, 2)]
    assert jaccard == 2 / 7


def test_chance_is_that_of_independent_masks_with_these_layer_densities() -> None:
    """Of 10 weights, 3 and 4 share 1.2 and cover 5.8; of 2, one and one share 0.5 and cover 1.5."""
    one = mask(a=[1, 1, 1, 0, 0, 0, 0, 0, 0, 0], b=[1, 0])
    other = mask(a=[0, 1, 1, 1, 1, 0, 0, 0, 0, 0], b=[0, 1])
    _, chance, layers = compare(one, other)
    assert [counts[2] for counts in layers.values()] == pytest.approx([1.2 / 5.8, 0.5 / 1.5])
    assert chance == pytest.approx(1.7 / 7.3)


def test_equal_dense_and_disjoint_masks() -> None:
    one, dense = mask(a=[1, 0, 1, 0]), mask(a=[1, 1, 1, 1])
    assert compare(one, one)[0] == 1
    # All of a dense mask is in either: by chance as in fact, the other's density.
    assert compare(one, dense)[:2] == (0.5, 0.5)
    assert compare(one, mask(a=[0, 1, 0, 1]))[0] == 0


def test_a_layer_that_both_emptied_counts_nothing() -> None:
    one = mask(a=[0, 0, 0], b=[1, 0, 1, 0])
    assert compare(one, one) == (1.0, 1 / 3, {"a": (0, 0, 1.0), "b": (2, 2, pytest.approx(1 / 3))})


def test_random_masks_have_the_jaccard_index_that_chance_gives() -> None:
    """Of 40,000 weights, 5% in one layer and half in another: one standard deviation is about 0.005."""
    generator = torch.Generator().manual_seed(0)

    def drawn() -> Mask:
        return Mask({n: torch.rand(200, 100, generator=generator) < d for n, d in {"a": 0.05, "b": 0.5}.items()})

    jaccard, chance, _ = compare(drawn(), drawn())
    assert jaccard == pytest.approx(chance, abs=0.02)
    assert chance == pytest.approx((0.0025 + 0.25) / (0.0975 + 0.75), abs=0.01)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 4609])
def test_bits_beyond_the_last_weight_count_nothing(size: int) -> None:
    kept = np.random.default_rng(size).random(size) < 0.5
    kept[0] = True
    one = Mask({"a": torch.from_numpy(kept)})
    assert compare(one, one)[2]["a"][:2] == (kept.sum(), kept.sum())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two searches that differ in their seed, of a dense and three sparse levels."""
    out = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        search(out, recipe(seed=seed))
    return out


def test_pairs_of_a_level_have_one_row_each_in_whatever_order(runs: Path) -> None:
    paths = tasks.find_ticket_files([runs])
    rows = list(Overlap().rows(paths))
    assert [row["level"] for row in rows] == [row["other_level"] for row in rows] == [1, 2, 3]
    assert {(row["search_seed"], row["other_seed"]) for row in rows} in ({(0, 1)}, {(1, 0)})
    files = sorted(runs.rglob("*.overlap.*.jsonl"))
    assert [json.loads(file.read_text()) for file in files] == rows
    assert [row_error(row) for row in rows] == [None] * 3
    assert list(Overlap().rows(paths[::-1])) == rows
    assert sorted(runs.rglob("*.overlap.*.jsonl")) == files


def test_masks_of_one_search_nest(runs: Path) -> None:
    """So the Jaccard index of two of its levels is the ratio of their densities."""
    rows = list(Overlap(pairs="all").rows(tasks.find_ticket_files([runs])))
    assert len(rows) == 8 * 7 / 2 - 1  # all pairs but that of the two dense networks
    own = [row for row in rows if row["run"] == row["other_run"]]
    assert len(own) == 2 * 6
    for row in own:
        assert row["level"] < row["other_level"]
        assert row["jaccard"] == pytest.approx(row["other_density"] / row["density"])


def test_what_cannot_be_compared_is_named(runs: Path) -> None:
    one = next(runs.iterdir())
    with pytest.raises(BadInput, match=r"of 4 tickets no two are sparse .* of one network and level.*--pairs all"):
        list(Overlap().rows(tasks.find_ticket_files([one])))
    with pytest.raises(BadInput, match="of 2 tickets no two"):
        list(Overlap(pairs="all").rows(tasks.find_ticket_files([runs], tasks.Levels((0,)))))


def test_tickets_of_other_networks_are_not_compared(runs: Path, tmp_path: Path) -> None:
    grey = search(tmp_path, _grey()).run_dir.path
    alone = {row["ticket_hash"] for row in Overlap().rows([*tasks.find_ticket_files([runs, grey])])}
    assert alone.isdisjoint({row["other_hash"] for row in Overlap().rows(tasks.find_ticket_files([runs]))})
    assert not list(grey.rglob("*.overlap.*"))


def _grey() -> Recipe:
    """Of a network with another first layer."""
    from sslticket.config.recipe import Data

    return recipe(data=Data(dataset="digits", channels=3))
