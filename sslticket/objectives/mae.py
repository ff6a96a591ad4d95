"""MAE: the pixels of patches that the network has not seen, from those that it has (He et al. 2022)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.errors import BadInput
from sslticket.objectives.base import Network, Objective, check_at_least
from sslticket.objectives.patch_tokens import PatchNoise, PatchTokens, draw_mask_seed, hidden_for_eyes

_MEASURED = 1.0
"""The progress whose masks images have when they are measured: a step of a training never has it."""


class _Decoder(nn.Module):
    """Tokens of the patches that were seen -> the pixels of all patches, and the seed of the masks.

    Attributes:
        mask_seed: Seed of the masks, () int64.
    """

    mask_seed: Tensor

    def __init__(self, objective: "MAE", tokens: PatchTokens, channels: int) -> None:
        super().__init__()
        from lightly.models.modules import MaskedVisionTransformerDecoderTIMM
        from lightly.models.modules.masked_vision_transformer_timm import init_weights

        self.embed = nn.Linear(tokens.width, objective.decoder_width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=tokens.grid**2,
            embed_dim=objective.decoder_width,
            depth=objective.decoder_depth,
            num_heads=objective.decoder_heads,
            num_prefix_tokens=tokens.prefix,
        )
        self.predict = nn.Linear(objective.decoder_width, channels * tokens.patch_size**2)
        for layer in (self.embed, self.predict):
            init_weights(layer)
        self.register_buffer("mask_seed", draw_mask_seed())

    def forward(self, tokens: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """Pixels (B, N, patch_size ** 2 * C).

        Args:
            tokens: The last tokens of the backbone, (B, prefix + n, D).
            keep: The patches that they are of, (B, n).
            hidden: The others, (B, N) bool.
        """
        seen = self.embed(tokens)
        prefix = seen.shape[1] - keep.shape[1]
        rows = torch.cat([torch.arange(prefix, device=keep.device).expand(len(keep), -1), keep + prefix], dim=1)
        everywhere = seen.new_zeros(len(seen), prefix + hidden.shape[1], seen.shape[2])
        everywhere = everywhere.scatter(1, rows[:, :, None].expand_as(seen), seen)
        decoded = self.decoder(everywhere, mask=nn.functional.pad(hidden, (prefix, 0)))
        pixels: Tensor = self.predict(decoded[:, prefix:])
        return pixels


@dataclass(frozen=True, kw_only=True)
class MAE(Objective):
    """The mean squared error of the hidden patches' pixels, each patch normalised.

    The backbone sees the other patches alone, a quarter of the image; a small decoder, which is thrown away with the
    heads, sees its tokens and an equal token in each hidden patch's place. Defaults are those of the paper (section 4
    and appendix A.1) and of the authors' command (PRETRAIN.md of github.com/facebookresearch/mae). Their network has
    fixed positions and Xavier's initial weights; here it is timm's or torchvision's own, so that a ticket's W_k is that
    of the network that others train. Source: https://arxiv.org/abs/2111.06377.

    Attributes:
        mask_ratio: Fraction of an image's patches that are hidden.
        decoder_width: Numbers of a token in the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of each of its blocks.
        normalised_pixels: Whether a patch's pixels are predicted less their mean and over their standard deviation.
    """

    mask_ratio: float = 0.75
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    normalised_pixels: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise BadInput(
                f"--mask-ratio must be between 0 and 1, got {self.mask_ratio:g}; give --mask-ratio 0.75, the default"
            )
        check_at_least(self, 1, "decoder_width", "decoder_depth", "decoder_heads")
        if self.decoder_width % 4 or self.decoder_width % self.decoder_heads:
            raise BadInput(
                f"--decoder-width must be a multiple of 4 and of the {self.decoder_heads} heads of the decoder, got "
                f"{self.decoder_width}; give --decoder-width 512 --decoder-heads 16, the defaults"
            )

    def views(self, standard: View) -> tuple[View, ...]:
        """A random resized crop of 20% to 100% of the area, mirrored where the dataset's may be, and no colours."""
        return (View(size=standard.size, crop="resized", scale=(0.2, 1.0), flip=standard.flip),)

    def check_backbone(self, backbone: nn.Module, views: Sequence[View]) -> None:
        """See the base class."""
        tokens = PatchTokens.of(backbone, self.name)
        tokens.check_sizes(self.name, views)
        patches = (views[0].size // tokens.patch_size) ** 2
        if patches < 2:
            raise BadInput(
                f"the images of {self.name} must have at least 2 patches, got one of {tokens.patch_size} pixels; give "
                f"--image-size {2 * tokens.patch_size}, or a --model with smaller patches"
            )

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The decoder, tokens (B, prefix + n, D) -> pixels (B, N, patch_size ** 2 * C)."""
        tokens = PatchTokens.of(backbone, self.name)
        kernels = (each.weight for each in tokens.embedded.modules() if isinstance(each, nn.Conv2d))
        return _Decoder(self, tokens, next(kernels).shape[1])

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The mean over the hidden patches of all images."""
        errors, _, hidden = self._errors(net, batch, progress)
        return {"reconstruction": (errors * hidden).sum() / hidden.sum()}

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Of the whole evaluation images, with masks that are always the same; each (B,).

        Returns:
            `loss`, and `loss of flat patches`: what it would be if the mean colour of each hidden patch were known, and
                nothing else. With normalised pixels that is about 1.
        """
        errors, spread, hidden = self._errors(net, batch, _MEASURED)
        count = hidden.sum(dim=1)
        return {
            "loss": (errors * hidden).sum(dim=1) / count,
            "loss of flat patches": (spread * hidden).sum(dim=1) / count,
        }

    def preview_with(self, build: Callable[[], Network], batch: Batch) -> dict[str, Tensor]:
        """The view, and what is left of it at the first step."""
        net, images = build(), batch.views[0]
        tokens = PatchTokens.of(net.backbone, self.name)
        _, hidden = self._masks(cast(_Decoder, net.heads), batch, tokens.num_patches(images), 0.0)
        return {"view 1": images, "seen": hidden_for_eyes(images, hidden, tokens.patch_size)}

    def _masks(self, heads: _Decoder, batch: Batch, patches: int, progress: float) -> tuple[Tensor, Tensor]:
        """The patches that are seen, (B, n) in order, and which are hidden, (B, N) bool."""
        count = min(max(1, int(patches * (1 - self.mask_ratio))), patches - 1)
        order = PatchNoise(heads.mask_seed, batch.indices, progress).draw(patches).argsort(dim=1)
        keep = order[:, :count].sort(dim=1).values
        return keep, torch.ones_like(order, dtype=torch.bool).scatter(1, keep, False)

    def _errors(self, net: Network, batch: Batch, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """Each patch's squared error, the variance of its target, and whether it was hidden; each (B, N)."""
        from lightly.models.utils import normalize_mean_var, patchify

        images, heads = batch.views[0], cast(_Decoder, net.heads)
        tokens = PatchTokens.of(net.backbone, self.name)
        target = patchify(images, tokens.patch_size)
        if self.normalised_pixels:
            target = normalize_mean_var(target)
        keep, hidden = self._masks(heads, batch, target.shape[1], progress)
        _, last = tokens.encode(images, keep=keep)
        errors = (heads(last, keep, hidden).float() - target).square().mean(dim=2)
        return errors, target.var(dim=2, correction=0), hidden
