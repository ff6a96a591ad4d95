"""The example of a control of one's own: evaluated and reported, and measured anew when its file has changed."""

import json
from pathlib import Path

import pytest
import torch

from sslticket import evaluate_tickets
from sslticket.cli.commands import run_command
from sslticket.errors import BadInput
from sslticket.evaluation.controls import Control, get_control
from sslticket.evaluation.tasks import Levels, find_ticket_files, make_tasks
from sslticket.pruning.mask import Mask
from sslticket.ticket import Ticket
from tests.runs import search

FILE = Path(__file__).parents[2] / "examples" / "shuffled_channels.py"
SHUFFLED = f"{FILE}:ShuffledChannels"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


def test_shuffled_channels_keep_their_counts(run: Path) -> None:
    ticket = Ticket.load(run / "tickets" / "level-02.safetensors")
    mask = get_control(SHUFFLED).mask(ticket, seed=3, natural=None)
    assert mask.layer_counts() == ticket.mask.layer_counts()
    for name, layer in ticket.mask.items():
        counts, shuffled = (each.flatten(1).sum(1) for each in (layer, mask[name]))
        assert torch.equal(counts.sort().values, shuffled.sort().values)
    assert not mask.equals(ticket.mask)


def test_a_control_of_ones_own_is_scored_and_reported(run: Path) -> None:
    words = ["--protocol", "digits-demo", "--levels", "2", "--controls", SHUFFLED, "random", "--seeds", "0"]
    run_command(["evaluate", str(run), *words, "--dry-run"])
    run_command(["evaluate", str(run), *words])
    (file,) = run.glob("rows/level-02.shuffled-channels.digits-demo.seed0.jsonl")
    row = json.loads(file.read_text())
    assert list(row["parts"]) == [SHUFFLED]
    (task,) = (
        task
        for task in make_tasks(find_ticket_files([run], Levels((2,))), [SHUFFLED], ["digits-demo"], [0])
        if task.control == row["control"]
    )
    assert task.is_done(row["ticket_hash"], row["protocol_hash"])
    file.write_text(json.dumps(row | {"parts": {SHUFFLED: "0" * 16}}))
    assert not task.is_done(row["ticket_hash"], row["protocol_hash"]), "it is of another version of the control"
    kind = type(get_control(SHUFFLED))
    frame = evaluate_tickets(run, protocol="digits-demo", controls=[kind], levels=(2,), progress=False)
    assert list(frame["control"]) == ["ticket", "shuffled-channels"]
    assert frame["top1"].iloc[1] == row["top1"], "the same seed draws the same control"
    run_command(["report", str(run), "--output", str(run / "report.html")])
    page = (run / "report.html").read_text()
    assert "shuffled-channels" in page
    assert "its output channels in another order" in page, "the description of the control"


def test_a_control_of_ones_own_cannot_have_the_name_of_a_built_in_one() -> None:
    class Random(Control):
        name = "random"

        def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
            return ticket.mask

    with pytest.raises(BadInput, match="must have a name of its own, got 'random'"):
        get_control(Random)
