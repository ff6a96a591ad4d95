"""Seeds of one search share what was decoded: the first decodes, the others read."""

import os
from pathlib import Path

import pytest

from sslticket import Evaluate, Sweep, run_sweep
from sslticket.config.recipe import Data
from sslticket.config.training import SGD, TrainConfig
from tests.runs import recipe


@pytest.mark.data
@pytest.mark.slow
def test_a_second_seed_of_a_sweep_decodes_no_image(
    few_photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first seed the files hold no images any more, and the second seed finds the same set of them."""
    mine = tmp_path / "data" / "folder"
    for split in ("train", "val"):
        for file in sorted((few_photographs / split).glob("*/*")):
            copied = mine / split / file.parent.name / file.name
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(file.read_bytes())
            os.utime(copied, (0, 0))  # what has only just changed is not kept
    monkeypatch.setenv("SSLTICKET_DATA", str(mine.parent))
    training = TrainConfig(length="8it", batch_size=8, optimizer=SGD(lr=0.1))  # more than two epochs
    cell = recipe(data=Data(dataset="folder", image_size=32), training=training)
    evaluate = [Evaluate(protocols=["own"], levels="1", seeds=[0])]

    def swept(seed: int) -> "dict[str, object]":
        sweep = Sweep(recipes=[cell], seeds=[seed], settings={"levels": 1}, evaluate=evaluate)
        rows = run_sweep(sweep, out=tmp_path / f"seed{seed}")
        (score,) = rows[rows.kind == "score"].to_dict("records")
        return score

    first = swept(0)
    for file in mine.rglob("*.JPEG"):
        file.write_bytes(bytes(file.stat().st_size))
        os.utime(file, (0, 0))
    second = swept(1)
    assert (first["search_seed"], second["search_seed"]) == (0, 1)
    same = ("data_hash", "eval_hash", "bad_images")
    assert {name: second[name] for name in same} == {name: first[name] for name in same}
    assert second["bad_images"] == 0
