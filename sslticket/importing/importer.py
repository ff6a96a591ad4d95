"""Makes tickets of what others found: masks and early weights on a network here, and what is known of their origin.

What a checkpoint does not tell is unknown in the ticket too: words are "unknown", numbers are missing, and
`provenance["imported"]` lists them. Nothing is guessed; what the user knows can be said.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslticket import models
from sslticket.config.recipe import UNKNOWN
from sslticket.data.datasets.catalogue import known_dataset
from sslticket.errors import BadInput
from sslticket.evaluation.controls import DENSE_FILE
from sslticket.importing.checkpoints import Checkpoint, read_checkpoint
from sslticket.importing.matching import Matching, match_names
from sslticket.importing.open_lth import OpenLTHRun
from sslticket.models import MODELS
from sslticket.provenance import library_versions
from sslticket.pruning.mask import Mask, StateDict
from sslticket.pruning.pattern import Pattern, full_pattern
from sslticket.pruning.prunable import prunable_weights
from sslticket.registry import required_parts
from sslticket.ticket import INITIAL_TICKET, Ticket

_SAYABLE = ("objective", "dataset", "seed", "level", "rewind_samples", "image_size", "channels")
"""What a ticket of ours tells and others' files may not; each is a flag."""
_SIDE = 224
"""Pixels of the images for which a network is made whose images are unknown; the names of its tensors need some."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the user says of a ticket, beside or in place of what its files tell; None is unknown.

    Attributes:
        model: Name of a network from the papers, timm or torchvision, or "file.py:Name" for your own.
        early: Checkpoint with the early weights W_k, where the file with the mask holds others or none.
        level: How many times the search had pruned.
        dataset: Data set of the search, a name in the catalogue or any other words.
        objective: What the network learnt while it was searched, such as "supervised".
        seed: Seed of the search.
        rewind_samples: Images that the network had seen at W_k.
        image_size: Side in pixels of the images that the network takes.
        channels: Channels of these images.
    """

    model: str | None = None
    early: Path | None = None
    level: int | None = None
    dataset: str | None = None
    objective: str | None = None
    seed: int | None = None
    rewind_samples: int | None = None
    image_size: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"level": 0, "rewind_samples": 0, "image_size": 1, "channels": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise BadInput(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
        for name in ("dataset", "objective"):
            value = getattr(self, name)
            if value is not None and (not value.strip() or not value.isprintable() or len(value) > 80):
                raise BadInput(f"--{name} must be a few words, got {value!r}; leave it out where it is not known")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A network of others before it is a ticket here.

    Attributes:
        weights: Checkpoint with the weights.
        masks: Masks by the names of weights there; None where the zeros of `zeros` are the mask.
        zeros: Checkpoint whose zeros are the mask.
        name: Name of the ticket's file.
        level: How many times the search had pruned; None where that is unknown.
        tree: What is known of the recipe, by its fields.
        came: What is known of the origin, as a ticket's provenance has it.
        about: What the provenance says of the import.
        dense: Whether this is the dense network from which the one with the mask starts.
    """

    weights: Checkpoint
    masks: Mapping[str, Tensor] | None
    zeros: Checkpoint
    name: str
    level: int | None
    tree: Mapping[str, Any]
    came: Mapping[str, Any]
    about: Mapping[str, Any]
    dense: bool = False


def import_tickets(source: Path, out: Path, origin: Origin) -> Iterator[tuple[Path, Ticket]]:
    """Write the tickets that others' files hold, one after the other.

    Args:
        source: A checkpoint, or a folder of open_lth: of one level, or of all levels of one replicate.
        out: A ticket's file, whose name ends in .safetensors, or a folder like that of a search of ours.
        origin: What the user says of them.

    Yields:
        The files and what is in them; a file that held the very same ticket before is left as it is.

    Raises:
        BadInput: If the files cannot be read or fit no network, or another ticket is where one should go.
        WriteError: If a file cannot be written.
    """
    lone = out.suffix == ".safetensors"
    if source.is_dir():
        run = OpenLTHRun.find(source, origin.level)
        if lone and len(run.levels) > 1:
            raise BadInput(
                f"{source} holds {len(run.levels)} tickets, and {out} is one file; give a folder, or --level"
            )
        model, parts = _open_lth_parts(run, origin, lone=lone)
    else:
        model, parts = _file_parts(source, origin, lone=lone)
    if model is None:
        raise BadInput(
            f"{source} does not say of which network it is, or of one that has no name here; give --model, a name such "
            "as resnet50 or file.py:function"
        )
    network: _Network | None = None
    for part in parts:
        network = network or _Network.build(model, origin, part)
        ticket = _make_ticket(part, network, origin)
        path = out if lone else out / ("" if part.name == INITIAL_TICKET else "tickets") / part.name
        if not path.exists():
            ticket.save(path)
        elif not path.is_file() or Ticket.load(path).hash != ticket.hash:
            raise BadInput(f"{path} is there already and another ticket; delete it or give another name than {out}")
        yield path, ticket


def _file_parts(path: Path, origin: Origin, *, lone: bool) -> tuple[str | None, Iterator[_Part]]:
    found = read_checkpoint(path)
    early = None if origin.early is None else read_checkpoint(origin.early)
    if not (weights := early or found).state:
        raise BadInput(f"{path} holds masks and no weights; give the early weights too, --early W_k.pt")
    about = {"from": found.form, "files": {each.path.name: each.digest for each in (found, early) if each}}
    # Files with one W_k are of one search, whatever their masks; else each is its own.
    about |= {name: value for name, value in found.told.items() if name != "arch"} | {"search": weights.digest}
    part = _Part(
        weights=weights,
        masks=found.masks,
        zeros=found,
        name="level-01.safetensors" if origin.level is None else f"level-{origin.level:02d}.safetensors",
        level=origin.level,
        tree={"search": {"is": UNKNOWN, "found_in": weights.digest}},
        came={"weights": "early" if early else UNKNOWN},
        about=about,
    )
    parts = [part]
    # What controls and analyses compare with; it comes last, since it fits where the ticket does.
    if early and not lone and part.level != 0:
        dense_about = about | {"files": {early.path.name: early.digest}}
        parts.append(replace(part, name=DENSE_FILE, level=0, dense=True, about=dense_about))
    return origin.model or found.told.get("arch"), iter(parts)


def _open_lth_parts(run: OpenLTHRun, origin: Origin, *, lone: bool) -> tuple[str | None, Iterator[_Part]]:
    if origin.early is not None:
        raise BadInput("--early is for files without W_k, and open_lth keeps it beside each mask; leave it out")

    def parts() -> Iterator[_Part]:
        for level in run.levels if lone or run.initial is None else (*run.levels, run.initial):
            weights, initial = level.read(), level is run.initial
            samples = 0 if initial else run.samples_at(level.step)
            about = {"from": "open_lth", "files": level.digests, "step": str(level.step), "search": run.identity}
            yield _Part(
                weights=weights,
                masks=weights.masks,
                zeros=weights,
                name=INITIAL_TICKET if initial else f"level-{level.number:02d}.safetensors",
                level=level.number,
                tree=run.recipe,
                came={
                    **run.origin,
                    **({} if samples is None else {"rewind_samples": samples}),
                    "weights": "initial" if initial else "early",
                },
                about=about | ({} if run.replicate is None else {"replicate": run.replicate}),
            )

    return origin.model or run.model, parts()


@dataclass(frozen=True, eq=False, kw_only=True)
class _Network:
    """A network of ours onto which checkpoints are mapped.

    Attributes:
        model: Its name.
        backbone: The network.
        images: Channels and side in pixels of the images, as far as they are known.
        made_for: Side in pixels for which the network was made.
        parts: The user's file that defines it, as tickets record it.
    """

    model: str
    backbone: nn.Module
    images: Mapping[str, int]
    made_for: int
    parts: Mapping[str, str]

    @classmethod
    def build(cls, name: str, origin: Origin, part: _Part) -> "_Network":
        """The network of a name, for the images that the user, the data set or the weights tell."""
        model, dataset = models.load_model(name), known_dataset(origin.dataset or part.came.get("dataset"))
        told: dict[str, int] = {}
        if dataset is not None:
            told |= {"channels": dataset.channels, "image_size": dataset.train_view.size}
        said = {"channels": origin.channels, "image_size": origin.image_size}
        told |= {key: value for key, value in said.items() if value is not None}
        backbone = _make_backbone(model, told)
        if len(told) < 2 and (more := _inferred_images(part.weights.state, backbone.state_dict()) | told) != told:
            told, backbone = more, _make_backbone(model, more)
        own = MODELS.own_part(model)
        size = told.get("image_size", _SIDE)
        return cls(
            model=model,
            backbone=backbone,
            images=told,
            made_for=size,
            parts={} if own is None else required_parts(own),
        )

    def match(self, found: Checkpoint) -> Matching:
        """Which tensor of a checkpoint each of the network's is.

        Raises:
            BadInput: If they are of different networks.
        """
        matching = match_names(found.state, self.backbone.state_dict(), place=str(found.path), model=self.model)
        if matching.head is not None:
            inputs = found.state[f"{matching.head}.weight"].shape[1]
            features = models.num_features(
                self.backbone, channels=self.images.get("channels", 3), image_size=self.made_for
            )
            if inputs != features:
                raise BadInput(
                    f"{found.path} is of another network than {self.model}: its {matching.head} takes {inputs} "
                    f"features, and there are {features} here; give another --model"
                )
        return matching

    def mask_of(self, masks: Mapping[str, Tensor], matching: Matching, path: Path) -> Mask:
        """Masks by the network's names, in its order; the classification layer's is no part of it.

        Raises:
            BadInput: If a mask is of no weight that may be pruned.
        """
        ours, prunable = {their: mine for mine, their in matching.names.items()}, prunable_weights(self.backbone)
        renamed = {}
        for name, mask in masks.items():
            if matching.head is not None and name == f"{matching.head}.weight":
                continue
            if name not in ours and (matching.head is None or name != f"{matching.head}.bias"):
                raise BadInput(f"{path} has a mask of {name}, which is no weight of {self.model}; give another --model")
            if ours.get(name) in prunable:
                renamed[ours[name]] = mask
            elif not bool(mask.all()):
                raise BadInput(
                    f"{path} prunes {name}, and tickets keep all but the weights of convolutions and linear layers "
                    "whole; give a mask of these alone"
                )
        if not renamed:
            raise BadInput(f"{path} prunes no layer of {self.model} that may be pruned; give another --model")
        return Mask({name: renamed[name] for name in prunable if name in renamed})


def _make_backbone(model: str, images: Mapping[str, int]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return models.create_model(
            model, channels=images.get("channels", 3), image_size=images.get("image_size", _SIDE)
        )


def _inferred_images(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, int]:
    """Channels that the first convolution takes, or the one square image that the first linear layer can be for.

    The first is the network's where the checkpoint has its name: files may hold tensors in any order.
    """
    weights = [name for name, value in ours.items() if value.dim() in (2, 4)]
    named = [theirs[name] for name in weights[:1] if name in theirs]
    first = next((value for value in (*named, *theirs.values()) if value.dim() in (2, 4)), None)
    if first is None:
        return {}
    if first.dim() == 4:
        return {"channels": first.shape[1]}
    sides = {channels: isqrt(first.shape[1] // channels) for channels in (1, 3)}
    fitting = [(channels, side) for channels, side in sides.items() if channels * side**2 == first.shape[1]]
    return {"channels": fitting[0][0], "image_size": fitting[0][1]} if len(fitting) == 1 else {}


def _make_ticket(part: _Part, network: _Network, origin: Origin) -> Ticket:
    """The ticket of a network of others.

    Raises:
        BadInput: If the files do not fit the network or each other, or hold no mask or no finite weights.
    """
    ours, matching = network.backbone.state_dict(), network.match(part.weights)
    for name, value in part.weights.state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BadInput(f"{part.weights.path} holds a {name} that is not finite; give another checkpoint")
    weights: StateDict = matching.rename(part.weights.state, ours)
    prunable = prunable_weights(network.backbone)
    for name in prunable:
        if not weights[name].is_floating_point():
            raise BadInput(f"{part.weights.path} holds {name} as {weights[name].dtype}; give one with float weights")
    mask, head_mask = _masks_of(part, network, matching)
    mask, pattern = _within_pattern(mask)
    if part.dense:
        mask, head_mask = Mask.ones_like(weights, list(mask)), None
    head = {} if matching.head is None else _tensors_of(matching.head, part.weights.state)
    whole = {**weights, **({"head": head["weight"]} if head else {})}
    for name, layer in {**mask, **({} if head_mask is None or not head else {"head": head_mask})}.items():
        if layer.shape != whole[name].shape:
            raise BadInput(
                f"{part.zeros.path} has a mask of another shape than its weight {name}: {tuple(layer.shape)} and "
                f"{tuple(whole[name].shape)}; give files of one network"
            )
    came = _provenance_of(part, network, origin)
    if head:
        came["classes"] = len(head["weight"])
        if head_mask is not None and not bool(head_mask.all()):
            head["weight"] = head["weight"].where(head_mask, 0)
            came |= {"head_kept": int(head_mask.sum()), "head_total": head_mask.numel()}
    data = {"is": "Data", "dataset": came["dataset"], **part.tree.get("data", {}), **network.images}
    recipe = {"model": network.model, "objective": {"is": came["objective"]}, "fit": {"is": UNKNOWN}, **part.tree}
    if dense := [name.removesuffix(".weight") for name in prunable if name not in mask]:
        recipe["search"] = {**recipe["search"], "exclude": dense}
    if pattern is not None:
        recipe["search"] = {**recipe["search"], "pattern": str(pattern)}
    level = 1 if part.level is None else part.level
    recipe |= {"data": data}
    return Ticket.from_dense_weights(mask, weights, level=level, recipe=recipe, provenance=came, head=head)


def _within_pattern(mask: Mask) -> tuple[Mask, Pattern | None]:
    """The mask and the N:M pattern of which every group is full, if there is one: no other search makes such a mask.

    Tools for such patterns leave layers dense that these do not fit: they are no part of the mask then.
    """
    pruned = Mask({name: layer for name, layer in mask.items() if not bool(layer.all())})
    pattern = full_pattern(pruned) if pruned else None
    return (mask, None) if pattern is None else (pruned, pattern)


def _masks_of(part: _Part, network: _Network, matching: Matching) -> tuple[Mask, Tensor | None]:
    """The mask by the network's names, and that of the classification layer where there is one."""
    own = matching if part.zeros is part.weights or not part.zeros.state else network.match(part.zeros)
    head = None if own.head is None else f"{own.head}.weight"
    if part.masks is not None:
        return network.mask_of(part.masks, own, part.zeros.path), part.masks.get(head) if head else None
    zeros = own.rename(part.zeros.state, network.backbone.state_dict())
    mask = Mask({name: zeros[name] != 0 for name in prunable_weights(network.backbone)})
    if mask.density == 1:
        raise BadInput(
            f"{part.zeros.path} has no mask and no weight of {network.model} in it is 0, so it is no sparse "
            "checkpoint; give the one with the mask, and this one with --early if it holds W_k"
        )
    return mask, part.zeros.state[head] != 0 if head else None


def _provenance_of(part: _Part, network: _Network, origin: Origin) -> dict[str, Any]:
    """What is known of a ticket's origin, and a list of what is not."""
    came = {"dataset": UNKNOWN, "objective": UNKNOWN, "data_hash": UNKNOWN, "commit": "", "versions": {}, **part.came}
    said = {"dataset": origin.dataset, "objective": origin.objective, "seed": origin.seed}
    said |= {"rewind_samples": None if came["weights"] == "initial" else origin.rewind_samples}
    came |= {name: value for name, value in said.items() if value is not None}
    if network.parts:
        came["parts"] = dict(network.parts)
    known = came | dict(network.images) | ({} if part.level is None else {"level": part.level})
    came["imported"] = {
        **part.about,
        "unknown": [name for name in (*_SAYABLE, "images") if known.get(name, UNKNOWN) == UNKNOWN],
        "by": library_versions(),
    }
    return came


def _tensors_of(layer: str, state: Mapping[str, Tensor]) -> StateDict:
    found = {name: state.get(f"{layer}.{name}") for name in ("weight", "bias")}
    return {name: value for name, value in found.items() if value is not None}
