"""Low-shot tickets on ImageNet: class labels and RotNet's rotations on 1%, 10% and all of the images.

Finds     how the images that a search is given decide the accuracy of its tickets, where labels are few or none.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.2.
Run       sslticket sweep lowshot --dry-run
Cost      990 trainings, each of as many samples as 90 epochs of all images; lowshot_digits takes minutes.
"""

from sslticket import Evaluate, Sweep

sweep = Sweep(
    title="Low-shot tickets on ImageNet",
    recipes=["supervised_resnet50", "rotnet_resnet50"],
    settings={"hold": "samples"},  # every training sees as many images as on the whole set
    grid={"subset": [0.01, 0.1, 1.0]},
    seeds=[0, 1, 2],
    evaluate=[Evaluate(protocols=["imagenet"], controls=["random"], seeds=[0])],
)
