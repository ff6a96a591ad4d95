"""Words of strangers stay words: in a terminal, a page, a paper, a script, a shell, a spreadsheet, a file's name."""

import ast
import json
import re
import subprocess

import pytest

from sslticket import escaping
from sslticket.errors import BadInput, one_line
from tests.payloads import PAYLOADS, Seen


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("plain", "plain"),
        ("Überraschung, 日本 ±", "Überraschung, 日本 ±"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202eab\u200b", "\\u202eab\\u200b"),
        ("\x9b\x85\u2028\udcff", "\\x9b\\x85\\u2028\\udcff"),
        ("C:\\new", "C:\\new"),
    ],
)
def test_what_cannot_be_printed_is_told_in_a_terminal(words: str, told: str) -> None:
    assert escaping.escape_terminal(words) == told


@pytest.mark.parametrize("words", PAYLOADS)
def test_a_line_for_a_terminal_is_one_printable_line_and_utf_8(words: str) -> None:
    for told in (escaping.escape_terminal(words), str(BadInput(words)), one_line(ValueError(words))):
        assert told.isprintable()
        told.encode()
    assert escaping.escape_lines(f"a {words}\nb").count("\n") == 1 + words.count("\n")
    shown = json.dumps(escaping.escape_json({words: [words, {"x": words}, 1, None]}), ensure_ascii=False)
    assert shown.isprintable()


@pytest.mark.parametrize("words", [words for words in PAYLOADS if words])
def test_markdown_sees_text_only(words: str) -> None:
    markdown = pytest.importorskip("markdown")
    told = escaping.escape_markdown(words)
    assert "\n" not in told
    lines = f"# {told}\n\n{told}\n\nin a line {told}, too\n\n| a | b |\n|---|---|\n| {told} | {told} |\n"
    seen = Seen(markdown.markdown(lines, extensions=["tables", "fenced_code"]))
    frame = ["h1", "p", "p", "table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert seen.tags == frame
    assert seen.text.count(escaping.escape_terminal(words).strip()) >= 4
    # What GitHub makes links of without brackets.
    assert not re.search(r"https?://|www\.|\w@\w|javascript:\S", told)


@pytest.mark.parametrize(
    ("words", "told"), [("1. x", "1\\. x"), ("- x", "\\- x"), ("95.1 ± 2", "95.1 ± 2"), ("a_b", "a\\_b")]
)
def test_markdown_is_as_readable_as_it_can_be(words: str, told: str) -> None:
    assert escaping.escape_markdown(words) == told


@pytest.mark.parametrize("words", PAYLOADS)
def test_html_is_text_in_elements_and_attributes(words: str) -> None:
    told = escaping.escape_html(words)
    seen = Seen(f'<p title="{told}">{told}</p>')
    assert (seen.tags, seen.text) == (["p"], escaping.escape_terminal(words))
    assert seen.attributes == [("title", escaping.escape_terminal(words))]
    held = escaping.json_for_script({"words": [words]})
    assert "<" not in held
    assert json.loads(held) == {"words": [escaping.escape_terminal(words)]}


@pytest.mark.parametrize("words", PAYLOADS)
def test_latex_has_no_command_of_theirs_and_balanced_braces(words: str) -> None:
    told = escaping.escape_latex(words)
    known = r"\\(?:text(?:backslash|asciitilde|asciicircum|less|greater)\{\}|[&%$#_{}])|\$\\pm\$"
    bare = re.sub(known, "", told)
    assert not set(bare) & set('\\{}$&#_%^~<>"')
    assert "\n" not in told


@pytest.mark.parametrize("words", PAYLOADS)
def test_a_python_literal_is_the_same_text_in_double_quotes(words: str) -> None:
    told = escaping.python_literal(words)
    assert ast.literal_eval(told) == words
    assert told[0] == told[-1] == '"'
    assert told.isascii()
    assert told.isprintable()


@pytest.mark.parametrize("words", [words for words in PAYLOADS if "\x00" not in words and "\ud800" not in words])
def test_a_word_of_a_command_is_one_word_in_a_shell(words: str) -> None:
    told = escaping.shell_quote(words)
    assert told.isprintable()
    heard = subprocess.run(["bash", "-c", f"printf %s {told}"], capture_output=True, check=True)
    assert heard.stdout == words.encode("utf-8", "surrogateescape")


def test_a_cell_is_no_formula() -> None:
    assert [escaping.escape_cell(words) for words in ("=1", "+1", "-1", "@x", "\t=1", "a=1", "")] == [
        *("'=1", "'+1", "'-1", "'@x", "'\t=1", "a=1", "")
    ]


@pytest.mark.parametrize("words", PAYLOADS)
def test_a_files_name_is_one_in_every_file_system(words: str) -> None:
    name = escaping.safe_filename(words)
    assert re.fullmatch(r"[A-Za-z0-9.-]{1,130}", name)
    assert not name.startswith(".")
    assert name.partition(".")[0].lower() not in ("con", "nul")


def test_long_names_that_differ_at_their_end_name_two_files() -> None:
    assert escaping.safe_filename("n" * 300 + "a") != escaping.safe_filename("n" * 300 + "b")
