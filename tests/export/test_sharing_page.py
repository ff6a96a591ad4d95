"""The lines of docs/sharing.md, run in the order in which they stand there."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from torch.nn.utils import prune

from sslticket.cli.commands import run_command
from tests.export.conftest import made

PAGE = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text()


def test_every_line_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket = made("resnet18", "cifar10")
    ticket.save(tmp_path / "runs" / "KEY" / "tickets" / "level-03.safetensors")
    monkeypatch.chdir(tmp_path)
    last: dict[str, object] = {}
    printed = 0
    for language, block in re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL):
        if language == "python":
            last = {}
            exec(block, last)
            out = capsys.readouterr().out
            for expected in re.findall(r"print\(.*\)  # (.*)", block):
                printed += 1
                assert out == f"{expected}\n"
            continue
        for line in block.splitlines():
            words = shlex.split(line)
            if line.endswith(".onnx") and find_spec("onnx") is None:
                continue
            if words[:2] == ["sslticket", "export"]:
                run_command(words[1:])
        capsys.readouterr()
    assert printed == 2
    assert prune.is_pruned(last["model"])
