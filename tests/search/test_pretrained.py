"""Searches that start from trained weights: which ones a name means, how they come here, and what then follows them."""

import hashlib
import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from sslticket import models
from sslticket.config.recipe import Data, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput
from sslticket.evaluation import protocols
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import EvalTask
from sslticket.export.description import ticket_facts
from sslticket.models.pretrained import Pretrained, _download, resolve_pretrained
from sslticket.search.imp import IMP
from sslticket.search.plan import plan_search
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from tests.runs import recipe, search, tickets

MODEL, TAG = "test_resnet", "test_resnet.r160_in1k"
"""One of timm's networks for tests, of half a million weights, and the one tag that it has."""
SIDE = 32
DIGITS = Data(dataset="digits", image_size=SIDE, channels=3)


def from_weights(init: str, **changes: Any) -> Recipe:
    """A search of two levels in timm's small ResNet, on digits in three channels."""
    settings = {"model": MODEL, "data": DIGITS, "init": init, "search": IMP(levels=2, rate=0.5, rewind="0it")}
    return recipe(**(settings | changes))


def trained(seed: int = 3) -> nn.Module:
    """The network with its classification layer, with weights and statistics that no seed of a search draws."""
    torch.manual_seed(seed)
    network = timm.create_model(MODEL)
    for value in network.state_dict().values():
        value.copy_(torch.rand_like(value) - 0.4 if value.is_floating_point() else value + 5)
    return network


def backbone_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if not name.startswith(("head.", "fc."))}


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of the tag as they lie in the Hub's cache, and a Hub that cannot be asked."""
    folder = tmp_path / "hub"
    home, commit = folder / f"models--timm--{TAG}", hashlib.sha1(b"weights").hexdigest()
    file = home / "snapshots" / commit / "model.safetensors"
    file.parent.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    save_file(trained().state_dict(), file)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return file


@pytest.mark.parametrize(
    ("model", "init", "name"),
    [
        (MODEL, "pretrained", TAG),
        (MODEL, "r160_in1k", TAG),
        (MODEL, TAG, TAG),
        ("vit_small_patch16_224", "dino", "vit_small_patch16_224.dino"),
        ("vit_small_patch16_224", "pretrained", "vit_small_patch16_224.augreg_in21k_ft_in1k"),
        ("resnet50", "pretrained", "ResNet50_Weights.IMAGENET1K_V2"),
        ("resnet50", "DEFAULT", "ResNet50_Weights.IMAGENET1K_V2"),
        ("resnet50", "ResNet50_Weights.DEFAULT", "ResNet50_Weights.IMAGENET1K_V2"),
        ("resnet50", "IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("resnet50", "a1_in1k", "resnet50.a1_in1k"),
        ("vgg16", "pretrained", "VGG16_BN_Weights.IMAGENET1K_V1"),
        ("vit_b_16", "pretrained", "ViT_B_16_Weights.IMAGENET1K_V1"),
        ("resnet50", "hf-hub:user/net", "hf-hub:user/net"),
        ("resnet50", "hf://user/net@v1/moco.pt", "hf-hub:user/net@v1/moco.pt"),
        ("resnet50", "file:0123456789abcdef", "file:0123456789abcdef"),
    ],
)
def test_a_name_of_weights_becomes_the_exact_one(model: str, init: str, name: str) -> None:
    found = resolve_pretrained(model, init)
    assert found is not None
    assert (found.name, found.path) == (name, None)
    assert resolve_pretrained(model, found.name) == found


@pytest.mark.parametrize(
    ("model", "init", "message"),
    [
        ("resnet50", "a1_in2k", r"unknown --init of resnet50 'a1_in2k'; did you mean a1_in1k"),
        ("resnet50", "resnet50.a1_in2k", r"did you mean resnet50\.a1_in1k"),
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V9", r"did you mean ResNet50_Weights\.IMAGENET1K_V"),
        ("resnet50", "resnet18.a1_in1k", r"has weights of resnet18, and --model is resnet50; give --model resnet18"),
        ("resnet50", "ResNet18_Weights.DEFAULT", "has weights of resnet18, .*give --model resnet18"),
        ("resnet20", "pretrained", "neither timm nor torchvision has weights of resnet20, .*give a file of them"),
        ("resnet50", "nowhere.pt", r"--init nowhere\.pt is a file that is not there"),
        ("resnet50", "weights/net", r"--init weights/net is a file that is not there"),
        ("resnet50", "/", "--init / is a folder; give the file of a state dict in it"),
        ("resnet50", "hf-hub:net", "is no name on the Hugging Face Hub"),
    ],
)
def test_weights_that_there_are_not_are_answered_with_the_nearest(model: str, init: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        resolve_pretrained(model, init)


def test_no_weights_are_no_weights() -> None:
    assert resolve_pretrained("resnet50", "random") is None
    assert "init" not in recipe().to_dict()
    with pytest.raises(BadInput, match="--init must name weights, got ''"):
        recipe(init="")


@pytest.fixture
def found(tmp_path: Path, hub_cache: Path) -> Path:
    """The run folder of a search that started from the tag's weights, without the cache that they came from."""
    planned = search(tmp_path / "runs", from_weights("pretrained"))
    hub_cache.unlink()
    return planned.run_dir.path


def test_every_ticket_is_the_trained_weights_under_its_mask(tmp_path: Path, hub_cache: Path) -> None:
    planned = search(tmp_path, from_weights("r160_in1k"))
    digest = hashlib.sha256(hub_cache.read_bytes()).hexdigest()[:16]
    own = backbone_of(trained())
    for ticket in [Ticket.load(planned.run_dir.initial_path), *tickets(planned)]:
        assert ticket.weights.keys() == own.keys()
        for name, value in own.items():
            assert torch.equal(ticket.weights[name], value * ticket.mask[name] if name in ticket.mask else value)
        assert (ticket.recipe["init"], ticket.provenance["init_hash"]) == (TAG, digest)
        assert ticket_facts(ticket)["init"] == f"{TAG}, hash {digest}"
    row = json.loads(planned.run_dir.row_path(2).read_text())
    assert (row["init"], row["init_hash"], row["settings"]["init"]) == (TAG, digest, TAG)
    (note,) = [note for note in planned.notes if "normalised" in note]
    assert f"{TAG} was trained on images normalised by mean 0.5 0.5 0.5 and deviation 0.5 0.5 0.5; those" in note
    assert planned.run_dir.path == plan_search(from_weights(TAG), RuntimeConfig(), tmp_path).run_dir.path


def test_a_resumed_search_is_the_uninterrupted_one_and_other_weights_of_the_name_are_refused(
    tmp_path: Path, hub_cache: Path
) -> None:
    planned = search(tmp_path, from_weights(TAG))
    whole = [ticket.hash for ticket in tickets(planned)]
    for level in (1, 2):
        planned.run_dir.ticket_path(level).unlink()
    assert [ticket.hash for ticket in tickets(search(tmp_path, from_weights(TAG)))] == whole
    save_file(trained(seed=4).state_dict(), hub_cache)
    with pytest.raises(BadInput, match=rf"holds the run of another content of {TAG}; give another folder with --out"):
        plan_search(from_weights(TAG), RuntimeConfig(), tmp_path)


def test_the_key_knows_a_file_by_its_content_and_a_library_weight_by_its_name(tmp_path: Path) -> None:
    for name in ("one.pt", "other.pth"):
        torch.save(trained().state_dict(), tmp_path / "x")
        (tmp_path / "x").rename(tmp_path / name)
    torch.save(trained(seed=4).state_dict(), tmp_path / "third.pt")
    same, moved, other = (
        plan_search(from_weights(str(tmp_path / name)), RuntimeConfig(), tmp_path / "runs")
        for name in ("one.pt", "other.pth", "third.pt")
    )
    digest = hashlib.sha256((tmp_path / "one.pt").read_bytes()).hexdigest()[:16]
    assert same.recipe.init == f"file:{digest}"
    assert same.recipe.key == moved.recipe.key != other.recipe.key
    assert str(tmp_path) not in json.dumps(same.recipe.to_dict())
    with pytest.raises(BadInput, match=f"the weights file:{digest} are a file's, .*; give it again, --init FILE"):
        plan_search(from_weights(f"file:{digest}"), RuntimeConfig(), tmp_path / "runs")


def test_a_dry_run_asks_no_network_and_a_run_says_what_to_do_before_anything_is_written(
    tmp_path: Path, hub_cache: Path
) -> None:
    hub_cache.unlink()
    dry = plan_search(from_weights("pretrained"), RuntimeConfig(), tmp_path / "runs", dry_run=True)
    assert (dry.recipe.init, dry.describe().count(TAG)) == (TAG, 1)
    with pytest.raises(BadInput, match="HF_HUB_OFFLINE is set; where there is a network, run `hf download timm/test_"):
        plan_search(from_weights("pretrained"), RuntimeConfig(), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_controls_and_scores_need_no_weights_of_the_library(found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset and permuted have the trained weights, random and preserved weights of a seed; see docs/pretrained.md."""
    fit = TrainConfig(length="1it", batch_size=32, optimizer=SGD(lr=0.1))
    short = Protocol(name="short", dataset="digits", training=fit, image_size=SIDE)
    monkeypatch.setitem(protocols._BY_NAME, "short", short)
    applied: list[Tensor] = []
    apply = Ticket.apply

    def noting(ticket: Ticket, model: nn.Module, head: nn.Module | None = None) -> nn.Module:
        applied.append(ticket.weights[NAME])
        return apply(ticket, model, head)

    monkeypatch.setattr(Ticket, "apply", noting)
    path, engine = found / "tickets" / "level-02.safetensors", Engine.create(RuntimeConfig(), "fp32", None)
    started, losses = {}, {}
    for control in ("ticket", "reset", "permuted", "random", "preserved"):
        (row,) = evaluate_tasks([EvalTask(path, control, short, 0)], engine, show_progress=False)
        assert (row["init"], row["settings"]["init"], len(row["init_hash"])) == (TAG, TAG, 16)
        started[control], losses[control] = applied[-1], row["loss"]
    own = backbone_of(trained())[NAME]
    assert torch.equal(started["reset"], own * Ticket.load(path).mask[NAME])
    assert torch.equal(started["reset"], started["ticket"])
    for control, is_trained in {"permuted": True, "random": False, "preserved": False}.items():
        assert torch.equal(started[control], own * (started[control] != 0)) is is_trained
    drawn = search(found.parent, from_weights("random")).run_dir.path
    shared = [EvalTask(run / "tickets" / "level-02.safetensors", "random", short, 0) for run in (found, drawn)]
    (row,) = evaluate_tasks(shared, engine, show_progress=False)  # of one training, which the other search has had
    assert row["loss"] == losses["random"]
    assert not {"init", "init_hash"} & row.keys()


NAME = next(name for name, value in backbone_of(timm.create_model(MODEL)).items() if value.dim() == 4)
"""The first convolution's weight."""


def load(model: str, path: Path, *, channels: int = 3, side: int = SIDE) -> nn.Module:
    weights = resolve_pretrained(model, str(path))
    assert weights is not None
    backbone = models.create_model(model, channels=channels, image_size=side)
    weights.fetch().load_into(backbone, channels)
    return backbone


def test_torchvisions_weights_come_from_torch_hubs_cache_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = torchvision.models.resnet18().eval()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    torch.save(theirs.state_dict(), file)
    weights = resolve_pretrained("resnet18", "pretrained")
    assert weights is not None
    backbone = models.create_model("resnet18", image_size=SIDE).eval()
    weights.fetch().load_into(backbone, 3)
    theirs.fc = nn.Identity()
    images = torch.rand(2, 3, SIDE, SIDE)
    assert torch.equal(backbone(images), theirs(images))
    file.unlink()
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(
        BadInput, match=r"resnet18-f37072fd\.pth\), and https://.* cannot be fetched \(no route\); where"
    ):
        weights.fetch()


@pytest.mark.parametrize(
    ("holder", "others"),
    [("", ()), ("module.", ()), ("module.encoder_q.", ("module.encoder_k.",)), ("teacher.", ("student.",))],
)
def test_the_network_is_found_in_what_holds_it(holder: str, others: tuple[str, ...], tmp_path: Path) -> None:
    network = trained()
    state = {f"{holder}{name}": value for name, value in network.state_dict().items()}
    for other in others:
        state |= {f"{other}{name}": 0 * value for name, value in network.state_dict().items()}
    state["queue"] = torch.zeros(2)
    torch.save({"epoch": 7, "state_dict": state, "optimizer": {"state": {}}}, tmp_path / "x.tar")
    found = load(MODEL, tmp_path / "x.tar").state_dict()
    assert all(torch.equal(found[name], value) for name, value in backbone_of(network).items())


def test_timm_makes_its_weights_fit_other_channels_and_sides(tmp_path: Path) -> None:
    network = timm.create_model("test_vit")
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    small = load("test_vit", tmp_path / "vit.safetensors", channels=1, side=64).state_dict()
    theirs = network.state_dict()
    assert torch.allclose(small["patch_embed.proj.weight"], theirs["patch_embed.proj.weight"].sum(1, keepdim=True))
    assert torch.equal(small["blocks.0.attn.qkv.weight"], theirs["blocks.0.attn.qkv.weight"])


class Runs:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    whole = torchvision.models.resnet18().state_dict()

    def refused(state: object, message: str, model: str = "resnet18", channels: int = 3) -> None:
        torch.save(state, file)
        with pytest.raises(BadInput, match=message) as caught:
            load(model, file, channels=channels)
        assert "\n" not in str(caught.value)

    lacking = {name: value for name, value in whole.items() if name != "layer3.0.conv2.weight"}
    refused(
        lacking, r"the weights /\S+ do not fit resnet18: they have no layer3\.0\.conv2\.weight \(1 tensors missing\)"
    )
    refused(
        whole | {"layer4.2.conv1.weight": torch.zeros(3)}, r"has no layer4\.2\.conv1\.weight \(1 tensors too many\)"
    )
    refused(whole, r"conv1\.weight is \(64, 3, 7, 7\) there and \(64, 1, 7, 7\) here", channels=1)
    refused(whole, r"conv1\.weight is \(64, 3, 7, 7\) there and \(64, 3, 3, 3\) here", model="resnet18_cifar")
    refused(whole | {"bn1.weight": torch.full((64,), torch.nan)}, r"bn1\.weight has values that are not finite")
    refused({"epoch": 3}, "holds no tensors by their names")
    several = {f"{net}.{name}": value for net in ("a", "b") for name, value in whole.items()}
    refused(several, "holds several networks, a, b; save one's state dict")
    file.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(BadInput, match=r"reading that could run code|cannot be read"):
        load("resnet18", file)
    torch.save({"x": Runs()}, file)
    with pytest.raises(BadInput, match=r"holds a \S*print beside its tensors, and reading that could run code"):
        load("resnet18", file)


@pytest.fixture
def downloads() -> Iterator[list[str]]:
    """What was asked of a server that has one file."""
    asked: list[str] = []

    class Requests(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"bytes")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    asked.append(f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_of_many_that_need_a_file_one_downloads_it(
    tmp_path: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    digits = hashlib.sha256(b"bytes").hexdigest()[:8]
    url, found = f"{downloads.pop()}/net-{digits}.pth", []
    threads = [threading.Thread(target=lambda: found.append(_download(url, "net"))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert downloads == [f"/net-{digits}.pth"]
    assert {path.read_bytes() for path in found} == {b"bytes"}
    with pytest.raises(BadInput, match=r"the weights net are not on this machine .*invalid hash"):
        _download(url.replace(digits, "00000000"), "net")
    assert not list(tmp_path.rglob("*00000000.pth"))


def test_weights_of_a_plan_are_those_of_its_network_alone(tmp_path: Path, hub_cache: Path) -> None:
    """Heads are drawn as from the seed of a random initialisation: what differs is the backbone."""
    ours = plan_search(from_weights(TAG), RuntimeConfig(), tmp_path).build_network()
    drawn = plan_search(from_weights("random"), RuntimeConfig(), tmp_path).build_network()
    assert isinstance(resolve_pretrained(MODEL, TAG), Pretrained)
    heads = zip(ours.heads.state_dict().values(), drawn.heads.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in heads)
    assert not torch.equal(ours.backbone.get_parameter(NAME), drawn.backbone.get_parameter(NAME))
