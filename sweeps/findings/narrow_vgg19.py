"""VGG-19 with an eighth of its filters: 64 features and 312,000 convolution weights, for experiments on two cores."""

from sslticket.models.paper_networks import VGG, VGG19


def narrow_vgg19(channels: int, image_size: int) -> VGG:
    """VGG-19 as in the papers, each convolution with an eighth of the filters."""
    return VGG(channels, [step if step == "M" else step // 8 for step in VGG19], batch_norm=True)
