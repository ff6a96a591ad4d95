"""Mutation testing on a sample: change the code in many places, one at a time, and tell which changes no test notices.

mutmut makes the changes and runs the tests that reach each of them (`[tool.mutmut]` in pyproject.toml names the modules
and the tests). There are thousands, so a sample is drawn by seed; docs/mutation.md has the last one. Usage:

    python -m tests.mutation.run --sample 200 --seed 0
"""

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTANTS = ROOT / "mutants"
LOG = MUTANTS / "mutation.log"
KILLED, SURVIVED = "killed", "survived"
_OUTCOMES = {0: SURVIVED, 33: "no tests", 34: "skipped", 37: "caught by types", None: "not run"}


def mutate(*names: str) -> None:
    """Let mutmut make all changes, and try those that are named."""
    MUTANTS.mkdir(exist_ok=True)
    with LOG.open("ab") as log:
        subprocess.run(
            [sys.executable, "-m", "mutmut", "run", "--max-children", "2", *names],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            check=False,
        )


def outcomes() -> dict[str, str]:
    """What became of each change: killed, survived, not run, or without a test."""
    found: dict[str, str] = {}
    for file in sorted(MUTANTS.rglob("*.meta")):
        codes = json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
        found |= {name: _OUTCOMES.get(code, KILLED) for name, code in codes.items()}
    return found


def module_of(mutant: str) -> str:
    return mutant.rpartition(".")[0]


def main() -> None:
    """Try a sample and print a table by module and the changes that survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", default="200", metavar="N", help="changes that are tried, or all [200]")
    parser.add_argument("--seed", type=int, default=0, help="of the sample [0]")
    given = parser.parse_args()
    if not outcomes():
        mutate("sslticket.seeds.nothing")  # makes all changes, finds the tests that reach them, and tries none
    names = sorted(outcomes())
    if not names:
        sys.exit(f"error: mutmut made no change; {LOG} says why")
    sample = (
        names if given.sample == "all" else random.Random(given.seed).sample(names, min(int(given.sample), len(names)))
    )
    left = [name for name in sample if outcomes()[name] == "not run"]
    for start in range(0, len(left), 50):
        mutate(*left[start : start + 50])
    now = outcomes()
    tried = [name for name in sample if now[name] in (KILLED, SURVIVED)]
    if not tried:
        sys.exit(f"error: no change was tried; {LOG} says why")
    total, killed = (Counter(map(module_of, some)) for some in (tried, [each for each in tried if now[each] == KILLED]))
    print(f"| module | tried, of {len(names):,} changes | killed |\n|---|---:|---:|")
    for module in sorted(total):
        print(f"| `{module}` | {total[module]} | {killed[module]} |")
    print(f"| all | {len(tried)} | {killed.total()} ({killed.total() / len(tried):.1%}) |\n")
    print("\n".join(f"{now[name]}: {name}" for name in sample if now[name] != KILLED))


if __name__ == "__main__":
    main()
