"""Every command takes imported tickets, and what is unknown of them is unknown in rows, pages and cards too."""

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

from sslticket.cli.commands import run_command
from sslticket.config.recipe import Recipe
from sslticket.errors import BadInput
from sslticket.report.content import Content
from sslticket.results.table import read_rows
from sslticket.ticket import Ticket
from tests.importing.conftest import Found

_PROTOCOL = """from sslticket.config.training import SGD, TrainConfig
from sslticket.evaluation.protocols import Protocol

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="6it", batch_size=32, optimizer=SGD(lr=0.1))
)
"""


def command(line: str) -> None:
    run_command(shlex.split(line))


@pytest.fixture(scope="module")
def home(found: Found, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks of others, each imported into a run of its own and scored beside a random ticket."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "short.py").write_text(_PROTOCOL)
    torch.save(found.state, folder / "one.pt")
    torch.save(found.early | {f"{name}_mask": mask for name, mask in found.masks.items()}, folder / "two.pt")
    for name in ("one", "two"):
        command(f"import {folder}/{name}.pt {folder}/runs/{name} --model conv3")
    protocol = f"--protocol {folder}/short.py:SHORT"
    command(f"evaluate {folder}/runs {protocol} --seeds 0 --controls random preserved --precision fp32")
    return folder


@pytest.fixture
def ticket(home: Path) -> Path:
    return home / "runs" / "one" / "tickets" / "level-01.safetensors"


def test_rows_do_not_invent_what_is_unknown_and_tell_searches_apart(home: Path) -> None:
    frame = read_rows([home / "runs"])
    assert frame["search_seed"].isna().all()
    assert not frame["rewind_samples"].notna().any()
    assert set(frame["objective"]) == set(frame["source"]) == {"unknown"}
    assert frame["recipe"].nunique() == 2  # two searches, not two levels or replicates of one
    random = frame[frame["control"] == "random"]
    assert random["replicate"].nunique() == 2
    units = Content(frame).rows.set_index(["run", "control"])["unit"]
    assert (units["one", "ticket"], units["two", "ticket"]) == ("search one", "search two")


def test_seeds_that_are_known_stay_whole_beside_unknown_ones(home: Path, tmp_path: Path) -> None:
    (tmp_path / "known" / "rows").mkdir(parents=True)
    row = json.loads(next((home / "runs" / "one" / "rows").glob("*ticket*.jsonl")).read_text())
    large = 2**62 + 1  # which floats cannot hold
    (tmp_path / "known" / "rows" / "a.jsonl").write_text(json.dumps(row | {"search_seed": large, "run": "known"}))
    seeds = read_rows([home / "runs", tmp_path])["search_seed"]
    assert [int(seed) for seed in seeds.dropna()] == [large]


def test_reports_and_tables_take_rows_of_imported_tickets(home: Path, tmp_path: Path) -> None:
    command(f"report {home}/runs -o {tmp_path}/report.html --latex {tmp_path}/table.tex --figures {tmp_path}/figures")
    page = (tmp_path / "report.html").read_text()
    texts = re.findall(r">([^<]*)<", page)
    assert not {"nan", "NaN", "&lt;NA&gt;"} & {text.strip() for text in texts}
    assert any("unknown" in text for text in texts)
    command(f"rows {home}/runs -o {tmp_path}/rows.csv")
    assert pd.read_csv(tmp_path / "rows.csv")["ticket_hash"].nunique() == 2
    whole, again = read_rows([home / "runs"]), read_rows([tmp_path / "rows.csv"])
    assert again["search_seed"].isna().all()
    assert len(again) == len(whole)
    command(f"watch {home}/runs --once")


def test_analyses_take_imported_tickets(home: Path, found: Found, capsys: pytest.CaptureFixture[str]) -> None:
    command(f"analyse overlap {home}/runs")
    assert "unknown seeds" in capsys.readouterr().out
    command(f"analyse channels {home}/runs")
    protocol = f"--protocol {home}/short.py:SHORT --seeds 0 --levels 1 --precision fp32"
    command(f"analyse magnitudes {home}/runs/one {protocol}")
    assert "1 row measured" in capsys.readouterr().out
    torch.save(found.masks, home / "masks.pt")
    torch.save(found.early, home / "wk.pt")
    command(f"import {home}/masks.pt {home}/others/three --model conv3 --early {home}/wk.pt")
    dense = Ticket.load(home / "others" / "three" / "tickets" / "level-00.safetensors")
    assert (dense.density, dense.level) == (1, 0)
    assert torch.equal(dense.weights["features.4.weight"], found.early["features.4.weight"])
    for analysis in ("stability", "connectivity"):
        command(f"analyse {analysis} {home}/others {protocol}")
    command(f"evaluate {home}/others {protocol} --controls permuted")
    frame = read_rows([home / "runs", home / "others"])
    assert {"overlap", "channels", "magnitudes", "stability", "connectivity"} <= set(frame["kind"])
    command(f"report {home}/runs {home}/others -o {home}/analyses.html")


def test_inspect_says_what_is_unknown(ticket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(f"inspect {ticket}")
    out = capsys.readouterr().out
    assert "objective unknown\n" in out
    assert "unknown   objective, dataset, seed, level, rewind_samples, image_size, images\n" in out
    assert "made by   torch.nn.utils.prune; imported from one.pt (hash " in out
    assert "how often it was pruned is unknown" in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate {} --protocol own", "its ticket was imported, and how its network was trained is not told"),
        ("evaluate {} --protocol digits-demo@k", "and nobody knows the ticket's; give --protocol digits-demo@0"),
        ("analyse stability {} --protocol digits-demo", "needs the dense network of its search"),
    ],
)
def test_what_needs_the_unknown_is_refused_in_one_line(line: str, words: str, ticket: Path) -> None:
    with pytest.raises(BadInput, match=words) as error:
        command(line.format(ticket))
    assert "\n" not in str(error.value)


def test_a_recipe_of_others_is_not_run_again(ticket: Path) -> None:
    with pytest.raises(BadInput, match="its ticket was imported"):
        Recipe.from_dict(Ticket.load(ticket).recipe)


def test_the_card_of_an_imported_ticket_claims_nothing(ticket: Path, tmp_path: Path) -> None:
    command(f"export {ticket} {tmp_path}/card")
    card = ModelCard.load(tmp_path / "card" / "README.md")
    assert card.data.license is None
    assert card.data.tags == ["lottery-ticket", "sparse", "pruning", "conv3"]
    text = (tmp_path / "card" / "README.md").read_text()
    left = f"{100 * Ticket.load(ticket).density:.1f}"
    assert f"# Ticket of conv3 from torch.nn.utils.prune, {left}% of the weights left" in text
    assert "Not by sslticket" in text
    assert "How long the weights were trained is not known" in text
    assert "early weights W_k" not in text
    assert "Unknown, as the images are." in text
    again = Ticket.load(tmp_path / "card")
    assert again.hash == Ticket.load(ticket).hash
    command(f"inspect {tmp_path}/card")
    command(f"export {ticket} {tmp_path}/licensed --data-licence 'CC BY 4.0'")
    assert ModelCard.load(tmp_path / "licensed" / "README.md").data.license == "cc-by-4.0"


def test_it_is_applied_from_python_and_its_network_is_made_as_the_card_says(ticket: Path, tmp_path: Path) -> None:
    command(f"export {ticket} {tmp_path}/card")
    code = (tmp_path / "card" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, nn.Module] = {}
    exec(code.replace('folder = "."', f'folder = "{tmp_path}/card"'), names)
    loaded = Ticket.load(ticket)
    state = names["model"].state_dict()
    assert all(torch.equal(state[name], value) for name, value in loaded.weights.items())


def test_early_weights_that_do_not_fit_leave_no_half_of_a_run(home: Path, found: Found, tmp_path: Path) -> None:
    torch.save(found.early | {"fc.weight": torch.ones(7, 32), "fc.bias": torch.ones(7)}, tmp_path / "other.pt")
    with pytest.raises(BadInput, match="give files of one network"):
        command(f"import {home}/one.pt {tmp_path}/half --model conv3 --early {tmp_path}/other.pt")
    assert not (tmp_path / "half").exists()


def test_who_knows_more_says_it_and_everything_follows(
    home: Path, found: Found, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(found.early, tmp_path / "wk.pt")
    said = "--dataset digits --objective supervised --seed 3 --rewind-samples 64 --level 1 --image-size 8"
    command(f"import {home}/one.pt {tmp_path}/said --model conv3 --early {tmp_path}/wk.pt {said}")
    path = tmp_path / "said" / "tickets" / "level-01.safetensors"
    command(f"inspect {path}")
    out = capsys.readouterr().out
    assert "unknown   images\n" in out
    assert "W_k       after 64 samples\n" in out
    assert "effective density" in out
    command(f"evaluate {path} --protocol {home}/short.py:SHORT@k --seeds 0 --head own --precision fp32 --dry-run")
