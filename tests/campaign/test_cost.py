"""What cells of a sweep come to before any ticket is there, against the plans of tickets that are."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sslticket.analysis.base import AnalysisPlan
from sslticket.analysis.endpoints import make_analysis_tasks
from sslticket.analysis.trained_weights import Stability
from sslticket.campaign import cost
from sslticket.campaign.state import CampaignFolder
from sslticket.campaign.sweep import Analyse, Cell, Evaluate, Sweep, expand, load_sweeps
from sslticket.cli.commands import run_command
from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.evaluation.jobs import EvaluationPlan
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import Levels, find_ticket_files, make_tasks
from sslticket.objectives.rotnet import RotNet
from sslticket.results.throughput import CostEstimate, Speed, Throughput, work_cost
from sslticket.search.estimate import SearchWork
from sslticket.training.numerics import Numerics
from tests.runs import recipe, search

EXACT = Numerics(precision="fp32")


def estimate_cells(cells: Sequence[Cell], searched: Collection[str] = (), **known: Any) -> CostEstimate:
    return cost.estimate_cells(cells, searched=searched, **known).total(searched)


FLOWERS = Protocol(name="flowers", dataset="folder:flowers", training=recipe().training, image_size=8, seeds=(0,))


def cells_of(recipes: Sequence[Recipe], *measured: Evaluate | Analyse) -> list[Cell]:
    evaluate = tuple(each for each in measured if isinstance(each, Evaluate))
    analyse = tuple(each for each in measured if isinstance(each, Analyse))
    return [
        Cell(recipe=which, name=str(number), number=number, evaluate=evaluate, analyse=analyse)
        for number, which in enumerate(recipes)
    ]


@pytest.fixture(scope="module")
def recipes() -> list[Recipe]:
    return [recipe(), recipe(RotNet()), recipe(seed=1)]


@pytest.fixture(scope="module")
def runs(recipes: list[Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    for which in recipes:
        search(out, which)
    return out


@pytest.mark.parametrize(
    ("protocols", "controls", "heads"),
    [
        (("digits-demo",), ("random", "local", "reset"), None),
        (("own@k", "digits-demo"), ("adjusted", "permuted"), None),
        (("digits-demo",), ("random",), ("new",)),
    ],
)
def test_an_evaluation_is_counted_as_its_plan_of_real_tickets_counts_it(
    protocols: Sequence[str], controls: Sequence[str], heads: Sequence[str] | None, runs: Path, recipes: list[Recipe]
) -> None:
    paths = find_ticket_files([runs], Levels((0, 1, 3)))
    tasks = make_tasks(paths, controls, protocols, (0, 1), heads)  # type: ignore[arg-type]
    works = [job.workload for job in EvaluationPlan.build(tasks, None, EXACT).jobs()]
    known = Throughput([], "none", lambda name: 8)
    there = work_cost(works, known)
    evaluate = Evaluate(protocols=protocols, controls=controls, levels="0-1 3", seeds=(0, 1), heads=heads)  # type: ignore[arg-type]
    searches = estimate_cells(cells_of(recipes), throughput=known)
    planned = estimate_cells(cells_of(recipes, evaluate), throughput=known)
    assert searches.trainings == 9
    assert planned.trainings - searches.trainings == there.trainings
    assert planned.steps - searches.steps == there.steps
    assert planned.samples - searches.samples == there.samples
    assert planned.seconds is None


def test_searches_that_are_done_are_not_counted_again_and_their_measurements_are(recipes: list[Recipe]) -> None:
    evaluate = Evaluate(protocols=["digits-demo"], controls=["random"], levels="0-1 3", seeds=(0, 1))
    cells, known = cells_of(recipes, evaluate), Throughput([], "none", lambda name: 8)
    whole, first = estimate_cells(cells, throughput=known), estimate_cells(cells_of(recipes[:1]), throughput=known)
    left = estimate_cells(cells, throughput=known, searched={cells[0].key})
    assert (whole.trainings - left.trainings, whole.steps - left.steps) == (first.trainings, first.steps)
    bare = cells_of(recipes)
    assert estimate_cells(bare, throughput=known, searched=[cell.key for cell in bare]).trainings == 0


def test_the_plan_of_a_campaign_that_goes_on_says_what_its_cost_is_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.toml").write_text('recipes = ["supervised_digits"]\nseeds = [0, 1]')
    cells, folder = expand(load_sweeps(tmp_path / "two.toml")), CampaignFolder(tmp_path / "out")
    folder.begin(cells, "two", retry=False)
    ticket = tmp_path / "out" / "a-run" / "tickets" / "level-00.safetensors"
    ticket.parent.mkdir(parents=True)
    ticket.touch()
    folder.write_cell(cells[0].key, "a-run", (0,), done=True)
    run_command(["sweep", str(tmp_path / "two.toml"), "--out", str(tmp_path / "out"), "--dry-run"])
    told = capsys.readouterr().out
    assert "2 searches in" in told
    assert "1 of them done\n" in told
    assert "counted: 1 of 2 searches, those not done, each whole\n" in told
    assert "6 trainings of 200it = 1,050 steps\n" in told


def test_an_analysis_is_counted_as_its_plan_of_real_tickets_counts_it(runs: Path, recipes: list[Recipe]) -> None:
    paths = find_ticket_files([runs], Levels((1, 2)))
    tasks = make_analysis_tasks(paths, ["local"], ["digits-demo@k"], (0,))
    plan = AnalysisPlan.build(Stability(), tasks, None, EXACT)
    there = [job.workload for job in plan.jobs() if job.workload is not None]
    asked = Analyse(analysis="stability", protocols=("digits-demo@k",), controls=("local",), levels="1-2", seeds=(0,))
    known = Throughput([], "none", lambda name: 8)
    planned = estimate_cells(cells_of(recipes, asked), throughput=known)
    assert planned.trainings == 9 + len(there)
    assert planned.samples == estimate_cells(cells_of(recipes)).samples + sum(work.samples for work in there)


def test_the_main_job_of_the_readme_is_120_trainings_of_90_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("images were looked for")

    monkeypatch.setattr("sslticket.data.source.open_split", refuse)
    monkeypatch.setattr("sslticket.data.datasets.locate.find_local_dataset", refuse)
    evaluate = Evaluate(protocols=["imagenet"], controls=["random"], seeds=[0])
    main = Sweep(recipes=["rotnet_resnet50", "supervised_resnet50"], settings={"subset": 0.1}, evaluate=[evaluate])
    found = estimate_cells(expand(main), device="NVIDIA A100")
    # 30 levels twice; of 15 levels tickets by RotNet, by labels with both heads, and the random ones of both together.
    assert found.trainings == 60 + 15 * 4 == 120
    assert found.lengths == (("90ep", 120),)
    assert found.gpu_hours is not None
    assert dict(found.lines())["trainings"].startswith("120 trainings of 90ep = about ")
    # Six searches of each share nothing with one another.
    assert estimate_cells(expand(replace(main, seeds=range(6)))).trainings == 6 * 120


def test_hours_are_the_steps_at_the_measured_speed_and_what_is_beside_them(recipes: list[Recipe]) -> None:
    speeds = [
        Speed(device="d", model="conv3", objective=each, image_size=8, numerics="fp32", images_per_second=rate)
        for each, rate in (("supervised", 100.0), ("rotnet", 10.0))
    ]
    speeds = [replace(each, measured_per_second=359.0, training_seconds=2.0, command_seconds=3.0) for each in speeds]
    known = Throughput([], "d", lambda name: 8, tables=[speeds])
    found = estimate_cells(cells_of(recipes[:2]), throughput=known)
    samples = (2 + 3 * 4) * 32
    # Each search starts once, has four tickets, and too short trainings to be measured after.
    assert found.seconds == pytest.approx(samples / 100 + samples / 10 + 2 * (4 * 2 + 3))
    assert found.gpu_hours == pytest.approx((found.seconds or 0) / 3600)


def test_costs_add_up_and_an_unknown_speed_stays_unknown() -> None:
    one = CostEstimate(trainings=2, steps=20, seconds=10.0, lengths=(("9ep", 2),), memory_bytes=5, speed_source="here")
    other = CostEstimate(trainings=1, steps=5, seconds=None, lengths=(("9ep", 1),), memory_bytes=7, unknown=("vgg19",))
    both = one + other
    assert (both.trainings, both.steps, both.seconds, both.memory_bytes) == (3, 25, None, 7)
    assert both.describe_trainings() == "3 trainings of 9ep"
    assert both.summary() == (
        "3 trainings of 9ep, 25 steps, unknown: no speed of vgg19 was measured on this device; give --probe-speed"
    )
    assert one.times(3) == one + one + one
    assert replace(one, devices=8).summary() == "2 trainings of 9ep, 20 steps, about 10 s (here) on 8 devices"


def test_images_that_nobody_counts_are_named_and_the_others_are_counted(recipes: list[Recipe]) -> None:
    own = replace(recipes[0], data=replace(recipes[0].data, dataset="folder:flowers"))
    known = Throughput([], "none", lambda name: 8)
    found = estimate_cells(cells_of([recipes[0], own]), throughput=known)
    assert replace(found, uncounted=()) == estimate_cells(cells_of(recipes[:1]), throughput=known)
    assert dict(found.lines())["not counted"] == "1 (nobody publishes how many images)"
    alone = estimate_cells(cells_of([own]), throughput=known)
    assert alone.lines() == [("not counted", "0 (nobody publishes how many images)")]


def test_images_of_ones_own_that_are_here_are_counted_from_their_list(recipes: list[Recipe], tmp_path: Path) -> None:
    for number, count in enumerate((40, 10)):
        (folder := tmp_path / "flowers" / f"class-{number}").mkdir(parents=True)
        for image in range(count):
            (folder / f"{image}.png").touch()
    known, here = Throughput([], "none", lambda name: 8), RuntimeConfig(data_root=tmp_path)
    own = replace(recipes[0], data=replace(recipes[0].data, dataset="folder:flowers"))
    evaluate = Evaluate(protocols=[f"{__file__}:FLOWERS"], levels="0-1")
    found = estimate_cells(cells_of([own], evaluate), throughput=known, runtime=here)
    # A fifth of each class is set aside.
    assert (found.uncounted, SearchWork.of_recipe(own, here).images) == ((), 40)
    assert found.trainings == 3 + 2
    assert estimate_cells(cells_of([own], evaluate), throughput=known).uncounted


@pytest.mark.parametrize("before", [[], ["--launch", "print"], ["--dry-run"]], ids=str)
def test_a_cell_that_cannot_be_is_named_before_anything_starts(tmp_path: Path, before: list[str]) -> None:
    (tmp_path / "two.toml").write_text('recipes = ["supervised_digits"]\npoints = [{}, {model = "vgg19"}]')
    with pytest.raises(
        BadInput, match=r"^supervised_digits, model vgg19, seed 0: images for vgg19 must have at least 16"
    ):
        run_command(["sweep", str(tmp_path / "two.toml"), "--out", str(tmp_path / "out"), *before])
    assert [path.name for path in tmp_path.iterdir()] == ["two.toml"]
