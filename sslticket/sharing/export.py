"""A ticket written for others; every file and folder is there whole or not at all, and none is ever replaced."""

from pathlib import Path

from sslticket import hub
from sslticket.errors import BadInput
from sslticket.escaping import shell
from sslticket.files import folder_written_whole, write_json
from sslticket.sharing import card, states
from sslticket.sharing.config import config
from sslticket.sharing.facts import facts
from sslticket.sharing.licence import Licence
from sslticket.sharing.measured import Measured
from sslticket.sharing.networks import construction
from sslticket.ticket import Ticket


def export(place: Path | str, out: Path, *, layout: str | None = None, licence: str | None = None) -> str:
    """Write a folder for the Hugging Face Hub, or a state dict where `out` ends in .safetensors, .pt or .pth.

    Args:
        place: whatever `Ticket.load` takes.
        out: the folder or file; not there yet, an empty folder, or what this very export has written before.
        layout: of a state dict, "plain" or "prune"; None is plain.
        licence: of the images, in a few words, where the catalogue does not know it.

    Returns:
        What was written, for a person.

    Raises:
        BadInput: if the ticket cannot be read, `out` is taken, or a licence is not known.
        Unwritten: if `out` cannot be written.
    """
    if out.suffix in states.ENDINGS:
        return _state(place, out, layout or "plain")
    if layout is not None:
        raise BadInput(f"{out} is a folder's name, and --format is for files; end it in {' or '.join(states.ENDINGS)}")
    return _folder(place, out, licence)


def _state(place: Path | str, out: Path, layout: str) -> str:
    taken = BadInput(f"{out} is there already; delete it or give another name")
    if out.exists() and not out.is_file():
        raise taken
    ticket = Ticket.load(place)
    state = states.of(ticket, layout)
    about = {"ticket_hash": ticket.hash, "level": str(ticket.level), "layout": layout}
    if not out.exists():
        states.write(state, out, about)
    elif out.read_bytes() != states.content(state, out.suffix, about):  # else an export that was killed at its end
        raise taken
    return f"{out}\n{len(state)} tensors, {layout}, {ticket.mask.density:.4%} of the prunable weights are not 0"


def _folder(place: Path | str, out: Path, licence: str | None) -> str:
    # Through links, since a folder takes the place of an empty one but not of a link to it.
    target = out.resolve()
    own = {hub.TICKET, card.MODEL, card.CONFIG, "README.md", card.CURVE}
    if out.exists() and (not out.is_dir() or not {file.name for file in out.iterdir()} <= own):
        raise BadInput(f"{out} is there already and not empty; delete it or give another name")
    if target == Path.cwd():
        raise BadInput(f"{out} is the folder that you are in, which a whole new one cannot replace; give another name")
    file = hub.file_of(place)
    ticket = Ticket.load(file)
    told = facts(ticket)
    which = Licence.of(ticket.recipe["data"]["dataset"], licence)
    measured = Measured.of(ticket, file)
    text = card.Card(ticket, which, measured, construction(ticket)).text()
    with folder_written_whole(target) as folder:  # which looks whether files that are there are these
        ticket.save(folder / hub.TICKET)
        states.write(states.plain(ticket), folder / card.MODEL, {"ticket_hash": ticket.hash})
        write_json(folder / card.CONFIG, config(ticket))
        (folder / "README.md").write_text(text, encoding="utf-8")
        if measured.curve:
            (folder / card.CURVE).write_bytes(measured.curve)
    curve = "with a curve" if measured.curve else "without a curve: no row of an evaluation lay beside the ticket"
    return f"{out}\n{told['level']}; {curve}\nread {out / 'README.md'}, then: hf upload USER/NAME {shell(str(out))}"
