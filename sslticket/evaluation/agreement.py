"""What all processes must have before them alike, when tickets are trained under protocols."""

import hashlib
from collections.abc import Iterable

from sslticket.evaluation.entrants import Entrant
from sslticket.evaluation.images import Gallery
from sslticket.evaluation.tasks import Task
from sslticket.training.agreement import Fact, flag


def facts(rows: Iterable[tuple[Task, Entrant]], gallery: Gallery, precision: str) -> dict[str, Fact]:
    """What this process sees of tickets, rows to be and images.

    Args:
        rows: that were asked for, each with its ticket, done or not.
        gallery: in which all images are open.
        precision: of the passes.
    """
    tickets, asked = set(), []
    for task, entrant in rows:
        tickets.add(f"{task.run.name}/{task.path.name} {entrant.hash}")
        protocol = f"{task.protocol.label} {task.protocol.hash_for(entrant.model)}"
        asked.append(f"{task.path.name} {task.control} {protocol} {task.seed} {task.head}")
    images = "; ".join(gallery.told()) or "no images"
    return {
        "precision": flag("precision", precision),
        "tickets": Fact(
            f"sees {len(tickets):,} tickets with the hash {_digest(sorted(tickets))}",
            "give the same tickets to every process, on a folder that all machines see",
        ),
        "rows": Fact(
            f"is asked for {len(asked):,} rows with the hash {_digest(asked)}", "give the same flags to every process"
        ),
        "images": Fact(f"sees {images}", "--data-root must show the same images to all"),
    }


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]
