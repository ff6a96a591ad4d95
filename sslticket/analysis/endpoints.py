"""The ends of trainings: whole networks, kept so that analyses share them and a killed command goes on.

They are a cache and may be deleted at any time.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslticket import tensors
from sslticket.analysis.subjects import Course, subnetwork
from sslticket.errors import BadInput
from sslticket.evaluation.claims import claimed
from sslticket.evaluation.images import Gallery
from sslticket.evaluation.score import Exam, Examiner, seeds_of
from sslticket.masking import gate
from sslticket.masking.mask import State
from sslticket.randomness import Seeds, derive
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A network at the end of its training.

    Attributes:
        state: all its parameters and buffers, backbone and head, under clean names; pruned entries are 0.
        told: what was measured there, as the training's score row would tell it, and where it is from.
    """

    state: State
    told: Mapping[str, Any]

    @property
    def backbone(self) -> State:
        """The backbone's part, under the names that tickets have."""
        own = "backbone."
        return {name.removeprefix(own): value for name, value in self.state.items() if name.startswith(own)}

    def save(self, path: Path) -> None:
        """Write the endpoint, whole or not at all."""
        tensors.write(path, "endpoint", self.told, self.state)


class Endpoints:
    """Trains networks to the end, or reads where they ended.

    Attributes:
        bench: where they are trained.
        examiner: how.
        progress: is told.
    """

    def __init__(self, gallery: Gallery, bench: Workbench, progress: Progress) -> None:
        self.bench, self.examiner, self.progress = bench, Examiner(bench, progress), progress
        self._gallery = gallery

    def reach(self, course: Course) -> bool:
        """Train to the end where that is neither done nor in another process's hands; returns whether it is done.

        Raises:
            Diverged: if a loss is not finite.
        """
        with ExitStack() as held:
            there = free = False
            if self.bench.first:
                free = bool(held.enter_context(claimed([course.file])))
                there = course.file.exists()
            there, free = self.bench.agreed((there, free))
            if free and not there:
                self._train(course)
            if there or free:
                self.bench.shared(course.file)
            return there or free

    def read(self, course: Course) -> Endpoint:
        """What `reach` left.

        Raises:
            BadInput: if the file is damaged, or of other images.
        """
        return self._checked(course, _read(course.file, whole=True))

    def told(self, course: Course) -> Mapping[str, Any]:
        """What was measured there; the weights are not read.

        Raises:
            BadInput: if the file is damaged, or of other images.
        """
        return self._checked(course, _read(course.file, whole=False)).told

    def exam(self, course: Course) -> Exam:
        """The training as the examiner takes it."""
        task = course.task
        return Exam(
            protocol=task.protocol,
            model=course.model,
            channels=course.channels,
            splits=self._gallery.splits(task.protocol, course.channels),
            seeds=_seeds(task.seed, course.order),
            start=course.start,
            run=task.run,
            name=f"endpoint.{course.name}",
        )

    def _train(self, course: Course) -> None:
        task, exam = course.task, self.exam(course)
        net = exam.net()
        subnetwork(task).apply(net.backbone, net.heads if task.head == "own" else None)
        what = f"{task.path.stem} {task.control} {task.protocol.name} seed {task.seed} order {course.order}"
        self.progress.task(what, course.stop)
        told = self.examiner.train(net, exam)
        if self.bench.first:
            Endpoint(gate.read(net), told).save(course.file)

    def _checked(self, course: Course, endpoint: Endpoint) -> Endpoint:
        images = self._gallery.splits(course.task.protocol, course.channels).training.manifest
        if endpoint.told["data_hash"] != images.hash:
            raise BadInput(f"{course.file} is of other images; delete it and run the same command again")
        return endpoint


def left(courses: Iterable[Course]) -> list[Course]:
    """Those that are not trained yet, each once."""
    return [course for course in {course.file: course for course in courses}.values() if not course.file.exists()]


def _seeds(seed: int, order: int) -> Seeds:
    """Orders differ in the images' order and augmentation; head and masks are the seed's.

    The first order is that of an evaluation with this seed.
    """
    own = seeds_of(seed)
    if order == 0:
        return own
    other = Seeds.of(derive(seed, "evaluation", "order", order))
    return replace(own, order=other.order, augment=other.augment)


def _read(path: Path, *, whole: bool) -> Endpoint:
    fix = "delete it and run the same command again"
    told, state = tensors.read(path, "endpoint", what="endpoint", fix=fix, whole=whole)
    if not isinstance(told.get("data_hash"), str):
        raise BadInput(f"{path} is damaged (it does not tell its images); {fix}")
    told.pop("hash", None)
    return Endpoint(state, told)
