"""Networks without their classification layer, by name: the papers' own, then any of timm's or torchvision's."""

from sslticket.models.backbone import KNOWN, build, features, names, takes

__all__ = ["KNOWN", "build", "features", "names", "takes"]
