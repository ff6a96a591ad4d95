import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sslticket import report
from sslticket.errors import BadInput

HOSTILE = "<script>alert('$1')</script>&\"\\1"


class Seen(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


@pytest.fixture
def page(folder, tmp_path) -> Path:
    return report.write_report([folder], tmp_path / "report.html").html


def test_headline_compares_at_the_sparsest_common_density(page):
    words = " ".join(Seen(page.read_text("utf-8")).text.split())
    assert (
        "With 12.5% of its weights, conv on digits reaches 92.5 ± 0.7% from rotnet tickets, "
        "95.5 ± 0.7% from supervised tickets and 67.0 ± 1.4% from random tickets." in words
    )


def test_the_headline_says_who_was_not_measured_where_the_others_were(runs, searched, score, tmp_path):
    own = score(run="cs", objective="byol", density=0.04, level=1, ticket_hash="cs")
    words = Seen(report.write_report([runs(*searched, own)], tmp_path / "report.html").html.read_text("utf-8")).text
    assert "and 67.0 ± 1.4% from random tickets. Not measured there: byol." in " ".join(words.split())
    other = score(run="x", objective="supervised", density=0.5, level=1, ticket_hash="x")
    words = Seen(report.write_report([runs(own, other)], tmp_path / "report.html").html.read_text("utf-8")).text
    assert "no density was measured for any two of supervised, byol, so no one number compares them." in words


def test_search_cost_adds_up_the_levels(page):
    words = " ".join(re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page.read_text("utf-8")))
    # Older rows do not tell how often these images went through the network.
    measures = "with 100% → 25% of the weights: loss 0.1 → 0.1, rotation accuracy 0.93 → 0.93"
    assert f"rotnet-1 100% of digits 1 3 \N{EN DASH} 5,120 \N{EN DASH} 40 10 s 0 {measures}" in words


def test_a_search_of_shots_says_how_many(runs, level, score, tmp_path):
    told = {"search": "IMP", "settings": {"shots": 5}}
    page = report.write_report([runs(level(**told), score(**told))], tmp_path / "report.html").html.read_text("utf-8")
    assert "5 images a class of digits" in page
    assert "rotnet 5 shots" in page


def test_every_number_says_how_it_was_made(page):
    text = Seen(page.read_text("utf-8")).text
    for fact in ("sslticket evaluate runs", "0123abc", "8d3f", "torch 2.11", "cpu"):
        assert text.count(fact) >= 8  # four runs, each with its levels and its scores


def test_same_rows_give_the_same_bytes_wherever_they_lie(runs, score, tmp_path):
    scores = [score(seed=seed, run=run, top1=0.9 + seed / 50) for seed in (0, 1) for run in ("a", "b")]
    first, second = tmp_path / "1.html", tmp_path / "2.html"
    one = report.write_report([runs(*scores)], first)
    runs(*scores[2:][::-1])
    other = report.write_report([runs(*scores[:2], file="elsewhere/rows/x.jsonl")], second)
    assert one.html.read_bytes() == other.html.read_bytes()
    assert one.png.read_bytes() == other.png.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.html", "1.png", "2.html", "2.png", "runs"]


def test_values_are_escaped(runs, score, level, tmp_path):
    names = ("run", "objective", "model", "source", "protocol", "target", "command", "commit", "data_hash", "device")
    hostile = {name: name + HOSTILE for name in names} | {"subset_by": "classes", "versions": {HOSTILE: HOSTILE}}
    found = {key: value for key, value in hostile.items() if key not in ("protocol", "target")}
    rows = score(**hostile), level(**found, layers={HOSTILE: [1, 2]}, metrics={HOSTILE: 1.0})
    seen = Seen(report.write_report([runs(*rows)], tmp_path / "report.html").html.read_text("utf-8"))
    assert seen.tags["script"] == 2
    for name in names:
        assert name + HOSTILE in seen.text
    assert any(HOSTILE in label for label in seen.values("aria-label"))


def test_nothing_is_fetched(page):
    text = page.read_text("utf-8")
    seen = Seen(text)
    links = seen.values("src", "href", "xlink:href", "action", "srcset", "data", "poster")
    links += re.findall(r"url\(['\"]?([^)'\"]*)", text)
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "@import" not in text
    assert not re.search(r"https?:", text)


def test_ids_are_unique_and_references_lead_somewhere(page):
    seen = Seen(page.read_text("utf-8"))
    ids = Counter(seen.values("id"))
    assert ids
    assert set(ids.values()) == {1}
    assert {link[1:] for link in seen.values("xlink:href") if link.startswith("#")} <= set(ids)


def test_tables_tell_a_screen_reader_what_heads_what(page):
    seen = Seen(page.read_text("utf-8"))
    assert seen.tags["caption"] == seen.tags["table"] > 3
    assert set(seen.values("scope")) == {"row", "col"}
    assert len(seen.values("scope")) == seen.tags["th"]


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(page):
    text = page.read_text("utf-8")
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    for rule, tag in {"style-src": "style", "script-src": "script"}.items():
        [inner] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()}'"
    names = {name for name, _ in Seen(text).attributes}
    assert not [name for name in names if name == "style" or name.startswith("on")]


def trainings(page: Path):
    [data] = re.findall(r'<script type="application/json" id="trainings">(.*?)</script>', page.read_text("utf-8"))
    return json.loads(data)


def test_each_mean_carries_its_trainings(runs, score, tmp_path):
    rows = [
        score(seed=seed, search_seed=seed // 2, run=f"r{seed // 2}", ticket_hash=f"{seed // 2}") for seed in (3, 0, 1)
    ]
    hostile = score(control="random", command="</script><script>", top1=0.25)
    found = trainings(report.write_report([runs(*rows, hostile)], tmp_path / "report.html").html)
    tickets, random = found["means"]
    assert [training[:3] for training in tickets] == [[0, 0, 0.9], [0, 1, 0.9], [1, 3, 0.9]]
    assert [found["made"][made][0] for *_, made in tickets] == ["r0", "r0", "r1"]
    [[search, seed, top1, made]] = random
    assert (search, seed, top1) == (None, 0, 0.25)
    assert found["made"][made][1:] == ["</script><script>", "0123abc", "8d3f"]


def cells(page: Path) -> str:
    return " ".join(re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page.read_text("utf-8")))


def test_five_times_faster_is_told_and_drawn(runs, score, level, tmp_path):
    """Tickets from a fifth of the images seen: 1,280 after one level against 6,400."""
    rows = []
    for objective, samples in {"rotnet": 1280, "supervised": 6400}.items():
        for depth in (0, 1):
            same = {"run": objective, "objective": objective, "level": depth, "density": 0.5**depth}
            rows += [score(**same), level(**same, search_samples=samples * depth)]
    page = report.write_report([runs(*rows)], tmp_path / "report.html").html
    assert "rotnet 1.28k 5 s 20 5\N{MULTIPLICATION SIGN}" in cells(page)
    assert "supervised 6.4k 5 s 20 1\N{MULTIPLICATION SIGN}" in cells(page)
    assert "rotnet at 50%: 90.0% after 1.28k source images" in page.read_text("utf-8")
    assert "Source images, supervised ÷ this" in cells(page)


def test_what_goes_through_the_network_is_the_cost_where_rows_tell_it(runs, score, level, tmp_path):
    """RotNet sees each source image four times: a quarter of the source images cost as much as labels."""
    rows = []
    for objective, (samples, views) in {"rotnet": (1280, 4), "supervised": (5120, 1)}.items():
        for depth in (0, 1):
            same = {"run": objective, "objective": objective, "level": depth, "density": 0.5**depth}
            cost = {"search_samples": samples * depth, "search_forward_images": samples * views * depth}
            rows += [score(**same), level(**same, **cost)]
    page = report.write_report([runs(*rows)], tmp_path / "report.html").html
    assert "rotnet 5.12k 1.28k 5 s 20 1\N{MULTIPLICATION SIGN}" in cells(page)
    assert "Images through the network, supervised ÷ this" in cells(page)
    assert "rotnet at 50%: 90.0% after 5.12k images through the network" in page.read_text("utf-8")
    # One search that does not tell it makes images through the network no common measure.
    rows[3].pop("search_forward_images")
    assert rows[3]["kind"] == "level"
    page = report.write_report([runs(*rows)], tmp_path / "report.html").html
    assert "rotnet \N{EN DASH} 1.28k 5 s 20 4\N{MULTIPLICATION SIGN}" in cells(page)
    assert "Source images, supervised ÷ this" in cells(page)


def test_tickets_found_here_and_scored_there_are_a_matrix(runs, score, tmp_path):
    """Shades go from a column's least, h0, to its greatest, h9; what was not measured has none."""
    rows = [
        score(run="a", source="a", protocol="a", target="a", top1=0.9),
        score(run="a", source="a", protocol="b", target="b", top1=0.5),
        score(run="b", source="b", protocol="b", target="b", top1=0.7),
        score(run="b", source="b", protocol="b", target="b", top1=0.6, control="random"),
    ]
    page = report.write_report([runs(*rows)], tmp_path / "report.html").html.read_text("utf-8")
    lines = re.findall(r'<tr><th scope="row">([^<]*)</th>(<td.*?)</tr>', page[page.index('id="transfer"') :])
    found = {name: re.findall(r"<td(?: class=\"(\w+)\")?>([^<]*)", line) for name, line in lines}
    assert found == {
        "rotnet from a": [("h5", "90.0"), ("h0", "50.0")],
        "rotnet from b": [("", "\N{EN DASH}"), ("h9", "70.0")],
        "random": [("", "\N{EN DASH}"), ("h5", "60.0")],
    }


def test_one_protocol_makes_no_transfer(page):
    assert 'id="transfer"' not in page.read_text("utf-8")


def test_layers_are_means_over_the_searches_of_a_recipe_and_a_cut_is_marked(runs, score, level, tmp_path):
    layers = [
        {"run": run, "search_seed": seed, "layers": {"x": [kept, 2], "y": [0, 9]}}
        for seed, (run, kept) in enumerate({"a": 1, "b": 2}.items())
    ]
    page = report.write_report([runs(score(), *(level(**each) for each in layers))], tmp_path / "report.html").html
    text = page.read_text("utf-8")
    assert re.search(r'>x</th><td class="h\d">75</td></tr>', text)
    assert '>y</th><td class="cut">0</td></tr>' in text
    assert "conv, rotnet: mean of 2 searches" in text


def test_measures_belong_to_the_density_that_was_trained(runs, score, level, tmp_path):
    """An older row of level 1 tells of the dense training, after which half of the weights were pruned."""
    told = {"metrics": {"rotation accuracy": 0.75}, "probe": {"5": 0.25, "10": 0.5}}
    rows = [level(level=0, density=1.0), level(level=1, density=0.5, **told)]
    text = report.write_report([runs(score(), *rows)], tmp_path / "report.html").html.read_text("utf-8")
    titles = re.findall("<title>(rotnet[^<]*)</title>", text)
    assert "rotnet at 100%: the trained network&#x27;s rotation accuracy 0.75, 1 search" in titles
    assert "rotnet at 100%: the trained network&#x27;s nearest neighbours 0.5, 1 search" in titles
    assert "rotnet, 100% of the weights at 5: accuracy in % 25, 1 search" in titles


def test_measures_of_a_search_that_cuts_all_from_one_training_are_of_that(runs, score, level, tmp_path):
    """Rows tell it: both tickets come of the dense network's training, the next of theirs of another."""
    dense = {"trained_level": 0, "trained_density": 1.0}
    rows = [
        level(level=0, density=1.0, trained_density=1.0),
        level(level=1, density=0.5, metrics={"accuracy": 0.75}, **dense),
        level(level=2, density=0.25, metrics={"accuracy": 0.75}, **dense),
        level(level=3, density=0.125, metrics={"accuracy": 0.5}, trained_level=1, trained_density=0.5),
    ]
    text = report.write_report([runs(score(), *rows)], tmp_path / "report.html").html.read_text("utf-8")
    titles = [each for each in re.findall("<title>(rotnet [^<]*)</title>", text) if "trained network" in each]
    assert titles == [
        "rotnet at 100%: the trained network&#x27;s accuracy 0.75, 1 search, 2 tickets",
        "rotnet at 50%: the trained network&#x27;s accuracy 0.5, 1 search",
    ]
    assert "weights of the network that was trained" in text


def test_a_cut_network_is_told_in_a_note_at_its_point_and_in_its_tile(runs, score, tmp_path):
    tickets = [score(seed=seed, effective_density=0.0) for seed in (0, 1)]
    random = score(control="random", replicate=0, effective_density=0.12)
    fine = score(run="s", objective="supervised", effective_density=0.125)
    text = report.write_report([runs(*tickets, random, fine)], tmp_path / "report.html").html.read_text("utf-8")
    words = " ".join(Seen(text).text.split())
    start = "few of the weights left lie on a path from input to output. The effective density is only"
    assert f"rotnet of conv: {start} 0% at level 2 (25%). With 0%, nothing of an image reaches the output." in words
    assert f"random of conv: {start} 12% at level 2 (25%)." in words
    assert "supervised of conv" not in words
    assert "<title>rotnet at 25%: 90.0%, 1 search, 2 trainings, effective density 0%</title>" in text
    assert "<title>supervised at 25%: 90.0%, 1 search</title>" in text
    assert "label-agnostic, 1 search, 2 trainings, effective density 0%" in words


def test_tickets_with_their_own_head_stand_beside_in_the_headline(runs, score, tmp_path):
    rows = [
        score(head="new"),
        score(run="s", objective="supervised", head="new", top1=0.8),
        score(run="s", objective="supervised", head="own", top1=0.95),
        score(head="new", control="random", top1=0.1),
    ]
    words = Seen(report.write_report([runs(*rows)], tmp_path / "report.html").html.read_text("utf-8")).text
    assert (
        "reaches 90.0% from rotnet tickets, 80.0% from supervised tickets and 10.0% from random tickets. "
        "Beside them: supervised, own head 95.0%." in words
    )


def test_controls_are_explained_where_they_are(runs, score, tmp_path):
    rows = [score(control=control, replicate=0) for control in ("ticket", "reset", "permuted")]
    words = Seen(report.write_report([runs(*rows)], tmp_path / "report.html").html.read_text("utf-8")).text
    assert "reset: W_0, the initialisation, in the ticket's mask; permuted: W_k in the ticket's mask" in words
    assert "preserved: " not in words


def test_rows_without_levels_or_with_levels_without_scores_of_theirs_are_drawn(runs, score, level, tmp_path):
    report.write_report([runs(score())], tmp_path / "1.html")
    old = [level(run="x", objective="byol", level=depth, density=0.5**depth) for depth in (0, 1)]
    for row in old:
        del row["probe"]  # as rows were written before there were probes
    text = report.write_report([runs(score(), *old)], tmp_path / "2.html").html.read_text("utf-8")
    assert "conv, byol" in text
    assert "byol at 100%: the trained network&#x27;s rotation accuracy 0.93" in text


def test_many_series_are_told_by_the_range_of_each_kind(runs, score, tmp_path):
    objectives = {"rotnet": 0.7, "byol": 0.8, "simclr": 0.6, "supervised": 0.9, "s4l": 0.5}
    rows = [score(run=name, objective=name, top1=top1) for name, top1 in objectives.items()]
    rows.append(score(control="random", top1=0.1))
    words = Seen(report.write_report([runs(*rows)], tmp_path / "report.html").html.read_text("utf-8")).text
    assert (
        "reaches 60.0 to 80.0% from label-agnostic tickets (3 series), "
        "50.0 to 90.0% from labelled tickets (2 series) and 10.0% from random tickets." in words
    )


def test_nothing_is_written_where_the_input_is_bad(runs, score, level, tmp_path):
    with pytest.raises(BadInput, match=r"ends in \.html"):
        report.write_report([runs(score())], tmp_path / "report.png")
    with pytest.raises(BadInput, match=r"table\.txt is no name for a LaTeX table; .*\.tex"):
        report.write_report([runs(score())], tmp_path / "report.html", latex=tmp_path / "table.txt")
    with pytest.raises(BadInput, match=r"no score rows .*sslticket evaluate"):
        report.write_report([runs(level())], tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_the_mean_over_classes_has_a_table_where_every_row_of_a_panel_tells_it(runs, searched, tmp_path):
    def told(rows) -> str:
        return " ".join(
            Seen(report.write_report([runs(*rows)], tmp_path / "report.html").html.read_text("utf-8")).text.split()
        )

    scores = [row | ({"balanced_top1": 0.123} if row["kind"] == "score" else {}) for row in searched]
    assert "Mean over the classes of top-1 of each, in %" in told(scores)
    assert "12.3 ± 0.0" in told(scores)
    del next(row for row in scores if row["kind"] == "score")["balanced_top1"]
    assert "Mean over the classes" not in told(scores)
