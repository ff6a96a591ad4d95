"""A stranger's ticket acts nowhere: not in a terminal, a model card, a page, a paper, a log, or a script."""

import ast
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from sslticket.cli import commands, exit_status
from sslticket.escaping import escape_terminal
from sslticket.export.writer import export_ticket
from sslticket.storage.files import write_json
from sslticket.ticket import Ticket
from sslticket.training.progress import Status, own_status_file
from tests.payloads import PAYLOADS, Seen

WORDS = [words for words in PAYLOADS if words]
TEXTS = [words for words in WORDS if words.isascii() or "\ud800" not in words]
KEPT = ("is", "kind", "control", "head", "subset_by", "unit", "verdict", "crop")
"""Keys of which a search or a reader knows all values."""


def told(*words: str) -> tuple[int, str, str]:
    """A command's code, standard output and standard error."""
    out, error = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error), pytest.raises(SystemExit) as ended:
        exit_status.run_and_exit(lambda: commands.run_command(words))
    return int(str(ended.value.code)), out.getvalue(), error.getvalue()


def harmless(text: str) -> None:
    """Lines that a terminal shows as they are."""
    assert all(line.isprintable() for line in text.split("\n"))
    text.encode()


def poisoned(value: Any, words: str, key: str = "") -> Any:
    """JSON values with the words in place of every string."""
    if isinstance(value, dict):
        return {name: poisoned(each, words, name) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each, words, key) for each in value]
    return words if isinstance(value, str) and key not in KEPT else value


def stranger(file: Path, words: str, keep: Callable[[Any], dict[str, Any]] = lambda recipe: {}) -> Ticket:
    """The ticket with the words in place of every string of its header, and else as a search wrote it."""
    ticket = Ticket.load(file)
    recipe, provenance = poisoned(ticket.recipe, words), poisoned(ticket.provenance, words)
    return Ticket(ticket.mask, ticket.weights, ticket.level, recipe | keep(ticket.recipe), provenance, ticket.head)


def payloads(file: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Files of tickets of which every string acts; data sets are known in every second, so that a licence is."""
    for number, words in enumerate(WORDS):
        made = stranger(file, words)
        if number % 2:
            made.recipe["data"]["dataset"] = "digits"
        path = folder / f"{number}.safetensors"
        if "\ud800" not in words:  # no reader takes halves of signs
            made.save(path)
            yield words, path


def test_inspect_shows_every_word_and_obeys_none(file: Path, tmp_path: Path) -> None:
    for words, path in payloads(file, tmp_path):
        code, out, error = told("inspect", str(path))
        assert (code, error) == (0, ""), error
        harmless(out)
        assert escape_terminal(words) in out
        lines = [line.split()[0] for line in out.partition("\n\n")[0].splitlines()]
        assert set(lines) <= {
            *("ticket", "model", "objective", "data", "labels", "pattern", "level", "W_k", "head", "seed"),
            *("made", "all", "effective"),
        }


def test_the_names_of_weights_are_words_of_strangers_too(file: Path, tmp_path: Path) -> None:
    ticket = Ticket.load(file)
    names = {name: f"{name}\x1b[2J\n\u202e" for name in ticket.weights}
    mask = type(ticket.mask)({names[name]: layer for name, layer in ticket.mask.items()})
    weights = {names[name]: value for name, value in ticket.weights.items()}
    Ticket(mask, weights, 3, ticket.recipe, ticket.provenance).save(tmp_path / "names.safetensors")
    code, out, error = told("inspect", str(tmp_path / "names.safetensors"))
    assert (code, out) == (2, "")
    harmless(error)
    assert "\\x1b[2J\\n\\u202e" in error


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def shape(code: str) -> str:
    """A script without what its literals say and which network's library makes them."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = type(node.value)()
    return ast.dump(tree)


def test_a_card_has_the_same_parts_whatever_a_ticket_says(file: Path, tmp_path: Path) -> None:
    markdown = pytest.importorskip("markdown")

    def seen(text: str) -> Seen:
        return Seen(markdown.markdown(text.split("---\n", 2)[2], extensions=["tables", "fenced_code"]))

    def about(text: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
        return found

    lone = tmp_path / "plain.safetensors"
    stranger(file, "word").save(lone)
    export_ticket(lone, tmp_path / "plain", licence="CC BY 4.0")
    plain = (tmp_path / "plain" / "README.md").read_text()
    for words, path in payloads(file, tmp_path):
        code, out, error = told("export", str(path), str(tmp_path / path.stem), "--data-licence", "CC BY 4.0")
        assert (code, error) == (0, "")
        harmless(out)
        text = (tmp_path / path.stem / "README.md").read_text()
        harmless(text)
        assert [shape(each) for each in blocks(text)] == [shape(each) for each in blocks(plain)] or "digits" in text
        for block in blocks(text):
            compile(block, "card", "exec")
        front = about(text)
        assert front.keys() == about(plain).keys()
        assert {key: front[key] for key in ("license", "library_name")} == {
            "license": "cc-by-4.0",
            "library_name": "sslticket",
        }
        assert escape_terminal(words) in front["tags"] or escape_terminal(words).strip() in front["tags"]
        page = seen(text)
        # Of a data set that the catalogue knows there is a row more, and its home.
        assert sorted(set(page.tags)) == sorted(set(seen(plain).tags))
        assert page.attributes == seen(plain).attributes
        config = json.loads((tmp_path / path.stem / "config.json").read_text())
        assert config["model"] == words


def test_rows_of_strangers_act_in_no_page_paper_picture_table_or_terminal(run: Path, tmp_path: Path) -> None:
    names = ("objective", "model", "source", "target", "protocol", "run", "command", "commit", "device", "dataset")
    # Several words in a report, each in a field of its own; every word comes to several fields.
    for number in range(2):
        rows = tmp_path / f"{number}" / "rows"
        strange = {name: TEXTS[(place * 5 + number * 13) % len(TEXTS)] for place, name in enumerate(names)}
        for path in sorted((run / "rows").glob("*.jsonl")):
            row = json.loads(path.read_text())
            row |= {key: words for key, words in strange.items() if isinstance(row.get(key), str)}
            (rows / path.name).parent.mkdir(parents=True, exist_ok=True)
            (rows / path.name).write_text(json.dumps(row | {"versions": {TEXTS[number]: TEXTS[-number]}}) + "\n")
        page, paper, figures = (tmp_path / f"{number}.{end}" for end in ("html", "tex", "figures"))
        code, out, error = told(
            *("report", str(rows.parent), "-o", str(page), "--latex", str(paper)),
            *(("--figures", str(figures), "--format", "svg") if number == 0 else ()),
        )
        assert (code, error.count("Traceback")) == (0, 0), error
        harmless(out)
        text = page.read_text()
        seen = Seen(text)
        assert seen.tags.count("script") == 2
        assert not {"img", "iframe", "a", "object", "form", "base"} & set(seen.tags)
        assert not [name for name, _ in seen.attributes if name.startswith("on")]
        assert [value for name, value in seen.attributes if name in ("href", "src")] == ["data:,"]
        json.loads(re.findall(r'id="trainings">(.*?)</script>', text, re.DOTALL)[0])
        table = paper.read_text()
        bare = re.sub(r"\\text\w+\{\}|\\[&%$#_{}]|\$\\pm\$", "", table)
        assert set(re.findall(r"\\[a-zA-Z]+", bare)) <= {
            *(
                r"\begin",
                r"\end",
                r"\centering",
                r"\caption",
                r"\label",
                r"\toprule",
                r"\midrule",
                r"\bottomrule",
                r"\usepackage",
            )
        }
        assert bare.count("{") == bare.count("}")
        cells = tmp_path / f"{number}.csv"
        assert told("rows", str(rows.parent), "-o", str(cells))[0] == 0
        assert not re.search(r"(?:^|,)\"?[=@+]", cells.read_text(), re.MULTILINE)


def test_watch_shows_what_a_stranger_wrote_and_obeys_nothing(tmp_path: Path) -> None:
    for number, words in enumerate(WORDS):
        folder = tmp_path / str(number)
        write_json(folder / "recipe.json", {"recipe": {"search": {"levels": 3}}})
        status = Status(
            task=words, step=1, steps=2, rate=1.0, loss=1.0, probe=None, left=None, host=words, pid=1, time=0.0
        )
        status.write(own_status_file(folder))
        if "/" not in words and "\x00" not in words and len(words) < 200 and "\ud800" not in words:
            (folder / "rows").mkdir()
            (folder / "rows" / f"level-00.{words}.{words}.seed0.jsonl").touch()
    code, out, _ = told("watch", str(tmp_path), "--once")
    assert code == 0
    harmless(out)
    starts = (str(tmp_path), "  search   ", "  rows     ", "  stopped  ", "0 tickets, ")
    assert all(line.startswith(starts) for line in out.splitlines())


def test_an_error_is_one_line_whatever_a_file_is_called(tmp_path: Path) -> None:
    for words in WORDS:
        if "\x00" in words or "\ud800" in words or len(words) > 200:
            continue
        for command in (("inspect",), ("evaluate",), ("report",), ("watch",), ("show",), ("data", "verify")):
            code, out, error = told(*command, str(tmp_path / words.replace("/", "_")))
            assert (code, out) == (2, ""), (command, words)
            harmless(error)
            assert error.count("\n") == 1


def test_the_next_command_can_be_pasted_whatever_its_folder_is_called(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "my ticket's; touch pwned"
    said = export_ticket(file, out)
    assert shlex.split(said.rpartition("then: ")[2]) == ["hf", "upload", "USER/NAME", str(out)]
