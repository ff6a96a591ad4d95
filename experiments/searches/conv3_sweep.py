"""Three convolutions in docs/searches.md: the searches against each other, the criteria, and where W_k is taken.

Run       sslticket sweep experiments/searches/conv3_sweep.py --out runs/searches --data-root /data
Cost      11 to 20 minutes a seed on one busy core.
"""

from collections.abc import Sequence

from sslticket import Analyse, Evaluate, Sweep

SEEDS = (0, 1, 2, 3, 4, 5)
RECIPES = "recipes.py:conv3-"


def scores(levels: str, controls: Sequence[str] = ()) -> Evaluate:
    """Top-1 at some levels, each search's tickets under its own seed."""
    return Evaluate(protocols=["cifar10-small"], controls=controls, levels=levels, seeds="search")


def on_the_rest(analysis: str, levels: str) -> Analyse:
    """An analysis of the trainings of T - k steps, beside random subnetworks of the same W_k."""
    return Analyse(analysis=analysis, protocols=["cifar10-small@k"], controls=["local"], levels=levels, seeds="search")


before_training = ["oneshot", "snip", "grasp", "synflow", "magnitude", "erk", "chance"]
every_other = scores("0 2 4 6")
sweeps = [
    Sweep(
        title="Searches and criteria at equal density",
        recipes=[f"{RECIPES}imp"],
        seeds=SEEDS,
        evaluate=[every_other, scores("2 4 6", ["random", "preserved", "reset"])],
        analyse=[on_the_rest("stability", "2 4 6"), on_the_rest("connectivity", "0 4 6")],
    ),
    Sweep(recipes=[f"{RECIPES}{name}" for name in before_training], seeds=SEEDS, evaluate=[every_other]),
    Sweep(recipes=[f"{RECIPES}{name}" for name in ("cs", "iss", "edgepopup")], seeds=SEEDS, evaluate=[scores("1-6")]),
    Sweep(recipes=[f"{RECIPES}cs"], settings={"initial-score": -0.02}, seeds=SEEDS, evaluate=[scores("1-6")]),
    Sweep(recipes=[f"{RECIPES}supermask-cs", f"{RECIPES}supermask-ss"], seeds=SEEDS),
    Sweep(
        recipes=[f"{RECIPES}imp"],
        grid={"rewind": ["0it", "10it", "60it", "100it"]},
        seeds=SEEDS,
        evaluate=[scores("4 6")],
        analyse=[on_the_rest("stability", "6")],
    ),
]
