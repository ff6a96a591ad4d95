"""Weights from which a search may start: timm's by tag, torchvision's, those of a Hub repository, or a file's.

A name is resolved without a network or the weights; they are fetched, once a machine, when a search is about to begin.
Whatever the source, they are read without running code and must fit the backbone tensor by tensor.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from sslticket import hub
from sslticket.errors import BadInput, one_line, unknown_name
from sslticket.models import RANDOM_INIT
from sslticket.registry import registry_of
from sslticket.storage.files import file_lock
from sslticket.storage.state_files import check_plain_tensor, file_digest, find_state, read_tensors

_DEFAULT = "pretrained"
_FILE = "file:"
"""What precedes the hash of a file's content where it stands for the file."""
_HUB_PREFIXES = ("hf-hub:", "hf_hub:")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".tar", ".ckpt")
_PREFERRED = ("encoder_q", "teacher", "online", "backbone", "encoder", "student")
"""Which of several whole networks in a file is taken: MoCo's query encoder, DINO's teacher, BYOL's online network."""
_COUNTER = "num_batches_tracked"
_LIBRARY_NAMES = {name: f"{name}_bn" for name in ("vgg11", "vgg13", "vgg16", "vgg19")}
"""What the libraries call those of the papers' networks that go by another name there: VGGs with batch norm."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Weights of a network, by name; on this machine once they were fetched.

    Attributes:
        name: What recipes and rows call them: a timm name with its tag, a torchvision weight, "hf-hub:user/name", or
            "file:" and 16 hexadecimal digits over the file's bytes.
        model: The network that they are for.
        location: Path, address or name on the Hub; "" of a file of which only the hash is known.
        path: Where they lie on this machine; None while they were not fetched.
        digest: 16 hexadecimal digits over the file's bytes; "" while they were not fetched.
        mean: Mean by channel that their images were normalised with; empty where nobody knows.
        std: Standard deviation by channel, likewise.
        sides: Sides in pixels of these images; None where nobody knows.
    """

    name: str
    model: str
    location: str
    path: Path | None = None
    digest: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    sides: int | None = None

    def fetch(self) -> "Pretrained":
        """The same on this machine, downloaded where they are not there; one process of a machine does that.

        Raises:
            BadInput: If they cannot be had, naming what helps.
        """
        if self.path is not None:
            path = self.path
        elif hub.is_hub_name(self.location):
            name = hub.split_hub_name(self.location)
            first, *others = [name.file] if name.file else _HUB_FILES
            path = hub.download_from_hub(name._replace(file=first), *others)
        elif self.location.startswith(("http:", "https:")):
            path = _download(self.location, self.name)
        else:
            raise BadInput(
                f"the weights {self.name} are a file's, which is known by its content alone; give it again, --init FILE"
            )
        return replace(self, path=path, digest=self.digest or file_digest(path))

    def load_into(self, backbone: nn.Module, channels: int) -> None:
        """Make these the backbone's weights.

        Args:
            backbone: A network of `create_model`.
            channels: Channels of the images that it was made for.

        Raises:
            BadInput: If they do not fit, naming the tensor.
        """
        backbone.load_state_dict(self.state_for(backbone, channels))

    def state_for(self, backbone: nn.Module, channels: int) -> dict[str, Tensor]:
        """The weights by the backbone's names, all in its shapes; the backbone itself is left as it is.

        A timm network's are made to fit its channels and, where it has position embeddings, its image size by timm's
        own functions. The classification layer and whatever else the backbone has no place for is left out.

        Args:
            backbone: A network of `create_model`, whose tensors may be without values.
            channels: Channels of the images that it was made for.

        Raises:
            BadInput: If they do not fit, naming the tensor.
        """
        assert self.path is not None, "weights are fetched before they are read"
        state = find_state(read_tensors(self.path))
        if not state:
            raise BadInput(f"{self.path} holds no tensors by their names; give a state dict, or a checkpoint with one")
        for name, value in state.items():
            check_plain_tensor(name, value, self.path)
        own = backbone.state_dict()
        state = _take_network(state, own, self)
        if timm_filter := _timm_filter(self.model, backbone):
            state = timm_filter(state, channels, self)
        return _fit(state, own, backbone, self)


def resolve_pretrained(model: str, init: str, *, planned: bool = False) -> Pretrained | None:
    """Which weights a name means; nothing is downloaded, and of files only the bytes are hashed.

    Args:
        model: Name of the network.
        init: "random", "pretrained" for the library's default, a timm name with its tag or the tag alone, a torchvision
            weight ("ResNet50_Weights.IMAGENET1K_V2", or what follows the point), "hf-hub:user/name" or
            "hf://user/name" with "@revision" and "/path", a file, or "file:" with a file's hash.
        planned: Whether a file may be missing, as for a plan, which needs the network's shape alone.

    Returns:
        The weights by their exact name; None for "random".

    Raises:
        BadInput: If there are no such weights of the network, naming the nearest.
    """
    if init == RANDOM_INIT:
        return None
    if init.startswith(_FILE) and not Path(init).exists():
        return Pretrained(name=init, model=model, location="")
    if init.startswith(_HUB_PREFIXES) or hub.is_hub_name(init):
        return _hub_weights(model, init)
    path = Path(init).expanduser()
    if init.endswith(_SUFFIXES) or "/" in init or path.is_file():
        if path.is_dir():
            raise BadInput(f"--init {init} is a folder; give the file of a state dict in it")
        if not path.is_file():
            if planned:
                return Pretrained(name=init, model=model, location="")
            raise BadInput(f"--init {init} is a file that is not there; give a state dict's path, or --init pretrained")
        name = name_by_content(init)
        digest = name.removeprefix(_FILE)
        return Pretrained(name=name, model=model, location=str(path), path=path, digest=digest)
    return _library_weights(model, init)


def name_by_content(init: str) -> str:
    """What tells weights apart: of a file that is there its content, of all else the name."""
    path = Path(init).expanduser()
    return f"{_FILE}{file_digest(path)}" if path.is_file() else init


def _hub_weights(model: str, init: str) -> Pretrained:
    bare = init.partition(":")[2] if init.startswith(_HUB_PREFIXES) else init
    name = hub.split_hub_name(bare if hub.is_hub_name(bare) else f"hf://{bare}")
    at, file = f"@{name.revision}" if name.revision else "", f"/{name.file}" if name.file else ""
    return Pretrained(name=f"hf-hub:{name.repo}{at}{file}", model=model, location=f"hf://{name.repo}{at}{file}")


def _library_weights(model: str, init: str) -> Pretrained:
    """Weights of torchvision or timm; the library that the network is from goes first."""
    if registry_of("model").is_built_in(model):
        theirs = _LIBRARY_NAMES.get(model, model)
        known = {**_torchvision_weights(model, theirs), **_timm_weights(model, theirs)}
    else:
        known = {**_timm_weights(model, model), **_torchvision_weights(model, model)}
    if not known:
        raise BadInput(
            f"neither timm nor torchvision has weights of {model}, got --init {init}; give a file of them, "
            "hf-hub:user/name, or --init random"
        )
    if init == _DEFAULT:
        return next(iter(known.values()))()
    spelled = {name.partition(".")[2]: name for name in reversed(known)}  # the first library's tag wins
    if torchvision := next((name for name in known if "_Weights." in name), None):
        spelled |= dict.fromkeys(("DEFAULT", f"{torchvision.partition('.')[0]}.DEFAULT"), torchvision)
    if (name := spelled.get(init, init)) in known:
        return known[name]()
    arch = init.partition(".")[0]
    if "." in init and arch not in {name.partition(".")[0] for name in known}:
        other = arch.removesuffix("_Weights").lower() if arch.endswith("_Weights") else arch
        raise BadInput(
            f"--init {init} has weights of {other}, and --model is {model}; give --model {other}, or --init "
            f"{next(iter(known))}"
        )
    raise unknown_name(f"--init of {model}", init, known if "." in init else [RANDOM_INIT, _DEFAULT, *spelled])


def _torchvision_weights(model: str, theirs: str) -> dict[str, Callable[[], Pretrained]]:
    """The weights of torchvision's network of the second name, its default first."""
    from torchvision import models

    if theirs not in models.list_models(module=models):
        return {}
    kind = models.get_model_weights(theirs)
    default = cast(Any, kind).DEFAULT if len(kind) else None
    found = sorted(kind, key=lambda each: each is not default)

    def make(weights: Any) -> Pretrained:
        transforms = weights.transforms()
        return Pretrained(
            name=str(weights),
            model=model,
            location=weights.url,
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
            sides=transforms.crop_size[0],
        )

    return {str(each): lambda each=each: make(each) for each in found}  # type: ignore[misc]  # binds this one


def _timm_weights(model: str, theirs: str) -> dict[str, Callable[[], Pretrained]]:
    """The weights of timm's network of the second name, its default first."""
    import timm

    if not timm.is_model(theirs):
        return {}
    default = timm.get_pretrained_cfg(theirs, allow_unregistered=True)
    names = timm.list_pretrained(f"{theirs}.*")
    if default is not None and (first := f"{theirs}.{default.tag}") in names:
        names = [first, *(name for name in names if name != first)]

    def make(name: str) -> Pretrained:
        cfg = cast(Any, timm.get_pretrained_cfg(name))
        # Timm has its own reader for what lies at an address; what the Hub has is plain, but where it says so.
        if cfg.custom_load == "hf" or not (cfg.hf_hub_id or (cfg.url and not cfg.custom_load)):
            raise BadInput(
                f"timm alone reads the weights {name}; save its model's state dict by torch.save, and give --init FILE"
            )
        file = f"/{cfg.hf_hub_filename}" if cfg.hf_hub_filename else ""
        return Pretrained(
            name=name,
            model=model,
            location=f"hf://{cfg.hf_hub_id}{file}" if cfg.hf_hub_id else cfg.url,
            mean=tuple(cfg.mean),
            std=tuple(cfg.std),
            sides=cfg.input_size[-1],
        )

    return {name: lambda name=name: make(name) for name in names}  # type: ignore[misc]  # binds this one


def _download(url: str, name: str) -> Path:
    """The file of an address in torch.hub's cache, which timm's and torchvision's own loaders share."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    with file_lock(path):
        if not path.is_file():
            # The digits in the names of torch.hub's files are the first of their SHA-256.
            digits = torch.hub.HASH_REGEX.search(path.name)
            try:
                torch.hub.download_url_to_file(url, str(path), digits and digits[1], progress=sys.stderr.isatty())
            except (URLError, OSError, RuntimeError) as error:
                raise BadInput(
                    f"the weights {name} are not on this machine ({path}), and {url} cannot be fetched "
                    f"({one_line(error)}); where there is a network, download it, and put it there or give --init FILE"
                ) from None
    return path


def _take_network(state: Mapping[str, Tensor], own: Mapping[str, Tensor], weights: Pretrained) -> dict[str, Tensor]:
    """The tensors of the one network in a file, without the names of what holds it: "module.", "encoder_q.", ..."""
    names = [name for name in own if not name.endswith(_COUNTER)]
    ends = [name.removesuffix(names[0]) for name in state if name.endswith(names[0])]
    holders = [
        prefix
        for prefix in ends
        if (not prefix or prefix.endswith(".")) and all(f"{prefix}{name}" in state for name in names)
    ]
    prefix = _choose_holder(holders, weights)
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _choose_holder(holders: list[str], weights: Pretrained) -> str:
    if len(holders) < 2 or "" in holders:
        return holders[0] if len(holders) == 1 else ""
    for word in _PREFERRED:
        if len(chosen := [each for each in holders if word in each.split(".")]) == 1:
            return chosen[0]
    listed = ", ".join(each.rstrip(".") for each in holders)
    raise BadInput(
        f"{weights.path} holds several networks, {listed}; save one's state dict by torch.save, and give --init FILE"
    )


def _timm_filter(
    model: str, backbone: nn.Module
) -> Callable[[dict[str, Tensor], int, Pretrained], dict[str, Tensor]] | None:
    """What timm does to weights before they are loaded into its network of this name; None for other networks."""
    if registry_of("model").is_built_in(model):
        return None
    import timm

    if not timm.is_model(model):
        return None
    module = vars(sys.modules[timm.model_entrypoint(model).__module__])
    names = ("checkpoint_filter_fn", "pretrained_filter_fn", "_filter_fn")
    rename = next((module[name] for name in names if name in module), lambda state, _: state)
    cfg = cast(Any, backbone).pretrained_cfg or {}
    first = cfg.get("first_conv") or ()

    def filter_state(state: dict[str, Tensor], channels: int, weights: Pretrained) -> dict[str, Tensor]:
        try:
            found = dict(rename(state, backbone))
            for layer in (first,) if isinstance(first, str) else first:
                name = f"{layer}.weight"
                if name in found and found[name].dim() == 4 and found[name].shape[1] != channels:
                    found[name] = timm.models.adapt_input_conv(channels, found[name])
        except Exception as error:  # of a file of anybody's, of which timm's functions assume what they like
            raise BadInput(
                f"timm cannot make {weights.name} fit {model} ({one_line(error)}); give weights of it"
            ) from None
        return found

    return filter_state


def _fit(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], backbone: nn.Module, weights: Pretrained
) -> dict[str, Tensor]:
    """The state by the backbone's names.

    Raises:
        BadInput: If a tensor is missing, has another shape, belongs to a layer that the backbone does not have, or is
            not finite.
    """
    told = weights.path if weights.name.startswith(_FILE) else weights.name
    where = f"the weights {told} do not fit {weights.model}"
    missing = [name for name in own if name not in state and not name.endswith(_COUNTER)]
    if missing:
        raise BadInput(
            f"{where}: they have no {missing[0]} ({len(missing)} tensors missing); give weights of that network"
        )
    for name, value in own.items():
        if name in state and state[name].shape != value.shape:
            sides = f", that is {weights.sides}" if weights.sides else ""
            raise BadInput(
                f"{where}: {name} is {tuple(state[name].shape)} there and {tuple(value.shape)} here; give the "
                f"--image-size that they were trained at{sides}, their --channels, or weights of that network"
            )
        if name in state and not bool(torch.isfinite(state[name]).all()):
            raise BadInput(f"{where}: {name} has values that are not finite; copy the file anew")
    if strange := [name for name in state if name not in own and _is_inner(name, own, backbone)]:
        raise BadInput(
            f"{where}, which has no {strange[0]} ({len(strange)} tensors too many); give weights of that network"
        )
    return {name: state[name] if name in state else value.new_zeros(value.shape) for name, value in own.items()}


def _is_inner(name: str, own: Mapping[str, Tensor], backbone: nn.Module) -> bool:
    """Whether a tensor that the backbone lacks is of its inner layers, and not of a head that it goes without."""
    layer = name.rpartition(".")[0]
    modules = dict(backbone.named_modules())
    while layer:
        if isinstance(modules.get(layer), nn.Identity):
            return False
        layer = layer.rpartition(".")[0]
    top = name.partition(".")[0]
    return any(each.partition(".")[0] == top for each in own)
