import math
import subprocess
import sys
from pathlib import Path

import pytest

from sslticket.errors import BadInput
from sslticket.report import table


def summary(folder: Path):
    return table.summary(table.rows([folder]))


def only(folder: Path):
    [row] = summary(folder).to_dict("records")
    return row


def test_mean_and_spread_by_hand(runs, score):
    folder = runs(*(score(seed=seed, top1=top1, top5=0.99) for seed, top1 in enumerate([0.90, 0.92, 0.97])))
    row = only(folder)
    assert row["n"] == 3
    assert row["top1"] == pytest.approx(0.93)
    assert row["top1_sd"] == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert row["top5"] == pytest.approx(0.99)


def test_one_training_has_no_spread(runs, score):
    row = only(runs(score()))
    assert row["n"] == 1
    assert math.isnan(row["top1_sd"])


def test_random_control_that_two_runs_list_counts_once(runs, score):
    def random(**changes):
        return score(control="random", **changes)

    own = [random(run="rotnet-1", ticket_hash="r", seed=seed, top1=top1) for seed, top1 in [(0, 0.5), (1, 0.7)]]
    other = [
        random(run="labels-1", objective="supervised", ticket_hash="l", seed=seed, top1=top1)
        for seed, top1 in [(0, 0.5), (1, 0.7), (2, 0.9)]
    ]
    row = only(runs(*own, *other))
    assert (row["series"], row["n"]) == ("random", 3)
    assert row["top1"] == pytest.approx(0.7)
    assert row["top1_sd"] == pytest.approx(0.2)


def test_random_controls_of_other_densities_and_protocols_stay_apart(runs, score):
    folder = runs(
        score(control="random", top1=0.5),
        score(control="random", level=3, density=0.125, top1=0.3),
        score(control="random", protocol="transfer", top1=0.1),
    )
    assert list(summary(folder)["top1"]) == [0.5, 0.3, 0.1]


def test_searches_that_differ_in_their_seed_are_one_series(runs, score):
    row = only(runs(score(run="a-1", top1=0.8), score(run="a-2", search_seed=1, ticket_hash="b", top1=0.9)))
    assert (row["series"], row["n"]) == ("rotnet", 2)
    assert row["top1"] == pytest.approx(0.85)


def test_searches_that_differ_in_their_recipe_are_not_pooled(runs, score):
    """Whether their seeds are the same or not."""
    for seed in (0, 1):
        rows = score(run="a-1", recipe="one", top1=0.8), score(run="a-2", recipe="two", search_seed=seed, top1=0.9)
        series = summary(runs(*rows))
        assert dict(zip(series["series"], series["top1"], strict=True)) == {"rotnet (one)": 0.8, "rotnet (two)": 0.9}


def test_what_a_ticket_was_found_on_makes_its_own_series(runs, score):
    folder = runs(
        score(run="a"),
        score(run="b", subset=0.1),
        score(run="c", subset=0.1, subset_by="classes"),
        score(run="d", source="cifar10"),
    )
    assert set(summary(folder)["series"]) == {
        "rotnet from digits",
        "rotnet 10% from digits",
        "rotnet 10% of classes from digits",
        "rotnet from cifar10",
    }


def test_series_are_ordered_from_tickets_to_random(runs, score):
    folder = runs(
        score(control="random"),
        score(control="local"),
        score(),
        score(control="preserved"),
        score(run="s", objective="supervised"),
    )
    assert list(summary(folder)["series"]) == ["supervised", "rotnet", "rotnet, preserved", "rotnet, local", "random"]


def test_a_folder_within_a_folder_or_a_copied_run_counts_once(runs, score):
    folder = runs(score(), score(seed=1))
    runs(score(), score(seed=1), file="copy/rows/rows.jsonl")
    assert table.summary(table.rows([folder, folder / "a"]))["n"].tolist() == [2]


def test_only_whole_row_files_are_read(runs, score):
    folder = runs(score())
    runs(score(seed=1), file="a/rows/.half.jsonl")
    runs(score(seed=2), file="a/rows/half.jsonl.tmp")
    runs(score(seed=3), file="a/log.jsonl")
    assert table.rows([folder])["seed"].tolist() == [0]


def test_sparsest_density_that_all_series_have(runs, score):
    def curve(levels, **changes):
        return [score(level=level, density=0.5**level, ticket_hash=str(level), **changes) for level in levels]

    folder = runs(
        *curve([0, 1, 2, 3]),
        *curve([0, 1, 2, 4], run="s", objective="supervised"),
        *curve([1, 2, 3, 4], control="random"),
        *curve([1], control="preserved"),
    )
    common = table.sparsest_common(summary(folder))
    assert list(common["series"]) == ["rotnet", "supervised", "random"]
    assert set(common["density"]) == {0.25}


def test_text_for_the_terminal(runs, score):
    folder = runs(
        score(level=0, density=1.0, top1=0.99),
        score(level=0, density=1.0, top1=0.98, seed=1),
        score(level=5, density=0.03125, top1=0.95),
        score(level=5, density=0.03125, top1=0.97, seed=1),
        score(level=5, density=0.03125, top1=0.7, control="random"),
    )
    assert table.text(summary(folder)).splitlines() == [
        "Top-1 in % of conv on digits (protocol digits): mean ± standard deviation",
        "",
        "density  rotnet (n=2)  random (n=1)",
        "-------  ------------  ------------",
        "   100%    98.5 ± 0.7             \N{EN DASH}",
        "  3.12%    96.0 ± 1.4          70.0",
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "scores"}, "score or level"),
        ({"top1": 97.2}, "top1 97.2, which is no fraction"),
        ({"top1": math.nan}, "top1 nan"),
        ({"seed": "0"}, "seed '0'"),
        ({"density": 0.0}, "at least one weight"),
        ({"control": "shuffled"}, "ticket, preserved, local, random"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(runs, score, changes, named):
    with pytest.raises(BadInput, match=named) as error:
        table.rows([runs(score(), score(**changes))])
    assert "a/rows/rows.jsonl, line 2 " in str(error.value)


@pytest.mark.parametrize("line", [b'{"kind": "score", "top1": 0.', b"[1]", b"\xff\xfe", b""])
def test_a_line_cut_short_is_named(runs, score, line):
    folder = runs(score())
    with (folder / "a/rows/rows.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(BadInput, match=r"rows\.jsonl, line 2 is no"):
        table.rows([folder])


def test_missing_keys_are_named(runs, score):
    short = {key: value for key, value in score().items() if key not in ("top1", "commit")}
    with pytest.raises(BadInput, match="line 1 lacks commit, top1"):
        table.rows([runs(short)])


def test_folders_without_rows_are_named_with_the_command_that_makes_rows(tmp_path):
    with pytest.raises(BadInput, match=f"{tmp_path}.*sslticket evaluate"):
        table.rows([tmp_path])
    with pytest.raises(BadInput, match=r"no folder .*nowhere"):
        table.rows([tmp_path / "nowhere"])


def test_tables_need_neither_torch_nor_matplotlib():
    code = "import sys, sslticket.report.table; print({'torch', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
