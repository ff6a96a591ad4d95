"""Networks without their classification layer, by name: the papers' own, then any of timm's or torchvision's."""

from sslticket.models.backbones import PAPER_MODELS, accepts_image_size, create_model, list_models, num_features

__all__ = ["PAPER_MODELS", "accepts_image_size", "create_model", "list_models", "num_features"]
