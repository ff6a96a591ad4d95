"""Training: one network, one loop, exact checkpoints; and the trackers that may follow a training."""

from sslticket.registry import Registry

TRACKERS = Registry[type](
    "tracker",
    {
        "aim": "accelerate.tracking:AimTracker",
        "comet_ml": "accelerate.tracking:CometMLTracker",
        "mlflow": "accelerate.tracking:MLflowTracker",
        "tensorboard": "accelerate.tracking:TensorBoardTracker",
        "trackio": "accelerate.tracking:TrackioTracker",
        "wandb": "accelerate.tracking:WandBTracker",
    },
)
"""The trackers that --log may name, which are accelerate's; those of users are of its class or of our `Tracker`."""
