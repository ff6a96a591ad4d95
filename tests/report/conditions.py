"""Made-up rows of searches as they are written now: heads, starts, every control, cut tickets, several commits."""

from collections.abc import Iterator
from typing import Any

from sslticket.results.rows import CONTROLS
from tests.report.analysed import LEVEL, SCORE, STABILITY, Row, row

SEARCHES = range(6)
DEPTHS = range(5)
OBJECTIVES = {"rotnet": (0.91, 0.03), "supervised": (0.93, 0.015)}
OWN = ("reset", "permuted", "preserved", "local")
WORSE = {
    "ticket": 0,
    "reset": 0.02,
    "permuted": 0.04,
    "preserved": 0.03,
    "local": 0.05,
    "random": 0.08,
    "adjusted": 0.06,
}


def rows() -> list[Row]:
    """Two objectives, six searches each, three evaluation seeds, five levels; the sparsest RotNet ticket is cut."""
    return [*_levels(), *_scores()]


def _levels() -> Iterator[Row]:
    for objective in OBJECTIVES:
        views = 4 if objective == "rotnet" else 1
        for search in SEARCHES:
            for depth in DEPTHS:
                cost = {"search_samples": 1280 * (depth + 1), "search_forward_images": 1280 * views * (depth + 1)}
                trained = {"trained_level": depth - 1, "trained_density": 2.0 ** (1 - depth)} if depth else {}
                kept = {"first": [10 - depth, 10], "last": [90 // 2**depth, 90]}
                metrics = {f"{objective} accuracy": 0.95 - 0.03 * depth + 0.004 * search}
                yield row(
                    LEVEL, **_about(objective, search, depth), **cost, **trained, layers=kept, metrics=metrics, loss=0.1
                )


def _scores() -> Iterator[Row]:
    protocol = {"protocol_hash": "5e77aa01", "eval_hash": "e0e0", "start": "0"}
    for objective, (top1, drop) in OBJECTIVES.items():
        for search in SEARCHES:
            for depth in DEPTHS:
                about = _about(objective, search, depth) | protocol
                for seed in range(3):
                    good = top1 - drop * depth + 0.004 * (search * 7 % 5) + 0.003 * (seed - 1)
                    for control in CONTROLS:
                        drawn = {} if control == "ticket" else {"replicate": search}
                        told = {
                            "control": control,
                            "seed": seed,
                            "head": "new",
                            "commit": ("0123abc", "4567def")[seed > 1],
                        }
                        told |= {} if control == "ticket" else {"effective_density": 0.5**depth}
                        yield row(SCORE, **about | told | drawn, top1=good - WORSE[control] * depth)
                    if objective == "supervised":
                        yield row(SCORE, **about | {"seed": seed, "head": "own"}, top1=good + 0.02)
                    if seed == 0:
                        yield row(SCORE, **about | {"head": "new", "start": "k", "seed": seed}, top1=good - 0.01)
                yield row(STABILITY, **about | {"start": "k"}, order_distance=4.0 + depth + 0.1 * search)


def _about(objective: str, search: int, depth: int) -> dict[str, Any]:
    run = f"{objective}-conv-digits-{search}"
    return {
        "run": run,
        "recipe": objective,
        "objective": objective,
        "search_seed": search,
        "search": "IMP",
        "settings": {"search": "IMP", "rate": 0.5},
        "level": depth,
        "density": 0.5**depth,
        "ticket_hash": f"{run}-{depth}",
        "source_hash": "50a1ce",
        "precision": "fp32",
        "effective_density": 0.0 if (objective, depth, search % 3) == ("rotnet", 4, 0) else 0.48**depth,
    }
