"""The page in a real browser: what a reader does with mouse, keyboard and a phone."""

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from sslticket import report
from sslticket.report.chart import COLOURS, TINTS
from tests.payloads import PAYLOADS
from tests.report import analysed, conditions
from tests.report.chromium import Chromium, Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def file(searched, score, tmp_path_factory) -> Path:
    """The page of two searches under two protocols, with a name that would like to be a script."""
    hostile = {"run": "x", "objective": "<script>document.title='run'</script>", "command": "</script><b id=smuggled>"}
    more = [score(**hostile, top1=0.42), score(protocol="moved", target="moved")]
    folder = tmp_path_factory.mktemp("report")
    (folder / "runs/rows").mkdir(parents=True)
    (folder / "runs/rows/all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*searched, *more]))
    return report.write_report([folder / "runs"], folder / "report.html").html


@pytest.fixture
def page(browser, file) -> Iterator[Page]:
    """It, and at the end: the console stayed silent, and nothing but the file was asked for."""
    shown = browser.page(file)
    yield shown
    assert shown.complaints() == []
    assert shown.requests() == [file.as_uri()]


@pytest.fixture(scope="module")
def analyses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with the figures of every analysis."""
    folder = tmp_path_factory.mktemp("analyses")
    (folder / "rows").mkdir()
    (folder / "rows/all.jsonl").write_text("".join(json.dumps(each) + "\n" for each in analysed.rows()))
    return report.write_report([folder], folder / "report.html").html


def shown(page: Page, selector: str) -> int:
    """How many elements can be seen."""
    return page.ask(f"[...document.querySelectorAll({selector!r})].filter(each => each.getClientRects().length).length")


def column(page: Page, number: int) -> list[str]:
    lines = "[...document.querySelector('#numbers').tBodies[0].rows].filter(row => !row.hidden)"
    return page.ask(f"{lines}.map(row => row.cells[{number}].textContent)")


def test_no_value_becomes_an_element_or_a_script(page):
    assert page.ask("document.title").startswith("Tickets: conv on digits")
    assert page.ask("document.querySelectorAll('#smuggled').length") == 0
    assert "<script>document.title='run'</script>" in page.ask("document.body.innerText")


def test_a_script_that_is_not_ours_is_refused(browser, file, tmp_path):
    smuggled = tmp_path / "smuggled.html"
    smuggled.write_text(file.read_text("utf-8").replace("</main>", "<script>document.title = 'run'</script></main>"))
    page = browser.page(smuggled)
    assert "Content Security Policy" in str(page.complaints())
    assert page.ask("document.title") != "run"


def test_a_series_is_switched_off_and_on_in_every_chart(page):
    place = page.ask("[...document.querySelectorAll('.legend label')].findIndex(each => each.textContent === 'rotnet')")
    before = shown(page, f".chart .s{place}")
    others = shown(page, ".chart g[class^=s]") - before
    assert before >= 3
    page.click(f"#t{place}")
    assert shown(page, f".chart .s{place}") == 0
    assert shown(page, ".chart g[class^=s]") == others
    page.click(f"#t{place}")
    assert shown(page, f".chart .s{place}") == before


def test_a_point_tells_its_value_to_the_mouse(page):
    page.point("article .wide .pt[aria-label^='supervised at 12.5%']")
    assert page.ask("document.getElementById('tip').innerText") == (
        "supervised at 12.5%: 95.5 ± 0.7%, 95% interval 89.1 to 101.9%, 2 searches"
    )
    page.point("h1")
    assert page.ask("document.getElementById('tip').hidden")


def test_points_tell_their_values_to_the_arrow_keys(page):
    page.ask("document.querySelector('article .wide .chart').focus()")
    told = []
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.press(key)
        told.append(page.ask("document.getElementById('tip').innerText").partition(":")[0])
    assert told[:3] == ["supervised at 100%", "supervised at 50%", "supervised at 25%"]
    assert told[3].endswith("at 25%")
    assert not told[3].startswith("supervised")
    assert told[4] == told[3].replace("25%", "50%")


def test_a_heading_sorts_by_mouse_and_by_keyboard(page):
    tops = [float(value) for value in column(page, 4)]
    assert tops != sorted(tops)
    page.click("#numbers th:nth-child(5) button")
    assert page.ask("document.querySelector('#numbers th:nth-child(5)').ariaSort") == "ascending"
    assert [float(value) for value in column(page, 4)] == sorted(tops)
    page.press("Enter")
    assert page.ask("document.querySelector('#numbers th:nth-child(5)').ariaSort") == "descending"
    assert [float(value) for value in column(page, 4)] == sorted(tops, reverse=True)
    page.click("#numbers th:nth-child(1) button")
    assert column(page, 0) == sorted(column(page, 0))
    assert page.ask("document.querySelectorAll('#numbers [aria-sort]').length") == 1


def test_what_was_not_measured_is_sorted_to_the_end(page):
    for _ in range(2):
        page.click("#numbers th:nth-child(6) button")
        assert {"\N{EN DASH}"} == set(column(page, 5)[-2:])


def test_words_filter_the_table(page):
    everything = len(column(page, 0))
    page.ask("document.getElementById('filter').focus()")
    page.write("RANDOM 12.5")
    assert set(column(page, 0)) == {"random"}
    assert column(page, 3) == ["12.5%"]
    assert page.ask("document.getElementById('count').innerText") == f"1 of {everything} shown"


def test_a_mean_opens_into_its_trainings_and_their_making(page):
    page.ask("document.getElementById('filter').focus()")
    page.write("script")
    page.click("#numbers tr:not([hidden]) td:last-child button")
    assert "</script><b id=smuggled>" in page.ask("document.querySelector('tr.opened').innerText")
    assert page.ask("document.querySelector('tr.opened tbody').rows[0].cells[2].textContent") == "42.00"
    page.click("#numbers tr:not([hidden]) td:last-child button")
    assert page.ask("document.querySelector('tr.opened')") is None


def test_one_panel_is_shown_and_another_can_be_chosen(page):
    assert shown(page, "article") == 1
    page.ask("document.querySelector('#accuracy select').focus()")
    page.press("ArrowDown")
    assert shown(page, "article") == 1
    assert "moved" in page.ask("[...document.querySelectorAll('article')].find(each => each.offsetHeight).innerText")


def test_everything_that_acts_can_be_reached_with_the_keyboard_and_shows_it(page):
    acting = page.ask(
        "[...document.querySelectorAll('button, select, input, summary')].every(each => each.tabIndex === 0)"
    )
    assert acting
    page.press("Tab")
    assert page.ask("getComputedStyle(document.activeElement).outlineStyle") != "none"


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_need_not_be_scrolled_sideways(browser, file, analyses, width):
    for page in (browser.page(file, width=width), browser.page(analyses, width=width)):
        assert page.ask("document.documentElement.scrollWidth") <= width


def test_every_analysis_is_drawn_and_nothing_complains(browser, analyses):
    page = browser.page(analyses)
    for part in ("rewinding", "stability", "connectivity", "magnitudes", "overlap"):
        assert shown(page, f"#{part} .chart") >= 2
        assert shown(page, f"#{part} .chart .stroke") >= 2
    assert shown(page, "#overlap table.heat") == 2
    assert shown(page, "#dead table.heat td.cut") == 1
    assert page.complaints() == []
    assert page.requests() == [analyses.as_uri()]


def test_a_part_with_series_of_its_own_has_switches_of_its_own(browser, analyses):
    page = browser.page(analyses)
    switches = "[...document.querySelectorAll('#rewinding .legend label')]"
    assert page.ask(f"{switches}.map(each => each.textContent)") == [
        "rotnet",
        "supervised",
        "rotnet, local",
        "supervised, local",
    ]
    own, others = "#rewinding .chart .stroke", "#stability .chart .stroke"
    before, elsewhere = shown(page, own), shown(page, others)
    page.click("#rewinding .legend input")
    assert shown(page, own) == before * 3 // 4
    assert shown(page, others) == elsewhere


def test_a_place_without_a_marker_tells_its_value_too(browser, analyses):
    page = browser.page(analyses)
    page.ask("[...document.querySelectorAll('#magnitudes .chart')].find(each => each.getClientRects().length).focus()")
    page.press("ArrowRight")
    assert "at \N{MINUS SIGN}7.5: % of the weights: 5" in page.ask("document.getElementById('tip').innerText")


def test_what_a_list_says_is_not_said_again(browser, analyses):
    page = browser.page(analyses)
    assert page.ask("document.querySelector('#connectivity .pick:last-child select').value") == "0"
    titles = "[...document.querySelectorAll('#connectivity .pick:last-child h3')].filter(e => e.offsetHeight)"
    assert page.ask(f"{titles}.map(each => each.innerText)") == ["Error, as it is", "Error, batch norm recalibrated"]
    whole = browser.page(analyses).ask("document.querySelector('#stability h3').innerText")
    assert whole == "conv on digits, protocol digits: distance from the pruned dense network"


def test_a_page_of_analyses_alone_works(browser, tmp_path):
    (tmp_path / "rows").mkdir()
    rows = [each for each in analysed.rows() if each["kind"] not in ("score", "level")]
    (tmp_path / "rows/all.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    page = browser.page(report.write_report([tmp_path], tmp_path / "report.html").html)
    assert page.complaints() == []
    page.point("#stability .pt")
    assert page.ask("document.getElementById('tip').innerText").endswith("± 0, 2 searches")
    assert shown(page, "#numbers") == 0


def test_without_scripts_all_panels_figures_and_numbers_are_there(browser, file, tmp_path):
    """Seen in a picture, since a page without scripts answers no questions: it is longer, as nothing is folded away."""
    sizes = {}
    for script in (True, False):
        shot = browser.page(file, script=script).screenshot(tmp_path / f"{script}.png", whole=True)
        with Image.open(shot) as picture:
            sizes[script] = picture.height
    assert sizes[False] > sizes[True] + 1000


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_drawn_in_the_colours_of_its_scheme(browser, file, tmp_path, dark):
    with Image.open(browser.page(file, dark=dark).screenshot(tmp_path / "shot.png", whole=True)) as picture:
        counts = {colour: count for count, colour in picture.convert("RGB").getcolors(1 << 24)}
    paper, first = ((0x0E, 0x12, 0x17), (0x4B, 0xA3, 0xE3)) if dark else ((0xF5, 0xF6, 0xF8), (0x00, 0x72, 0xB2))
    assert max(counts, key=counts.__getitem__) in (paper, (0x16, 0x1B, 0x22) if dark else (0xFF, 0xFF, 0xFF))
    assert counts[first] > 500


def test_text_can_be_told_from_what_is_behind_it(browser, file, analyses):
    """Contrast of at least 4.5 (WCAG 2.2, 1.4.3) of all text in tables and paragraphs, in both schemes."""
    script = """(() => {
      const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
      const behind = element => {
        const layers = [];
        for (let each = element; each; each = each.parentElement) {
          const [r, g, b, a = 1] = numbers(getComputedStyle(each).backgroundColor);
          if (a) layers.push([r, g, b, a]);
          if (a === 1) break;
        }
        const over = (under, [r, g, b, a]) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
        return layers.reverse().reduce(over, [0, 0, 0]);
      };
      const shades = document.body.appendChild(document.createElement('table'));
      shades.className = 'heat';
      const steps = [...Array(10).keys()].map(step => `h${step}`);
      const signed = [1, 2, 3, 4, 5].flatMap(step => [`dm${step}`, `dp${step}`]);
      for (const name of [...steps, ...signed, 'cut']) {
        const cell = shades.insertRow().insertCell();
        cell.className = name;
        cell.textContent = '1.56';
      }
      const found = [];
      const names = 'td, th, p, li, h1, h2, h3, label, summary, dd, dt, caption span, small';
      for (const each of document.querySelectorAll(names)) {
        if (!each.getClientRects().length || !each.innerText.trim()) continue;
        const [one, two] = [light(numbers(getComputedStyle(each).color)), light(behind(each))];
        const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
        if (contrast < 4.5) found.push([each.tagName, each.className, each.innerText.slice(0, 20), contrast]);
      }
      return found;
    })()"""
    for path, dark in product((file, analyses), (False, True)):
        assert browser.page(path, dark=dark).ask(script) == []


def test_colours_of_series_can_be_told_from_the_card(file):
    """Contrast of at least 3 (WCAG 2.2, 1.4.11) of every line, in both schemes."""

    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    style = file.read_text("utf-8")
    for card, colours in zip(("ffffff", "161b22"), re.findall(r"(--c0:[^}]*)", style), strict=True):
        named = re.findall(r"#([0-9a-f]{6})", colours)
        assert len(named) == len(COLOURS) * len(TINTS)
        for colour in named:
            one, two = sorted((light(card), light(colour)))
            assert (two + 0.05) / (one + 0.05) >= 3, colour


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of rows with all conditions and controls there are."""
    folder = tmp_path_factory.mktemp("conditions")
    (folder / "rows").mkdir()
    (folder / "rows/all.jsonl").write_text("".join(json.dumps(each) + "\n" for each in conditions.rows()))
    return report.write_report([folder], folder / "report.html").html


@pytest.mark.parametrize("width", [390, 1280])
def test_heads_starts_and_controls_are_told_apart(browser, told, width):
    page = browser.page(told, width=width)
    assert page.complaints() == []
    assert page.ask("document.documentElement.scrollWidth") <= width
    names = page.ask("[...document.querySelectorAll('.legend label')].map(each => each.textContent)")
    assert names == [
        *("supervised", "supervised, own head", "rotnet"),
        *(f"{objective}, {control}" for control in conditions.OWN for objective in ("supervised", "rotnet")),
        *("random", "adjusted"),
    ]
    assert page.ask("[...document.querySelectorAll('#accuracy option')].slice(0, 2).map(each => each.textContent)") == [
        "conv on digits (start 0), protocol digits",
        "conv on digits (start k), protocol digits",
    ]
    assert shown(page, "#notes li") == 4


def test_a_cut_ticket_says_so_to_the_mouse(browser, told):
    page = browser.page(told)
    page.point("article .wide .pt[aria-label^='rotnet at 6.25%']")
    assert page.ask("document.getElementById('tip').innerText").endswith(
        "6 searches, 18 trainings, effective density 0% in 2 of 6"
    )


def test_verdicts_of_six_searches_are_told_with_their_corrected_p(browser, told):
    page = browser.page(told)
    items = page.ask("[...document.querySelectorAll('.findings:not(.verdicts) li')].map(each => each.innerText)")
    assert len(items) == 4
    assert all("p = 0.011 corrected for 5 densities; 6 searches against 6" in each for each in items)


def test_no_word_of_a_strangers_rows_runs_in_the_page(browser: Chromium, searched, score, tmp_path: Path) -> None:
    texts = [words for words in PAYLOADS if words and "\ud800" not in words]
    rows = [score(run=words, objective=words, command=words, commit=words, top1=0.4) for words in texts]
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*searched, *rows]))
    page = browser.page(report.write_report([tmp_path], tmp_path / "report.html").html)
    page.ask("[...document.querySelectorAll('#numbers tbody button')].forEach(each => each.click())")
    assert page.ask("typeof window.pwned") == "undefined"
    assert page.ask("document.querySelectorAll('img, iframe, form, main a').length") == 0
    assert page.complaints() == []
    assert len(page.requests()) == 1
