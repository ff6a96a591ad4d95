"""Tickets are told apart by the fewest words that do."""

from dataclasses import fields

import pandas as pd
import pytest

from sslticket.report import naming, stats
from sslticket.results.rows import row_columns
from sslticket.search.imp import IMP
from tests.report.analysed import LEVEL, SCORE, Row, row


def found(recipe: str, **changes: object) -> Row:
    """A row of a recipe with IMP's settings, some of them changed."""
    settings = {"search": "IMP", "rate": 0.2, "rewind": "1ep", "scope": "global", "lr": 0.1, "batch_size": 64}
    own = {key: value for key, value in changes.items() if key not in row(SCORE)}
    shown = {"search": own.get("search", "IMP"), "settings": settings | own, "run": recipe, "recipe": recipe}
    return row(SCORE, **shown | {key: value for key, value in changes.items() if key not in own})


def names(*rows: Row) -> list[str]:
    return stats.name_series(pd.DataFrame(rows, columns=row_columns()))["tickets"].tolist()


def test_a_single_recipe_is_its_objective() -> None:
    assert names(found("a"), found("a", search_seed=1), found("b", objective="supervised")) == ["rotnet"] * 2 + [
        "supervised"
    ]


def test_how_a_share_was_drawn_is_named() -> None:
    rows = [found(by, subset=0.1, subset_by=by) for by in ("samples", "random", "classes")]
    assert names(*rows) == ["rotnet 10%", "rotnet 10% at random", "rotnet 10% of classes"]


def test_shots_are_named_where_a_share_would_be() -> None:
    rows = found("a"), found("b", shots=1), found("c", shots=5), found("d", shots=5, rewind="0it")
    told = ["rotnet", "rotnet 1 shot", "rotnet 5 shots (rewind 1ep)", "rotnet 5 shots (rewind 0it)"]
    assert names(*rows) == told


def test_settings_have_the_names_of_today_though_rows_have_earlier_ones() -> None:
    rows = found("a", settled=0.1, settled_window=5), found("b", early_bird=0.2, early_bird_window=5)
    assert names(*rows) == ["rotnet (early bird 0.1)", "rotnet (early bird 0.2)"]
    assert {each.metadata["stored"]: each.name for each in fields(IMP) if "stored" in each.metadata} == (
        naming.RENAMED_SETTINGS
    )


def test_the_weights_that_a_search_started_from_are_named_in_short() -> None:
    inits = ["resnet50.a1_in1k", "ResNet50_Weights.IMAGENET1K_V1", "hf-hub:me/net@v1", "file:0123456789abcdef"]
    rows = [found(init, init=init) for init in inits]
    told = [f"rotnet, init {each}" for each in ("a1_in1k", "IMAGENET1K_V1", "me/net@v1", "file 01234567")]
    assert names(found("a"), *rows) == ["rotnet", *told]
    assert names(found("b", init="net.dino", rewind="0it"), found("c", init="net.dino")) == [
        "rotnet, init dino (rewind 0it)",
        "rotnet, init dino (rewind 1ep)",
    ]


def test_searches_are_named_throughout_a_network_that_has_several() -> None:
    rows = found("a"), found("b", search="OneShot SNIP"), found("c", objective="supervised"), found("d", model="vgg")
    assert names(*rows) == ["rotnet (IMP)", "rotnet (OneShot SNIP)", "supervised (IMP)", "rotnet"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rewind": "0it"}, ("rewind 1ep", "rewind 0it")),
        ({"scope": "layer"}, ("scope global", "scope layer")),
        ({"rewind": "3ep", "lr": 0.01, "batch_size": 8}, ("rewind 1ep", "rewind 3ep")),  # one is enough
        ({"batch_size": 8}, ("batch size 64", "batch size 8")),
        ({"warmup": True}, ("", "warmup")),
        ({"warmup": False}, ("", "no warmup")),
        ({"lr": 1e-05}, ("lr 0.1", "lr 1e-05")),
    ],
)
def test_the_setting_that_differs_is_named(changes: Row, told: tuple[str, str]) -> None:
    assert names(found("a"), found("b", **changes)) == [f"rotnet ({each})" if each else "rotnet" for each in told]


def test_as_few_settings_as_tell_all_apart() -> None:
    rows = [found(f"{rate}{rewind}", rate=rate, rewind=rewind) for rate in (0.2, 0.5) for rewind in ("0it", "1ep")]
    assert names(*rows) == [f"rotnet (rate {rate}, rewind {at})" for rate in (0.2, 0.5) for at in ("0it", "1ep")]


def test_other_objectives_have_no_need_of_what_differs_in_one() -> None:
    rows = found("a"), found("b", rewind="0it"), found("c", objective="supervised", rewind="0it")
    assert names(*rows) == ["rotnet (rewind 1ep)", "rotnet (rewind 0it)", "supervised"]


def test_recipes_without_settings_have_their_hashes() -> None:
    old = [{key: value for key, value in found(name).items() if key not in ("settings", "search")} for name in "ab"]
    assert names(*old) == ["rotnet (a)", "rotnet (b)"]
    assert names(old[0], found("c", rewind="0it")) == ["rotnet (a)", "rotnet (c)"]


def test_a_row_that_tells_tells_for_all_of_its_recipe() -> None:
    old = {key: value for key, value in found("a").items() if key not in ("settings", "search")}
    assert names(old, found("a"), found("b", rewind="0it")) == ["rotnet (rewind 1ep)"] * 2 + ["rotnet (rewind 0it)"]


def test_what_more_than_four_settings_tell_apart_has_hashes() -> None:
    """2 to the power of 5 recipes of all combinations of five settings."""
    rows = [found(f"{code:05b}", **{f"s{place}": str(code >> place & 1) for place in range(5)}) for code in range(32)]
    assert names(*rows)[5] == "rotnet (00101)"


def test_label_agnostic_tickets_are_compared_with_labelled_ones_found_the_same_way() -> None:
    rows = [
        found(f"{objective}{search}{rewind}", objective=objective, search=search, rewind=rewind)
        for objective in ("rotnet", "supervised")
        for search in ("IMP", "CS")
        for rewind in ("0it", "1ep")
    ]
    pairs = stats.compare_series(pd.DataFrame(rows, columns=row_columns()))
    assert {tuple(pair) for pair in pairs[["series", "against"]].to_numpy()} == {
        *((f"rotnet ({way})", f"supervised ({way})") for way in ("IMP, rewind 0it", "IMP, rewind 1ep")),
        *((f"rotnet ({way})", f"supervised ({way})") for way in ("CS, rewind 0it", "CS, rewind 1ep")),
        # Supervised tickets of other searches and settings: with the first of IMP.
        *((f"supervised ({way})", "supervised (IMP, rewind 0it)") for way in ("IMP, rewind 1ep", "CS, rewind 0it")),
        ("supervised (CS, rewind 1ep)", "supervised (IMP, rewind 0it)"),
    }


def test_densities_that_searches_come_to_are_pooled_by_level() -> None:
    """As of Continuous Sparsification; so is what is drawn for each of their searches."""
    rows = [
        found("cs", search="CS", search_seed=seed, density=density, ticket_hash=str(seed), top1=top1) | drawn
        for seed, density, top1 in ((0, 0.2, 0.8), (1, 0.3, 0.6))
        for drawn in ({}, {"control": "random", "replicate": seed})
    ]
    means = stats.summarize(pd.DataFrame(rows, columns=row_columns()))
    assert means[["series", "density", "top1", "n"]].to_numpy().tolist() == [
        ["rotnet", 0.25, pytest.approx(0.7), 2],
        ["random", 0.25, pytest.approx(0.7), 2],
    ]


def test_rows_of_levels_and_of_scores_are_of_one_series() -> None:
    told = {key: found("a")[key] for key in ("run", "recipe", "search", "settings")}
    assert names(found("a"), row(LEVEL, **told), found("b", rewind="0it")) == ["rotnet (rewind 1ep)"] * 2 + [
        "rotnet (rewind 0it)"
    ]
