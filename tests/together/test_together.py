"""Two and three processes that do everything there is: they stay alike, and find what one process finds."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sslticket.config.runtime import RuntimeConfig
from tests.together.many import ALL, SAME, found, searched

ROOT = Path(__file__).parents[2]
# Alone on two cores the launches take 35 and 55 seconds; on a busy machine many times that.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Launched(NamedTuple):
    """A launch of `many.py`: how many processes, their folder, and what each told."""

    count: int
    folder: Path
    told: list[dict[str, Any]]


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module", params=[2, 3], ids=["two", "three"])
def launched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("launched")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(request.param)),
            *("--master-port", str(free_port()), "tests/together/many.py", str(folder)),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SSLTICKET_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(request.param)]
    return Launched(request.param, folder, told)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for name, which in SAME.items():
        searched(which, folder / name, RuntimeConfig())
    return folder


def test_every_process_holds_the_masks_and_weights_of_the_first(launched: Launched) -> None:
    first, *others = launched.told
    assert set(first["held"]) == set(ALL)
    assert all(len(held) >= 2 for held in first["held"].values())
    for other in others:
        assert other["held"] == first["held"]


def test_every_process_tells_the_rows_of_the_first(launched: Launched) -> None:
    """Each takes its own time, and shares all that is measured."""
    rows = [[{**row, "seconds": 0.0} for row in told["rows"]] for told in launched.told]
    kinds = [row["kind"] for row in rows[0]]
    assert kinds == ["score"] * 8 + ["stability", "connectivity", "magnitudes"]
    assert all(own == rows[0] for own in rows)


def test_a_search_in_other_hands_is_refused_in_every_process(launched: Launched) -> None:
    """Else the others would begin it while the first one goes on, in a campaign, to the next."""
    first, *others = [told["refused"] for told in launched.told]
    assert first.startswith("another process is searching in ")
    assert all(each == first for each in others)


def test_without_batch_norm_they_find_the_tickets_of_one_process(launched: Launched, alone: Path) -> None:
    """Sums are taken in another order, so a weight at the edge of a mask may fall on the other side."""
    for name in SAME:
        (ours,) = (alone / name).iterdir()
        theirs = launched.folder / "runs" / name / ours.name
        pairs = list(zip(found(ours), found(theirs), strict=True))
        assert len(pairs) >= 2, name
        for one, many in pairs:
            differ = sum(int((one.mask[layer] ^ many.mask[layer]).sum()) for layer in one.mask)
            assert differ <= 0.002 * one.mask.total, name
            for weight, value in one.weights.items():
                both = (one.mask[weight] & many.mask[weight]) if weight in one.mask else ...
                assert (value[both] - many.weights[weight][both]).abs().max() < 1e-4, name


def test_in_a_step_only_gradients_statistics_and_what_an_objective_gathers_go_around(launched: Launched) -> None:
    """All the gradients of these small networks go at once, and each of three layers shares its statistics.

    Nothing is broadcast: no mask, no running statistic. MoCo's key encoder shares statistics too; keys are gathered.
    """
    steps, layers = 8, 3
    for told in launched.told:
        sums = {"steps": steps, "gloo:all_reduce": (1 + layers) * steps}
        assert told["counts"]["rotnet"] == {**sums, "gloo:all_gather": layers * steps}
        assert told["counts"]["mocov2"] == {**sums, "gloo:all_gather": (2 * layers + 1) * steps}
