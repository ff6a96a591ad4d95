"""Made-up rows of every analysis, as many as a page with all figures needs."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from tests.report.conftest import LEVEL, SCORE, SHARED

Row = dict[str, Any]
OBJECTIVES = {"rotnet": 0.02, "supervised": 0.01}
REWINDS = {"0it": 0, "10it": 320, "40it": 1280}
DEPTHS = range(4)

STABILITY = {
    "kind": "stability",
    "control": "ticket",
    "protocol": "digits",
    "target": "digits",
    "seed": 0,
    "order_distance": 7.1,
    "order_angle": 16.1,
    "pruning_distance": 19.8,
    "pruning_angle": 50.4,
    "top1": 0.89,
    "dense_top1": 0.9,
}
CONNECTIVITY = {
    "kind": "connectivity",
    "control": "ticket",
    "protocol": "digits",
    "target": "digits",
    "seed": 0,
    "points": [[0.0, 0.1, 0.4, 0.1, 0.4], [0.5, 0.3, 0.9, 0.2, 0.7], [1.0, 0.14, 0.4, 0.14, None]],
    "barrier": 0.18,
    "barrier_recalibrated": 0.08,
    "loss_barrier": 0.5,
    "loss_barrier_recalibrated": None,
}
MAGNITUDES = {
    "kind": "magnitudes",
    "protocol": "digits",
    "target": "digits",
    "seed": 0,
    "natural_density": 0.75,
    "layers": {"first": [9, 10], "last": [66, 90]},
    "bins": [-8.0, -7.0, -6.0, -1.0, 0.0],
    "counts": [5, 15, 5, 50],
    "zeros": 25,
}
OVERLAP = {
    "kind": "overlap",
    "other_run": "supervised-1",
    "other_objective": "supervised",
    "other_level": 2,
    "other_density": 0.25,
    "other_hash": "88bb",
    "other_seed": 0,
    "jaccard": 0.3,
    "chance": 0.14,
    "layers": {"first": [4, 8, 0.4], "last": [5, 22, 0.13]},
}
CHANNELS = {
    "kind": "channels",
    "layers": {"first": [9, 10], "last": [16, 90]},
    "dead": {"first": [0, 2], "last": [3, 9]},
}


def row(kind: Row, **changes: Any) -> Row:
    """A row of the kind of one above, with some keys changed."""
    return SHARED | kind | changes


def rows() -> list[Row]:
    """Two objectives with three rewind points, two seeds and four densities, analysed in every way."""
    return [*_searched(), *_compared()]


def _searched() -> Iterator[Row]:
    for (objective, drop), (rewind, samples), seed, depth in product(
        OBJECTIVES.items(), REWINDS.items(), (0, 1), DEPTHS
    ):
        about = _about(objective, rewind, seed, depth)
        good = 0.9 - drop * depth + 0.01 * seed + 0.02 * (samples > 0)
        kept = {"first": [10 - depth, 10], "last": [90 // 2**depth, 90]}
        far_off = 1.3 if objective == "rotnet" else 1.0
        dead = {"first": [0, 2], "last": [9 if depth == 3 else 2 * depth, 9]}
        yield row(CHANNELS, **about, layers=kept, dead=dead)
        yield row(LEVEL, **about, layers=kept, search_samples=1280 * (depth + 1), loss=0.1)
        yield row(MAGNITUDES, **about, natural_density=0.8 / 2**depth, counts=[5, 15, 5, 50 - 4 * seed])
        for control, worse in {"ticket": 1, "local": 2}.items():
            yield row(SCORE, **about, control=control, top1=good - 0.05 * worse)
            far = far_off * worse * (1 + depth) / (1 + samples / 320)
            distances = {
                "order_distance": 4 * far + seed,
                "pruning_distance": 9 * far,
                "order_angle": 8 * far,
                "pruning_angle": 9 * far,
            }
            yield row(STABILITY, **about, control=control, **distances)
            top = 0.02 * worse * far_off * (depth + 1 - samples / 1280) + 0.01 * seed
            points = [[step / 4, 0.1 + top * step * (4 - step) / 4, 0.4, 0.1 + top / 2, 0.4] for step in range(5)]
            yield row(CONNECTIVITY, **about, control=control, points=points, barrier=top, barrier_recalibrated=top / 2)


def _compared() -> Iterator[Row]:
    searches = [_about(objective, "10it", seed, 0)["run"] for objective, seed in product(OBJECTIVES, (0, 1))]
    for one, (place, other), depth, deeper in product(searches, enumerate(searches), DEPTHS, DEPTHS):
        if one >= other or deeper < depth or not deeper:
            continue
        own = _about(one.split("-")[0], "10it", int(one[-1]), depth)
        theirs = _about(other.split("-")[0], "10it", int(other[-1]), deeper)
        found = {key: theirs[key] for key in ("run", "objective", "level", "density")}
        found |= {"hash": theirs["ticket_hash"], "seed": theirs["search_seed"]}
        chance = 0.5 ** (deeper + 1)
        yield row(
            OVERLAP,
            **own,
            **{f"other_{key}": value for key, value in found.items()},
            jaccard=chance * (1.5 if own["search_seed"] == theirs["search_seed"] else 1.01),
            chance=chance,
            layers={"first": [4 - depth, 8, 0.4], "last": [5, 22 + place, 0.13]},
        )


def _about(objective: str, rewind: str, seed: int, depth: int) -> Row:
    run = f"{objective}-{rewind}-{seed}"
    return {
        "run": run,
        "recipe": f"{objective}-{rewind}",
        "objective": objective,
        "search_seed": seed,
        "search": "IMP",
        "settings": {"search": "IMP", "rewind": rewind, "rate": 0.5},
        "rewind_samples": REWINDS[rewind],
        "level": depth,
        "density": 0.5**depth,
        "ticket_hash": f"{run}-{depth}",
    }
