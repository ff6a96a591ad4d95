"""Text from anywhere, made harmless where it is shown: names and settings in tickets, rows and files can hold anything.

There is one function for each place that text can reach. All of them first make visible what nobody sees: control
characters, line breaks, signs that turn the direction of writing, and bytes that are no text.
"""

import hashlib
import json
import re
import shlex
from html import escape
from typing import Any

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': "''",
    "±": r"$\pm$",
}

_MARKDOWN = {sign: f"\\{sign}" for sign in "\\`*_[]"} | {sign: f"&#{ord(sign)};" for sign in "~|$@"}
_MARKDOWN |= {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# GitHub and the Hub make links of these without brackets, and pictures of ":words:".
_ADDRESS = re.compile(r":(?=\S)|(?<=\bwww)\.", re.IGNORECASE)
_BLOCK_START = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[-+#]))")  # begins a list, a heading or a rule
_MAX_FILENAME = 120  # characters: names of files end at 255 bytes, and an ending and a writer's number are to follow
_RESERVED_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


def escape_terminal(words: str) -> str:
    r"""One line for a terminal, a log or a picture: what cannot be printed is told, "\x1b" for an escape."""
    if words.isprintable():
        return words
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in words)


def escape_lines(text: str) -> str:
    """Lines of ours for a terminal, in which words of others may stand."""
    return "\n".join(map(escape_terminal, text.split("\n")))


def escape_json(value: Any) -> Any:
    """JSON values of which every word is as `terminal` shows it."""
    if isinstance(value, str):
        return escape_terminal(value)
    if isinstance(value, dict):
        return {escape_json(key): escape_json(each) for key, each in value.items()}
    return [escape_json(each) for each in value] if isinstance(value, (list, tuple)) else value


def escape_markdown(words: str) -> str:
    """One line, or a table's cell, in which Markdown sees no tag, link, emphasis, formula or block."""
    text = "".join(_MARKDOWN.get(sign, sign) for sign in escape_terminal(words))
    text = _ADDRESS.sub(lambda found: f"&#{ord(found[0])};", text)
    return _BLOCK_START.sub(r"\1\\", text.strip())


def escape_html(words: str) -> str:
    """The text of an element, or an attribute's value in quotation marks."""
    return escape(escape_terminal(words))


def json_for_script(value: Any) -> str:
    """A value as JSON that a <script> can hold: no word in it can end the element."""
    found = json.dumps(escape_json(value), separators=(",", ":"), allow_nan=False)
    return found.replace("<", "\\u003c")


def escape_latex(words: str) -> str:
    """Text in which LaTeX sees no command."""
    return "".join(_LATEX.get(sign, sign) for sign in escape_terminal(words))


def python_literal(words: str) -> str:
    """A literal in double quotation marks, ASCII and one line."""
    quoted = ascii(words)
    return quoted if quoted[0] == '"' else '"' + quoted[1:-1].replace('"', '\\"') + '"'


def shell_quote(words: str) -> str:
    """One word of a command to type in bash or zsh, one line whatever is in it."""
    if words.isprintable():
        return shlex.quote(words)
    coded = words.encode("utf-8", "surrogateescape")
    plain = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\x{byte:02x}" for byte in coded)
    return f"$'{''.join(plain)}'"


def escape_cell(words: str) -> str:
    """A cell of text that no spreadsheet takes for a formula: an apostrophe in front of what begins like one or so."""
    return f"'{words}" if words[:1] in tuple("=+-@\t\r'") else words


def unescape_cell(cell: str) -> str:
    """The text of a cell that `escape_cell` made."""
    return cell[1:] if cell == escape_cell(cell[1:]) else cell


def safe_filename(words: str) -> str:
    """A file's name without its ending: no sign that a file system or a paper's source would stumble over."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.")
    if len(name) > _MAX_FILENAME:
        name = f"{name[:_MAX_FILENAME]}-{hashlib.sha256(words.encode(errors='replace')).hexdigest()[:8]}"
    first, _, rest = name.partition(".")
    return f"{first}-{rest}" if first.lower() in _RESERVED_NAMES else name or "-"
