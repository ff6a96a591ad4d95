"""Words of other tools are answered with what to type here."""

import re

import pytest

from sslticket.cli import commands, inspect_commands, ticket_commands
from sslticket.cli import recipe_commands as command
from sslticket.config import flags
from sslticket.errors import BadInput
from tests.recipes import RECIPES, load

LAUNCHERS = {"--num_processes", "--gpu_ids", "--nproc-per-node"}


def known(*words: str) -> set[str]:
    """The flags of a command of `sslticket`."""
    parser = flags.Parser(prog="sslticket")
    subparsers = parser.add_subparsers()
    for add in (
        ticket_commands.add_evaluate,
        inspect_commands.add_watch,
        commands._add_data,
        commands._add_show,
        commands._add_report,
    ):
        add(subparsers)
    return set(flags._addressed_parser(parser, words)._option_string_actions)


@pytest.fixture(scope="module")
def of_recipes() -> dict[str, set[str]]:
    return {name: set(command._recipe_parser(load(name))._option_string_actions) for name in RECIPES}


def test_every_hint_names_flags_that_there_are(of_recipes: dict[str, set[str]]) -> None:
    ever = set.union(*of_recipes.values())
    for text in set(flags.flag_hints().values()):
        assert flags.flags_in_hint(text) <= ever, text
        for quoted in re.findall(r"`([^`]*)`", text):
            told = set(re.findall(r"--[a-z_-]+", quoted))
            if quoted.startswith("sslticket "):
                assert told <= known(*quoted.split()[1:]), quoted
            else:
                assert told <= LAUNCHERS, quoted


def test_no_word_of_others_is_a_flag_of_every_recipe(of_recipes: dict[str, set[str]]) -> None:
    always = set.intersection(*of_recipes.values())
    assert [word for word in flags.flag_hints() if f"--{word}" in always] == []


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("--epochs", "--length 90ep"),
        ("--max_epochs=90", "--length 90ep"),
        ("--trainer.max_epochs", "--length 90ep"),
        ("--resume", "type the same command again, with the same --out"),
        ("--no-resume", "type the same command again"),
        ("--workers", "--threads"),
        ("--num_workers", "--threads"),
        ("-j", "--threads"),
        ("--optim", "--optimizer SGD, Adam, AdamW, RMSprop or LARS"),
        ("--learning-rate", "--lr 0.1"),
        ("--learningRate", "--lr 0.1"),
        ("--device", "accelerate launch --num_processes"),
        ("--local_rank=0", "torchrun --nproc-per-node"),
        ("--wandb", "--log wandb"),
        ("--config", "a recipe is a Python file"),
        ("--data-dir", "--data-root DIR"),
        ("--output_dir", "--out DIR"),
        ("--arch", "--model resnet50"),
        ("-a", "--model resnet50"),
        ("--batch", "--batch-size 256"),
        ("-b", "--batch-size 256"),
        ("--batch_size", "it is written --batch-size"),
        ("--batchSize", "it is written --batch-size"),
        ("--optimizer.lr", "it is written --lr"),
        ("-lr", "it is written --lr"),
        ("--LR", "it is written --lr"),
        ("--wd", "--weight-decay 1e-4"),
        ("--sparsity", "--rate 0.2 --levels 10"),
        ("--rewinding_steps", "--rewind 3ep"),
        ("--rewind-epoch", "--rewind 3ep"),
        ("--amp", "--precision"),
        ("--checkpoint", "the same command again"),
        ("--pretrained", "--init pretrained starts a search"),
        ("--seeds", "one --seed"),
        ("--replicate", "one --seed"),
        ("--lr-milestones", "--drops 50ep"),
        ("--print-freq", "sslticket watch runs"),
        ("--evaluate", "sslticket evaluate runs/KEY --protocol NAME"),
        ("--label-smoothing", "the papers train without it"),
        ("--patience", "--early-bird"),
        ("--report-to", "--log wandb"),
        ("--subst", "did you mean --subset"),
    ],
)
def test_a_word_of_another_tool_is_answered(typed: str, wanted: str, of_recipes: dict[str, set[str]]) -> None:
    told = str(flags.unknown_flag_error(typed, of_recipes["rotnet_resnet50"]))
    assert told.startswith(f"unknown flag '{typed.split('=')[0]}'; ")
    assert wanted in told
    assert "\n" not in told


def test_a_word_of_another_tool_without_dashes_is_answered_too(of_recipes: dict[str, set[str]]) -> None:
    assert "--length 90ep" in flags.unexpected_word_hint("trainer.max_epochs=2", of_recipes["rotnet_resnet50"])
    assert flags.unexpected_word_hint("nothing.known=2", of_recipes["rotnet_resnet50"]) == ""


def test_levels_at_a_rate_end_where_the_hint_says() -> None:
    assert "a density of 10.7%" in flags.flag_hints()["sparsity"]
    assert pytest.approx(0.107, abs=5e-4) == 0.8**10


def test_a_hint_about_flags_that_a_recipe_has_not_is_not_given(of_recipes: dict[str, set[str]]) -> None:
    adam = of_recipes["rotnet_digits"]
    assert "--momentum" not in adam
    assert "where the recipe trains with SGD" not in str(flags.unknown_flag_error("--momentum", adam))
    assert "--betas 0.9 0.999" in str(flags.unknown_flag_error("--beta1", adam))


@pytest.mark.parametrize("word", ["--lr", "--epochs", "--batch_size", "--optimizer"])
def test_settings_of_a_protocol_are_answered_with_the_protocols(word: str) -> None:
    told = str(flags.unknown_flag_error(word, known("evaluate")))
    assert "a protocol's own settings are no flags: --protocol chooses one" in told


def test_a_command_is_answered_with_its_own_flags() -> None:
    for words, wanted in (
        (["report", "runs", "--output-dir", "x"], "did you mean --output"),
        (["evaluate", "runs", "--protocol", "cifar10", "--seed", "3"], "did you mean --seeds"),
        (["evaluate", "runs", "--protocol", "cifar10", "--resume"], "the same command again"),
        (["watch", "runs", "--gpu", "0"], "unknown flag '--gpu'; "),
    ):
        with pytest.raises(BadInput) as raised:
            commands.run_command(words)
        assert wanted in str(raised.value)
