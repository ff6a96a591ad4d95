"""The folder of a run: what a search leaves behind, and what it finds there when it is started again.

    runs/<key>/
        recipe.json                     the resolved recipe, the data's hash, command, commit
        initial.safetensors             W_0, as a ticket that is dense and rewound to the start
        early.safetensors               the whole network and the optimiser at W_k
        carried-01.safetensors          the whole network after a level, where the next does not start at W_k
        kernels/search.level-00.json    how a level's network computes, where a trial has chosen; so for evaluations
        unreadable.json                 where there are any: images that could not be read, by level
        tickets/level-00.safetensors    one ticket a level, level 0 is the dense network
        rows/search.level-00.jsonl      what finding it cost and showed
        rows/search.diverged.jsonl      where and why a training of it diverged, until it succeeds
        rows/search.magnitudes.jsonl    magnitudes of the dense network's weights at the end
        rows/level-00.ticket.cifar10.seed0.jsonl    what an evaluation measured

Every file is renamed into place whole, so a file that is there is finished.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslticket import processes, provenance
from sslticket.config.recipe import ImageIdentity, Recipe
from sslticket.errors import BadInput
from sslticket.registry import remember_parts
from sslticket.storage.files import read_json, remove_unfinished, write_json
from sslticket.storage.leases import EXPIRY_SECONDS, InHand, Lease, hold_alone, look_at_lease
from sslticket.ticket import INITIAL_TICKET
from sslticket.training.trial import kernels_path

_LOCK = ".lock"


def is_in_hand(run: Path) -> bool:
    """Whether a process is searching in the folder of a run, or has given a sign of it a moment ago."""
    return look_at_lease(run / _LOCK) is not None


class RunDir:
    """The folder of one recipe on one set of images.

    Attributes:
        path: The folder.
        parts: The recipe's parts from files of users, with the hashes of the files.
    """

    def __init__(self, out: Path, recipe: Recipe, data_hash: str, init_hash: str = "") -> None:
        """Reads what is there and writes nothing.

        Args:
            out: Folder of all runs.
            recipe: The recipe, with the identity of its images.
            data_hash: Hash of the images that are trained on.
            init_hash: Hash of the weights that the search starts from; "" where its seed draws them, or for a plan.

        Raises:
            BadInput: If the folder holds the run of another recipe or of other data.
        """
        self.path = out / recipe.key
        self.parts = recipe.parts()
        self._lease: Lease | None = None
        self._content: dict[str, Any] = {"recipe": recipe.to_dict(), "data_hash": data_hash}
        self._content |= {"init_hash": init_hash} if init_hash else {}
        if (out / "recipe.json").exists():
            raise BadInput(f"{out} is itself the folder of a run; give its parent, --out {out.parent}")
        if out.exists() and not out.is_dir():
            raise BadInput(f"{out} is a file; give a folder with --out")
        try:
            os.fsencode(out.absolute()).decode()
        except UnicodeDecodeError:
            raise BadInput(
                f"{out} has bytes in its name that are no UTF-8, and tickets there could not be opened; give another "
                "folder with --out"
            ) from None
        there = _read_recipe_file(self.path)
        for name, value in self._content.items():
            if there is not None and there.get(name) != value:
                what = {"recipe": "recipe", "data_hash": "set of images"}.get(name, f"content of {recipe.init}")
                raise BadInput(f"{self.path} holds the run of another {what}; give another folder with --out")
        self._check_same_parts(None if there is None else there.get("parts"))

    def _check_same_parts(self, recorded: object) -> None:
        """Check that no part that the run was begun with is in another file, which is there too."""
        if not isinstance(recorded, dict):
            return
        for where, digest in self.parts.items():
            for other, begun in recorded.items() if where not in recorded else ():
                file, _, name = str(other).rpartition(":")
                # A file that was moved is the same one still.
                if name == where.rpartition(":")[2] and begun != digest and Path(file).is_file():
                    raise BadInput(
                        f"{self.path} was begun with {other}, got {where}; give another folder with --out, or another "
                        "name to one of the two"
                    )

    @contextmanager
    def locked(self, writes: bool, note: Callable[[str], object]) -> Iterator[None]:
        """Makes the folder and keeps a second writer out of it; the lock goes whenever the process ends.

        A search whose node has died is waited for, at most 75 seconds from its last sign of life.

        Args:
            writes: Whether this process writes here; the others of a distributed run only read.
            note: Shows a person what it waits for.

        Raises:
            InHand: If another process is searching in it.
        """
        if not writes:
            yield
            return
        alone = processes.separate_launch_note()
        fix = f" ({alone})" if alone else "; wait for it or give --out"
        with hold_alone(self.path / _LOCK, f"searching in {self.path}", fix, note) as self._lease:
            remove_unfinished(self.path)
            remember_parts(self.parts)
            if not (self.path / "recipe.json").exists():
                made_by = provenance.collect_provenance() | {"code": provenance.code_hash()}
                parts = {"parts": self.parts} if self.parts else {}
                write_json(self.path / "recipe.json", self._content | made_by | parts)
            try:
                yield
            finally:
                self._lease = None

    def check_still_locked(self) -> None:
        """Whether what this process found may be written; files of two searches must not be mixed.

        Raises:
            InHand: If another process has gone on with the search while this one was stopped.
        """
        if self._lease is not None and not self._lease.is_ours:
            raise InHand(
                f"another process has gone on with the search in {self.path}, of which this one gave no sign of life "
                f"for more than {EXPIRY_SECONDS:.0f} s; start the same command again when that has ended"
            )

    def changed_parts(self) -> list[str]:
        """The recipe's parts from files of users that have changed since the run began, as "<path>:<name>"."""
        recorded = read_json_or_empty(self.path / "recipe.json").get("parts")
        earlier = recorded if isinstance(recorded, dict) else {}
        return [where for where, digest in self.parts.items() if earlier.get(where, digest) != digest]

    @property
    def initial_path(self) -> Path:
        """Path of W_0, with the classification layer as it was drawn."""
        return self.path / INITIAL_TICKET

    @property
    def rewind_path(self) -> Path:
        """Path of the checkpoint at W_k."""
        return self.path / "early.safetensors"

    def continuation_path(self, level: int) -> Path:
        """Path of the network from which a level's ticket is trained, in searches that do not go back to W_k."""
        return self.path / f"carried-{level:02d}.safetensors"

    def kernels_path(self, level: int) -> Path:
        """Path of what a trial has chosen for the network of a level."""
        return kernels_path(self.path, f"search.level-{level:02d}")

    def ticket_path(self, level: int) -> Path:
        """Path of the ticket of a level."""
        return self.path / "tickets" / f"level-{level:02d}.safetensors"

    def row_path(self, level: int) -> Path:
        """Path of the row on what finding the ticket of a level cost."""
        return self.path / "rows" / f"search.level-{level:02d}.jsonl"

    def unreadable_images(self, level: int) -> dict[str, str]:
        """Images that could not be read on the way to the ticket of a level, with reasons.

        Raises:
            BadInput: If the file that lists them is damaged.
        """
        return {
            name: reason for met, found in self._read_unreadable().items() if met <= level for name, reason in found
        }

    def save_unreadable_images(self, level: int, images: Mapping[str, str]) -> None:
        """Writes them for a process that goes on from the ticket of this level; to be called before it is written."""
        earlier = {met: found for met, found in self._read_unreadable().items() if met < level}
        known = {name for found in earlier.values() for name, _ in found}
        if new := [(name, reason) for name, reason in sorted(images.items()) if name not in known]:
            by_level = {f"level-{met:02d}": dict(found) for met, found in (earlier | {level: new}).items()}
            write_json(self.path / "unreadable.json", by_level)

    def _read_unreadable(self) -> dict[int, list[tuple[str, str]]]:
        path, fix = self.path / "unreadable.json", "delete it and run the same command again"
        try:
            by_level = read_json(path, fix=fix)
        except FileNotFoundError:
            return {}
        try:
            return {int(level.removeprefix("level-")): sorted(found.items()) for level, found in by_level.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"{path} is damaged (it holds no images by level); {fix}") from error

    @property
    def diverged_path(self) -> Path:
        """Path of the row on a training of the search that diverged."""
        return self.path / "rows" / "search.diverged.jsonl"

    @property
    def magnitudes_path(self) -> Path:
        """Path of the row on the magnitudes of the dense network's weights at the end of its training."""
        return self.path / "rows" / "search.magnitudes.jsonl"


def identify_images(recipe: Recipe, identity: ImageIdentity | None, out: Path, data_hash: str) -> Recipe:
    """The recipe with the identity of its images, so that its key names a folder of these images alone.

    A run that began when recipes did not have it keeps its folder and goes on there, if it is of these images.

    Args:
        recipe: The recipe as resolved from file and flags.
        identity: What tells its images from others; None where the settings do.
        out: Folder of all runs.
        data_hash: Hash of the images that are trained on.

    Raises:
        BadInput: If the earlier run's recipe.json is damaged.
    """
    if identity is None:
        return recipe
    earlier = _read_recipe_file(out / recipe.key) or {}
    if (earlier.get("recipe"), earlier.get("data_hash")) == (recipe.to_dict(), data_hash):
        return recipe
    return replace(recipe, data=replace(recipe.data, identity=identity))


def _read_recipe_file(folder: Path) -> dict[str, Any] | None:
    path = folder / "recipe.json"
    if not path.exists():
        # A run killed at its very start leaves a folder with nothing but a lock and unfinished files.
        if folder.exists() and any(not there.name.startswith(".") for there in folder.iterdir()):
            raise BadInput(f"{folder} holds files but no recipe.json; give another folder with --out")
        return None
    fix = f"move {folder} away or give another folder with --out"
    content = read_json(path, fix=fix)
    if not isinstance(content, dict):
        raise BadInput(f"{path} is damaged (it holds no names and values); {fix}")
    return content


def resumption_differences(run_dir: RunDir, levels: Sequence[int], **now: str) -> str:
    """One line on what was found with other code, versions or numerics than now, level by level; "" for nothing.

    Args:
        run_dir: The run, as it was left.
        levels: The levels whose tickets are there.
        **now: How numbers are computed, and on which device, under the keys of rows.
    """
    here = provenance.collect_provenance() | now
    by_difference: dict[str, list[int]] = {}
    for level in levels:
        if words := provenance.provenance_differences(read_json_or_empty(run_dir.row_path(level)), here):
            by_difference.setdefault(words, []).append(level)
    differences = [f"{_format_levels(found)} with {words}" for words, found in by_difference.items()]
    began, code = read_json_or_empty(run_dir.path / "recipe.json"), provenance.code_hash()
    differences += [f"it was begun with another {where}" for where in run_dir.changed_parts()]
    # What is not committed shows in no commit.
    if not differences and began.get("code", code) != code:
        differences = [f"it was begun with other code or another recipe file (hash {began['code']}, now {code})"]
    if not differences:
        return ""
    return (
        f"this search goes on otherwise than it was left, and its rows say of each level how: {'; '.join(differences)}"
    )


def _format_levels(levels: Sequence[int]) -> str:
    first, last = levels[0], levels[-1]
    if last - first + 1 == len(levels) > 1:
        return f"levels {first} to {last}"
    return f"level{'s' if len(levels) > 1 else ''} {', '.join(map(str, levels))}"


def read_json_or_empty(path: Path) -> Mapping[str, Any]:
    """The content of a file of one JSON object; empty where there is none that can be read."""
    with suppress(OSError, ValueError):
        found = read_json(path)
        if isinstance(found, dict):
            return found
    return {}
