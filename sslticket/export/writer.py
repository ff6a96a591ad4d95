"""Writes a ticket for others: a folder for the Hugging Face Hub, a state dict with the mask applied, or ONNX.

Every file and folder is there whole or not at all, and none is ever replaced.
"""

import contextlib
import io
import json
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sslticket import hub, models
from sslticket.errors import BadInput
from sslticket.escaping import shell_quote
from sslticket.export import card
from sslticket.export.card import Licence, Measurements
from sslticket.export.description import hub_config, image_arguments, network_construction, ticket_facts
from sslticket.pruning.mask import StateDict
from sslticket.storage.files import atomic_write, atomic_write_folder, parse_json, write_json
from sslticket.ticket import Ticket

LAYOUTS = ("plain", "prune")
SUFFIXES = (".safetensors", ".pt", ".pth")
ONNX_SUFFIX = ".onnx"


def plain_state_dict(ticket: Ticket) -> StateDict:
    """W_k x mask under the backbone's own names; a classification layer is none of them."""
    return dict(ticket.weights)


def prune_state_dict(ticket: Ticket) -> StateDict:
    """The state of a backbone whose prunable weights, those of the mask, went through `torch.nn.utils.prune`.

    Each of them is two tensors: `<name>_orig`, W_k x mask, and `<name>_mask`, 1 for a survivor, in the weight's dtype
    (as `prune.custom_from_mask` keeps it). What W_k was where it is pruned, a ticket does not know.
    """
    state: StateDict = {}
    for name, value in ticket.weights.items():
        if name in ticket.mask:
            state |= {f"{name}_orig": value, f"{name}_mask": ticket.mask[name].to(value.dtype)}
        else:
            state[name] = value
    return state


def make_state_dict(ticket: Ticket, layout: str) -> StateDict:
    """The state dict in one of LAYOUTS.

    Raises:
        BadInput: For another layout.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"unknown format {layout!r} of a state dict; give --format {' or '.join(LAYOUTS)}")
    return plain_state_dict(ticket) if layout == "plain" else prune_state_dict(ticket)


def write_state_dict(state: Mapping[str, Tensor], path: Path, about: Mapping[str, str]) -> None:
    """Write tensors whole: as safetensors, or by `torch.save` under any other name, readable with `weights_only`.

    Args:
        state: The tensors.
        path: Path of the file.
        about: Further metadata of a safetensors file.
    """
    with atomic_write(path) as temporary:
        temporary.write_bytes(state_dict_bytes(state, path.suffix, about))


def state_dict_bytes(state: Mapping[str, Tensor], ending: str, about: Mapping[str, str]) -> bytes:
    """What `write` writes under a name with this ending; the same whenever it is made."""
    if ending == ".safetensors":
        tensors = {name: value.contiguous() for name, value in state.items()}
        return _sort_metadata(save(tensors, metadata={"format": "pt", **about}))
    whole = io.BytesIO()
    torch.save(dict(state), whole)
    return whole.getvalue()


def _sort_metadata(written: bytes) -> bytes:
    """A safetensors file with its metadata in the order of their names: the library's is another each time."""
    begin, end = 8, 8 + int.from_bytes(written[:8], "little")
    header = parse_json(written[begin:end], "what was just made", most=end)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(end - begin)
    return written[:begin] + text + written[end:]


def export_ticket(source: Path | str, out: Path, *, layout: str | None = None, licence: str | None = None) -> str:
    """Write a folder for the Hugging Face Hub, or a state dict where `out` ends in .safetensors, .pt or .pth, or ONNX.

    Args:
        source: Whatever `Ticket.load` takes.
        out: The folder or file; not there yet, an empty folder, or what this very export has written before.
        layout: Layout of a state dict, "plain" or "prune"; None is plain.
        licence: Licence of the images, in a few words, where the catalogue does not know it.

    Returns:
        What was written, for a person.

    Raises:
        BadInput: If the ticket cannot be read, `out` is taken, a licence is not known, or onnx is not installed.
        Unwritten: If `out` cannot be written.
    """
    if out.suffix in SUFFIXES:
        return _export_state_dict(source, out, layout or "plain")
    if layout is not None:
        what, files = ("a network's", "state dicts") if out.suffix == ONNX_SUFFIX else ("a folder's", "files")
        raise BadInput(f"{out} is {what} name, and --format is for {files}; end it in {' or '.join(SUFFIXES)}")
    if out.suffix == ONNX_SUFFIX:
        return _export_onnx(source, out)
    return _export_folder(source, out, licence)


def _export_state_dict(source: Path | str, out: Path, layout: str) -> str:
    taken = BadInput(f"{out} is there already; delete it or give another name")
    if out.exists() and not out.is_file():
        raise taken
    ticket = Ticket.load(source).with_parts()
    state = make_state_dict(ticket, layout)
    about = {"ticket_hash": ticket.hash, "level": str(ticket.level), "layout": layout}
    if not out.exists():
        write_state_dict(state, out, about)
    elif out.read_bytes() != state_dict_bytes(state, out.suffix, about):  # else an export that was killed at its end
        raise taken
    return f"{out}\n{len(state)} tensors, {layout}, {ticket.mask.density:.4%} of the prunable weights are not 0"


def _export_onnx(source: Path | str, out: Path) -> str:
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise BadInput(f"{out} needs {' and '.join(missing)}, not installed here; pip install 'sslticket[onnx]'")
    if out.exists():
        raise BadInput(f"{out} is there already; delete it or give another name")
    ticket = Ticket.load(source).with_parts()
    images = image_arguments(ticket)
    if "image_size" not in images:
        raise BadInput(
            f"{source} does not tell for images of which size its network is, and ONNX needs one; import it anew with "
            "--image-size"
        )
    channels, size = images.get("channels", 3), images["image_size"]
    backbone = models.create_model(ticket.record.model, channels=channels, image_size=size)
    features = models.num_features(backbone, channels=channels, image_size=size)
    shapes = {name: tuple(value.shape) for name, value in ticket.head.items()}
    classes = shapes.get("weight", (0,))[0]
    known = shapes in ({"weight": (classes, features)}, {"weight": (classes, features), "bias": (classes,)})
    network = _WithHead(Ticket.remove(ticket.apply(backbone)), ticket.head if known else {}).eval()
    outputs = ["features", "logits"] if known else ["features"]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(2, channels, size, size),),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=outputs,
            dynamic_shapes={"images": {0: "batch"}},
        )
    assert program is not None
    for each in program.model.graph.all_nodes():
        each.metadata_props.clear()  # lines of code, with folders of this machine
    with atomic_write(out) as temporary:
        program.save(temporary, external_data=False)
    sizes = f"(batch, {channels}, {size}, {size})"
    return f"{out}\nONNX, images {sizes} -> {', '.join(outputs)}; pruned weights are 0 in dense tensors"


class _WithHead(nn.Module):
    """A backbone, and the logits of its classification layer beside the features where a ticket holds one."""

    def __init__(self, backbone: nn.Module, head: StateDict) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = None
        if head:
            classes, features = head["weight"].shape
            self.head = nn.Linear(features, classes, bias="bias" in head)
            self.head.load_state_dict(head)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, C, S, S) -> (B, F), and (B, classes)."""
        features: Tensor = self.backbone(images)
        return features if self.head is None else (features, self.head(features))


def _export_folder(source: Path | str, out: Path, licence: str | None) -> str:
    # Through links, since a folder takes the place of an empty one but not of a link to it.
    target = out.resolve()
    own = {hub.TICKET_FILE, card.WEIGHTS_FILE, card.CONFIG_FILE, "README.md", card.CURVE_FILE}
    if out.exists() and (not out.is_dir() or not {file.name for file in out.iterdir()} <= own):
        raise BadInput(f"{out} is there already and not empty; delete it or give another name")
    if target == Path.cwd():
        raise BadInput(f"{out} is the folder that you are in, which a whole new one cannot replace; give another name")
    file = hub.resolve_ticket_file(source)
    ticket = Ticket.load(file).with_parts()
    described = ticket_facts(ticket)
    which = Licence.for_dataset(ticket.record.data.dataset, licence)
    measured = Measurements.of_ticket(ticket, file)
    text = card.ModelCard(ticket, which, measured, network_construction(ticket)).text()
    with atomic_write_folder(target) as folder:  # which looks whether files that are there are these
        ticket.save(folder / hub.TICKET_FILE)
        write_state_dict(plain_state_dict(ticket), folder / card.WEIGHTS_FILE, {"ticket_hash": ticket.hash})
        write_json(folder / card.CONFIG_FILE, hub_config(ticket))
        (folder / "README.md").write_text(text, encoding="utf-8")
        if measured.curve:
            (folder / card.CURVE_FILE).write_bytes(measured.curve)
    curve = "with a curve" if measured.curve else "without a curve: no row of an evaluation lay beside the ticket"
    upload = f"hf upload USER/NAME {shell_quote(str(out))}"
    return f"{out}\n{described['level']}; {curve}\nread {out / 'README.md'}, then: {upload}"
