"""The papers' networks with fewer filters, for experiments on two processor cores."""

from sslticket.models.paper_networks import VGG, VGG19, BasicBlock, ResNet


def narrow_vgg19(channels: int, image_size: int) -> VGG:
    """VGG-19 with an eighth of its filters: 64 features, 312,408 convolution weights of colour images."""
    return VGG(channels, [step if step == "M" else step // 8 for step in VGG19], batch_norm=True)


def narrow_conv6(channels: int, image_size: int) -> VGG:
    """Conv-6 with a quarter of its filters and of its hidden units: 64 features."""
    return VGG(
        channels, (16, 16, "M", 32, 32, "M", 64, 64, "M"), batch_norm=False, hidden=(64, 64), image_size=image_size
    )


def small_alexnet(channels: int, image_size: int) -> VGG:
    """Three convolutions and two linear layers of 512 units, which have 96% of the weights of 16-pixel images."""
    return VGG(channels, (16, "M", 32, "M", 32, "M"), batch_norm=True, hidden=(512, 512), image_size=image_size)


def narrow_resnet20(channels: int, image_size: int) -> ResNet:
    """The 20-layer CIFAR ResNet with half of its filters: 32 features, 67,784 convolution weights of colour images."""
    return ResNet(channels, BasicBlock, (3, 3, 3), (8, 16, 32), small_images=True)
