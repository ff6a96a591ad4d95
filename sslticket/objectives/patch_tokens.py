"""Patches in vision transformers: which of them a pass hides, and what becomes of each.

The network stays the plain one of timm or torchvision. For one pass, hooks on its layers replace patches or leave them
out, and take its last tokens: so its own forward runs, with its masks, its kernels and its counters.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.errors import BadInput
from sslticket.seeds import derive_seed

_Hook = Callable[[nn.Module, Any, Tensor], Tensor | None]


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchTokens:
    """Where the patches of images are found in a vision transformer.

    Attributes:
        backbone: The network, images (B, C, S, S) -> features (B, F).
        embedded: The layer that makes patches, before they are told where they lie.
        channels_first: Whether it gives them as (B, D, h, w), not as (B, N, D) or (B, h, w, D).
        positioned: The layer that hands on all tokens with their positions, (B, prefix + N, D).
        encoded: The layer that gives the last tokens, normalised, in the same order.
        prefix: Number of tokens before the patches, such as the class token.
        patch_size: Side of a patch in pixels.
        width: Numbers D of a token.
        grid: Patches along a side of the images that the network was built for.
    """

    backbone: nn.Module
    embedded: nn.Module
    channels_first: bool
    positioned: nn.Module
    encoded: nn.Module
    prefix: int
    patch_size: int
    width: int
    grid: int

    @classmethod
    def of(cls, backbone: nn.Module, objective: str) -> "PatchTokens":
        """Those of a backbone.

        A network of one's own is looked at as timm's are, if it has a class attribute `patch_tokens = True` and the
        attributes `patch_embed` (with `patch_size` and `grid_size`), `patch_drop`, `norm`, `num_prefix_tokens` and
        `embed_dim`.

        Args:
            backbone: A backbone.
            objective: Name of the objective, for the error.

        Raises:
            BadInput: If it is no vision transformer whose patches can be hidden one by one.
        """
        from timm.models.vision_transformer import VisionTransformer
        from torchvision.models import VisionTransformer as TorchvisionTransformer

        net: Any = backbone
        if isinstance(backbone, TorchvisionTransformer):
            return cls(
                backbone=backbone,
                embedded=net.conv_proj,
                channels_first=True,
                positioned=net.encoder.dropout,
                encoded=net.encoder.ln,
                prefix=1,
                patch_size=net.patch_size,
                width=net.hidden_dim,
                grid=net.image_size // net.patch_size,
            )
        if not (isinstance(backbone, VisionTransformer) or getattr(backbone, "patch_tokens", False) is True):
            raise BadInput(
                f"{objective} must have a vision transformer, whose patches it hides, got a {type(backbone).__name__}; "
                "give --model vit_small_patch16_224, or another objective"
            )
        sides, grid = net.patch_embed.patch_size, net.patch_embed.grid_size
        if isinstance(net.norm, nn.Identity) or len({*sides}) > 1:
            raise BadInput(
                f"{objective} must have a vision transformer of square patches whose last tokens are normalised before "
                "they are pooled, got another one; give --model vit_small_patch16_224"
            )
        return cls(
            backbone=backbone,
            embedded=net.patch_embed,
            channels_first=False,
            positioned=net.patch_drop,
            encoded=net.norm,
            prefix=net.num_prefix_tokens,
            patch_size=sides[0],
            width=net.embed_dim,
            grid=grid[0],
        )

    def check_sizes(self, objective: str, views: Sequence[View]) -> None:
        """Check that views consist of whole patches.

        Raises:
            BadInput: If one does not.
        """
        for view in views:
            if view.size % self.patch_size:
                raise BadInput(
                    f"the images of {objective} must consist of whole patches of {self.patch_size} pixels, got "
                    f"{view.size} pixels; give --image-size {max(1, view.size // self.patch_size) * self.patch_size}"
                )

    def num_patches(self, images: Tensor) -> int:
        """Patches of each of such images."""
        return (images.shape[2] // self.patch_size) * (images.shape[3] // self.patch_size)

    def encode(
        self, images: Tensor, *, keep: Tensor | None = None, hidden: Tensor | None = None, token: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (B, F) and the last tokens, (B, prefix + n, D), of one pass of the backbone.

        Args:
            images: Images, (B, C, S, S).
            keep: The patches that go through, (B, n) int64, in the order in which their tokens come out; all for None.
            hidden: Which patches are replaced by the token before positions are added, (B, N) bool.
            token: What replaces them, (D,).
        """
        hooks: list[tuple[nn.Module, _Hook]] = []
        taken: list[Tensor] = []
        if hidden is not None:
            assert token is not None, "hidden patches are replaced by a token"
            hooks.append((self.embedded, lambda _module, _given, patches: self._replace(patches, hidden, token)))
        if keep is not None:
            first = torch.arange(self.prefix, device=keep.device).expand(len(keep), -1)
            rows = torch.cat([first, keep + self.prefix], dim=1)
            hooks.append((self.positioned, lambda _module, _given, tokens: take_tokens(tokens, rows)))
        hooks.append((self.encoded, lambda _module, _given, tokens: taken.append(tokens)))
        with ExitStack() as stack:
            if self.backbone._compiled_call_impl is not None:
                # Compiled code would go on with the hooks that it was compiled with.
                stack.enter_context(cast(Any, torch.compiler).set_stance("force_eager"))
            stack.enter_context(_hooks(hooks))
            features: Tensor = self.backbone(images)
        return features, taken[0]

    def _replace(self, patches: Tensor, hidden: Tensor, token: Tensor) -> Tensor:
        token = token.to(patches.dtype)
        if self.channels_first:
            return torch.where(hidden.view(len(hidden), 1, *patches.shape[2:]), token[:, None, None], patches)
        return torch.where(hidden.view(*patches.shape[:-1], 1), token, patches)


@contextmanager
def _hooks(hooks: Sequence[tuple[nn.Module, _Hook]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def take_tokens(tokens: Tensor, rows: Tensor) -> Tensor:
    """Some tokens (B, n, D) of (B, N, D), those of the rows (B, n)."""
    return tokens.gather(1, rows[:, :, None].expand(-1, -1, tokens.shape[2]))


def draw_mask_seed() -> Tensor:
    """The seed of a search's masks, () int64, by torch's generator; a buffer of the heads keeps it."""
    return torch.randint(2**62, ())


class PatchNoise:
    """Random numbers of the patches of images, a pure function of the search's seed, the step and the image.

    Neither an image's place in a batch nor the process that has it matters, and no generator has a state: several
    processes hide what one does, and a resumed training what an uninterrupted one does.
    """

    def __init__(self, seed: Tensor, images: Tensor, progress: float) -> None:
        """Numbers of a step.

        Args:
            seed: The seed of the search's masks, () int64.
            images: The images' rows in the manifest, (B,) int64.
            progress: The fraction of the training that is over, which no two steps share.
        """
        self._images = _mix(_mix(seed ^ derive_seed(0, "masks", float(progress).hex())) ^ images)
        self._drawn = 0

    def draw(self, count: int) -> Tensor:
        """The next numbers of each image, (B, count) int64, all of them equally likely."""
        first, self._drawn = self._drawn, self._drawn + count
        steps = torch.arange(first + 1, first + count + 1, device=self._images.device) * _signed(0x9E3779B97F4A7C15)
        return _mix(self._images[:, None] + steps)

    def uniform(self, count: int) -> Tensor:
        """The next numbers of each image, uniform in [0, 1), (B, count) float32."""
        return (self.draw(count) & (2**24 - 1)).float() / 2**24


def _signed(number: int) -> int:
    """The int64 with the bits of an unsigned number."""
    return number - 2**64 if number >= 2**63 else number


def _mix(x: Tensor) -> Tensor:
    """Mixes the bits of int64 numbers: the finaliser of SplitMix64 (Steele et al. 2014, OOPSLA, figure 17)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> shift & (2 ** (64 - shift) - 1))) * _signed(factor)
    return x ^ (x >> 31 & (2**33 - 1))


_ATTEMPTS = 20
"""Rectangles that are tried for a mask of blocks; what they leave open is filled patch by patch."""
_LEAST_BLOCK = 4  # patches of a rectangle that is tried, as in DINOv2's code (dinov2/data/masking.py)
_LOG_ASPECT = 1.2039728  # log(1 / 0.3): rectangles are up to 3.3 times as high as wide, or the reverse (BEiT's code)


def hide_patches(noise: PatchNoise, count: Tensor, grid: int, shape: Literal["block", "random"]) -> Tensor:
    """Which patches of each image are hidden, (B, grid * grid) bool, exactly as many as asked for.

    Blocks are laid as in BEiT (Bao et al. 2022, https://arxiv.org/abs/2106.08254, algorithm 1): rectangles of random
    area and shape, of which one is taken if it hides something new and not more than is left. What is left in the end
    is hidden at random. All of it is done on the device, which never waits.

    Args:
        noise: The images' random numbers.
        count: Number of patches to hide, (B,) int64.
        grid: Patches along a side.
        shape: Whether they lie together in rectangles, or anywhere.
    """
    images = len(count)
    hidden = torch.zeros(images, grid, grid, dtype=torch.bool, device=count.device)
    lines = torch.arange(grid, device=count.device)
    for _ in range(_ATTEMPTS if shape == "block" else 0):
        area, aspect, top, left = noise.uniform(4).unbind(dim=1)
        spare = (count - hidden.sum(dim=(1, 2))).float()
        least = spare.clamp(max=_LEAST_BLOCK)
        area, aspect = least + area * (spare - least), torch.exp(_LOG_ASPECT * (2 * aspect - 1))
        sides = [(area * aspect).sqrt().round(), (area / aspect).sqrt().round()]
        bands = []
        for side, start in zip(sides, (top, left), strict=True):
            first = (start * (grid - side + 1)).floor()[:, None]
            bands.append((lines >= first) & (lines < first + side[:, None]))
        block = bands[0][:, :, None] & bands[1][:, None, :]
        new = (block & ~hidden).sum(dim=(1, 2))
        taken = (new > 0) & (new <= spare) & (sides[0] < grid) & (sides[1] < grid)
        hidden = hidden | (block & taken[:, None, None])
    # The hidden ones first, then the others in random order.
    order = (noise.draw(grid * grid) >> 2 & (2**61 - 1)).masked_fill(hidden.flatten(1), -1)
    rank = order.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return rank < count[:, None]


def hidden_for_eyes(images: Tensor, hidden: Tensor, patch_size: int) -> Tensor:
    """Normalised images (B, C, S, S) whose hidden patches, (B, N) bool, have the mean colour of all images."""
    rows = images.shape[2] // patch_size
    pixels = hidden.view(len(hidden), 1, rows, -1)
    pixels = pixels.repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)
    return images.masked_fill(pixels, 0.0)
