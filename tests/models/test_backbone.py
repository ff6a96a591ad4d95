"""Names that the papers' networks don't have, images of other kinds, and what `features` leaves alone."""

import pytest
import timm
import torch
from torch import Tensor, nn

from sslticket import models
from sslticket.errors import BadInput
from sslticket.objectives.multiview import MomentumEncoder


@pytest.mark.parametrize(
    ("name", "channels", "image_size", "features"),
    [
        ("test_vit", 1, 64, 64),  # timm alone
        ("test_resnet", 3, 64, 96),  # timm alone, any image size
        ("shufflenet_v2_x0_5", 1, 32, 1024),  # torchvision alone, a linear layer last
        ("squeezenet1_1", 1, 64, 512),  # torchvision alone, a convolution for a classification layer
    ],
)
def test_names_of_timm_and_torchvision(name: str, channels: int, image_size: int, features: int) -> None:
    backbone = models.create_model(name, channels=channels, image_size=image_size)
    assert backbone.training
    assert backbone(torch.rand(2, channels, image_size, image_size)).shape == (2, features)
    assert models.num_features(backbone, channels=channels, image_size=image_size) == features


def test_without_auxiliary_heads_or_classification_layer() -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        whole = get_model("googlenet", weights=None, init_weights=False, aux_logits=True).state_dict()
    backbone = models.create_model("googlenet", image_size=64)
    assert set(backbone.state_dict()) == {key for key in whole if not key.startswith(("fc.", "aux"))}


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("resnet50.a1_in1k", "resnet50"),
        ("resnet50.", "resnet50"),
        ("vit_small_patch16_224.augreg_in21k", "vit_small_patch16_224"),
        ("vit_base_patch16_224_in21k", "vit_base_patch16_224"),  # an older name of timm's for such weights
        ("hf_hub:timm/resnet50.a1_in1k", "resnet50"),
        ("hf-hub:user/their_own", "the name of a network, such as resnet50"),
        ("timm/resnet18.a1_in1k", "resnet18"),
        ("local-dir:/data/resnet34", "resnet34"),
        ("runs/model.pth", "the name of a network, such as resnet50"),
        ("ResNet50_Weights.IMAGENET1K_V2", "resnet50"),
        ("Swin_T_Weights", "swin_t"),
    ],
)
def test_a_name_of_trained_weights_is_refused_with_the_name_of_its_network(name: str, bare: str) -> None:
    with pytest.raises(BadInput) as raised:
        models.create_model(name, image_size=32)
    told = str(raised.value)
    assert told.startswith("--model must name a network without trained weights, got ")
    assert told.endswith(f"; give --model {bare}, and --init {name} to start from them")


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "vgg19", "conv3", "lenet300", "alexnet"])
def test_grey_images(name: str) -> None:
    backbone = models.create_model(name, channels=1, image_size=64)
    first = next(iter(backbone.parameters()))
    assert first.shape[1] in (1, 64 * 64)
    assert backbone(torch.rand(2, 1, 64, 64)).ndim == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-50", "unknown model 'resnet-50'; did you mean resnet50 or"),
        ("vgg-19", "unknown model 'vgg-19'; did you mean vgg19 or"),
        ("squeezenet", "did you mean squeezenet1"),  # torchvision alone
        ("vit_tiny_patch16", "did you mean vit_tiny_patch16_"),  # timm alone
        ("????", "known: alexnet, conv3, conv6, lenet300, resnet18, "),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.MODELS, "_own", {})  # other tests of this process may have registered models
    with pytest.raises(BadInput) as raised:
        models.create_model(name)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "smallest"), [("alexnet", 63), ("vgg19", 16), ("conv3", 4), ("conv6", 8)])
def test_images_too_small_for_a_papers_network(name: str, smallest: int) -> None:
    backbone = models.create_model(name, image_size=smallest)
    models.num_features(backbone, channels=3, image_size=smallest)
    with pytest.raises(RuntimeError):
        models.num_features(backbone, channels=3, image_size=smallest - 1)
    with pytest.raises(BadInput, match=f"images for {name} must have at least {smallest} pixels a side, got "):
        models.create_model(name, image_size=smallest - 1)


@pytest.mark.parametrize(
    ("name", "image_size", "message"),
    [
        ("squeezenet1_1", 8, "images for squeezenet1_1 must have at least 32 pixels a side, got 8"),
        ("test_vit", 8, "test_vit cannot work with 8-pixel images: "),
        ("vit_b_16", 30, "vit_b_16 cannot be built for 30-pixel images (Input shape indivisible by patch size); give "),
        ("resnet18", 0, "images must have at least 1 channel and 1 pixel a side, got 3 and 0"),
    ],
)
def test_image_sizes_that_a_network_cannot_take(name: str, image_size: int, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        models.create_model(name, image_size=image_size)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "size", "other"),
    [
        ("vit_tiny_patch16_224", 64, 27),
        ("eva02_tiny_patch14_224", 28, 15),  # rotary positions
        ("swinv2_cr_tiny_ns_224", 32, 16),  # shifted windows
    ],
)
def test_timm_s_transformers_take_other_sizes_and_are_the_same_to_the_bit_at_their_own(
    name: str, size: int, other: int
) -> None:
    def trained(net: nn.Module) -> list[Tensor]:
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        features = net(images)
        features.square().sum().backward()
        return [features, *(each.grad for each in net.parameters() if each.grad is not None)]

    torch.manual_seed(0)
    fixed = timm.create_model(name, num_classes=0, img_size=size)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    backbone = models.create_model(name, image_size=size)
    assert torch.equal(torch.get_rng_state(), after)
    assert not models.accepts_image_size(fixed, channels=3, image_size=other)
    assert models.accepts_image_size(backbone, channels=3, image_size=other)
    assert {key: value.shape for key, value in backbone.state_dict().items()} == {
        key: value.shape for key, value in fixed.state_dict().items()
    }
    assert all(map(torch.equal, trained(backbone), trained(fixed)))


def test_a_size_that_is_no_multiple_of_the_patch_stays_what_it_was() -> None:
    """A ViT for 40 pixels has two patches of 16 a side and lets 8 pixels lie, which padding would make three."""
    torch.manual_seed(0)
    fixed = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=40).eval()
    torch.manual_seed(0)
    backbone = models.create_model("vit_tiny_patch16_224", image_size=40).eval()
    images = torch.randn(1, 3, 40, 40)
    assert torch.equal(backbone(images), fixed(images))
    assert backbone.pos_embed.shape[1] == 1 + 2 * 2
    assert not models.accepts_image_size(backbone, channels=3, image_size=16)


def test_blocks_are_left_out_of_a_training_and_of_no_momentum_encoder() -> None:
    torch.manual_seed(0)
    whole = models.create_model("test_vit", image_size=32)
    torch.manual_seed(0)
    backbone = models.create_model("test_vit", image_size=32, drop_path=0.9)
    assert all(map(torch.equal, backbone.parameters(), whole.parameters()))
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(backbone.eval()(images), whole.eval()(images))
    assert not torch.equal(backbone.train()(images), whole.train()(images))
    assert [block.drop_path1.drop_prob for block in backbone.blocks[1:]] == pytest.approx([0.18, 0.36, 0.54, 0.72, 0.9])
    encoder = MomentumEncoder(backbone, nn.Identity()).train()
    assert torch.equal(encoder(images), whole(images))


@pytest.mark.parametrize("name", ["resnet20", "vit_b_16", "vgg11_bn"])
def test_a_network_without_blocks_to_leave_out_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"--drop-path must .*, which {name} is not; give --drop-path 0") as told:
        models.create_model(name, image_size=32, drop_path=0.1)
    assert "\n" not in str(told.value)


class Noise(nn.Module):
    """Draws random numbers whatever its mode, as a stochastic mask does."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_asking_for_features_changes_nothing() -> None:
    backbone = nn.Sequential(Noise(), models.create_model("resnet20", image_size=32))
    backbone[1].layer2.eval()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    modes = [module.training for module in backbone.modules()]
    state = torch.get_rng_state()
    assert models.num_features(backbone, channels=3, image_size=32) == 64
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in backbone.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_a_network_without_one_vector_per_image_is_refused() -> None:
    with pytest.raises(BadInput, match="must give a vector of features per image"):
        models.num_features(nn.Sequential(nn.Conv2d(3, 4, 3)), channels=3, image_size=8)
