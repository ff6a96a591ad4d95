import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sslticket import report
from sslticket.errors import BadInput
from sslticket.report import figures, table

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
def folder(runs, score, level) -> Path:
    """Two objectives and the random control at four densities with two seeds, and their searches."""
    rows = []
    for depth in range(4):
        for objective, drop in [("rotnet", 0.02), ("supervised", 0.01)]:
            same = {"run": f"{objective}-1", "objective": objective, "level": depth, "density": 0.5**depth}
            layers = {"first": [9 if depth else 10, 10], "last": [int(90 * 0.5**depth) * (depth < 3), 90]}
            rows.append(level(**same, layers=layers, search_samples=1280 * (depth + 1), loss=0.1))
            for seed in (0, 1):
                rows.append(score(**same, seed=seed, top1=0.98 - drop * depth + 0.01 * seed))
                rows.append(score(**same, seed=seed, top1=0.98 - 0.1 * depth - 0.02 * seed, control="random"))
    return runs(*rows)


@pytest.fixture
def page(folder, tmp_path) -> Path:
    return report.write([folder], tmp_path / "report.html").html


def test_headline_compares_at_the_sparsest_common_density(page):
    words = " ".join(Seen(page.read_text("utf-8")).text.split())
    assert (
        "With 12.5% of its weights, conv on digits reaches 92.5 ± 0.7% from rotnet tickets, "
        "95.5 ± 0.7% from supervised tickets and 67.0 ± 1.4% from random tickets (n = 2 each)." in words
    )


def test_search_cost_adds_up_the_levels(page):
    words = " ".join(re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page.read_text("utf-8")))
    assert "rotnet-1 100% of digits 3 5,120 40 10.0 s 0 loss 0.1 → 0.1, rotation accuracy 0.93 → 0.93" in words


def test_every_number_says_how_it_was_made(page):
    text = Seen(page.read_text("utf-8")).text
    for fact in ("sslticket evaluate runs", "0123abc", "8d3f", "torch 2.11", "cpu"):
        assert text.count(fact) == 4  # two runs, each with its levels and its scores


def test_same_rows_give_the_same_bytes_wherever_they_lie(runs, score, tmp_path):
    scores = [score(seed=seed, run=run, top1=0.9 + seed / 50) for seed in (0, 1) for run in ("a", "b")]
    first, second = tmp_path / "1.html", tmp_path / "2.html"
    one = report.write([runs(*scores)], first)
    runs(*scores[2:][::-1])
    other = report.write([runs(*scores[:2], file="elsewhere/rows/x.jsonl")], second)
    assert one.html.read_bytes() == other.html.read_bytes()
    assert one.png.read_bytes() == other.png.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.html", "1.png", "2.html", "2.png", "runs"]


def test_values_are_escaped(runs, score, level, tmp_path):
    names = ("run", "objective", "model", "source", "protocol", "target", "command", "commit", "data_hash", "device")
    hostile = {name: name + HOSTILE for name in names} | {"subset_by": "classes", "versions": {HOSTILE: HOSTILE}}
    found = {key: value for key, value in hostile.items() if key not in ("protocol", "target")}
    rows = score(**hostile), level(**found, layers={HOSTILE: [1, 2]}, metrics={HOSTILE: 1.0})
    seen = Seen(report.write([runs(*rows)], tmp_path / "report.html").html.read_text("utf-8"))
    assert not seen.tags["script"]
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
    assert seen.tags["caption"] == seen.tags["table"] == 3
    assert set(seen.values("scope")) == {"row", "col"}
    assert len(seen.values("scope")) == seen.tags["th"]


def test_curves_draw_the_means_densest_first_on_a_log_axis(folder):
    [axes] = figures.curves(table.summary(table.rows([folder]))).axes
    drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
    densities = [1, 0.5, 0.25, 0.125]
    np.testing.assert_allclose(drawn["rotnet"], list(zip(densities, [98.5, 96.5, 94.5, 92.5], strict=True)))
    np.testing.assert_allclose(drawn["random"], list(zip(densities, [97, 87, 77, 67], strict=True)))
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] > 1 > 0.125 > axes.get_xlim()[1]
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(98.5 + 100 * np.std([0.98, 0.99], ddof=1))


def test_layers_draw_what_remains_of_each_and_mark_the_empty(folder):
    frame = table.rows([folder])
    levels = frame[(frame["kind"] == "level") & (frame["run"] == "rotnet-1")]
    [axes] = figures.layers(levels).axes
    drawn = axes.images[0].get_array()
    np.testing.assert_allclose(drawn.data, [[1, 0.9, 0.9, 0.9], [1, 0.5, 22 / 90, 0]])
    assert np.argwhere(drawn.mask).tolist() == [[1, 3]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "last"]


def test_nothing_is_written_where_the_input_is_bad(runs, score, level, tmp_path):
    with pytest.raises(BadInput, match=r"ends in \.html"):
        report.write([runs(score())], tmp_path / "report.png")
    with pytest.raises(BadInput, match=r"no score rows .*sslticket evaluate"):
        report.write([runs(level())], tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def browse(page: Path, profile: Path, width: int = 1200) -> subprocess.CompletedProcess[str]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    quiet = ["quic", "background-networking", "component-update", "sync", "gpu"]
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    return subprocess.run(
        [
            *(chromium, "--headless", *flags, f"--user-data-dir={profile}"),
            *(f"--window-size={width},900", "--enable-logging=stderr", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.mark.browser
def test_a_browser_shows_it_without_complaint_and_runs_no_script(page, tmp_path):
    shown = browse(page, tmp_path / "profile")
    assert "With 12.5% of its weights" in shown.stdout
    assert "CONSOLE" not in shown.stderr
    # What a value could smuggle in would be refused, and the console would have said so above.
    smuggled = tmp_path / "smuggled.html"
    smuggled.write_text(page.read_text("utf-8").replace("</main>", "<script>document.title = 'run'</script></main>"))
    refused = browse(smuggled, tmp_path / "profile")
    assert "CONSOLE" in refused.stderr
    assert "<title>run" not in refused.stdout


@pytest.mark.browser
def test_a_narrow_screen_need_not_be_scrolled_sideways(page, tmp_path):
    measured = tmp_path / "measured.html"
    script = "<script>document.title = document.documentElement.scrollWidth + ' in ' + innerWidth</script></main>"
    open_page = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    measured.write_text(open_page.replace("</main>", script))
    needed, given = re.search(
        r"<title>(\d+) in (\d+)<", browse(measured, tmp_path / "profile", width=500).stdout
    ).groups()
    assert int(given) <= 500
    assert int(needed) <= int(given)
