"""The style of CONTRIBUTING: entries of docstrings stand alone, files are of a readable length, names are used once."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sslticket"
FILES = sorted(PACKAGE.rglob("*.py"))
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):\n((?:[ ]+.*\n?|\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(?! )((?:[\w.*`]+(?: \([^)]*\))?: )?)(.*(?:\n {8,}.*)*)", re.MULTILINE)


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Every docstring of a file, by the name of what it is about."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", path.stem), text


def fragments(text: str) -> Iterator[str]:
    """What of a docstring begins with a small letter or ends without a full stop."""
    summary = text.split("\n\n")[0]
    if not re.match(r"[A-Z0-9`\"'(]", summary) or not summary.rstrip().endswith((".", ":", "?", "!")):
        yield summary
    for section in _SECTION.finditer(text + "\n"):
        for entry in _ENTRY.finditer(section.group(2)):
            told = entry.group(2).strip()
            if told and not (re.match(r"[A-Z0-9`\"'({\[+\-<]", told) and told.endswith((".", ":", "?", "!", ")"))):
                yield f"{section.group(1)} {entry.group(1)}{told}"


def test_each_sentence_and_entry_of_a_docstring_stands_alone() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} {name}: {found}"
        for path in FILES
        for name, text in docstrings(path)
        for found in fragments(text)
    ]
    assert wrong == []


def test_no_file_name_is_used_in_two_packages() -> None:
    names = Counter(path.stem for path in FILES)
    assert [name for name, count in names.items() if count > 1 and name not in ("__init__", "base")] == []


def test_the_package_has_few_files_of_a_readable_length() -> None:
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in FILES]
    assert len(FILES) <= 178
    small = [path for path, length in zip(FILES, lengths, strict=True) if length < 60 and path.stem[:2] != "__"]
    assert len(small) <= 12
