"""`python -m tests.fuzz.run [READER ...]`: damages inputs a million times, and says what became of them.

Each mutation must be refused in one line (`BadInput`), or be read as a whole and good input. Anything else, another
exception, ten seconds or a gigabyte, is told with the number that makes the mutation again, and the code is 1.
"""

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

from sslticket.errors import BadInput
from tests.fuzz.readers import READERS, Reader

CHUNK = 10_000
# Bytes of addresses beyond those that the process has when it begins. Libraries reserve some that they never use.
MEMORY = 4 << 30
USED = 1 << 20  # kilobytes that the largest mutation may have taken
SECONDS = 10
FOLDER = "/dev/shm"


class Fault(AssertionError):
    """A mutation that was neither refused in a line nor read."""


def attempt(reader: Reader, number: int, seed: int) -> str:
    """What becomes of one mutation: "refused", "equal" or "another", which is as good an input.

    Raises:
        Fault: if it is anything else.
    """
    reader.mutate(Random(f"{reader.name} {seed} {number}"))
    try:
        return "equal" if reader.read() == reader.before else reader.other
    except BadInput as error:
        if "\n" in str(error) or len(str(error)) > 20_000:
            raise Fault(f"{reader.name} {number}: an error of many lines: {str(error)[:300]!r}") from error
        return "refused"
    except Exception as error:
        raise Fault(f"{reader.name} {number}: {type(error).__name__}: {str(error)[:300]}") from error


def several(name: str, start: int, stop: int, seed: int) -> Counter[str]:
    """What becomes of the mutations of these numbers, in this process."""
    with tempfile.TemporaryDirectory(dir=FOLDER if Path(FOLDER).is_dir() else None) as folder:
        reader, found = READERS[name](Path(folder)), Counter[str]()
        signal.signal(signal.SIGALRM, _late)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(start, stop):
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                found[attempt(reader, number, seed)] += 1
            except Fault as fault:
                found[f"FAULT {fault}"] += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        if (used := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > USED:
            found[f"FAULT {name} {start} to {stop}: one of these takes {used:,} kB"] += 1
    return found


def _late(*_: object) -> None:
    raise TimeoutError(f"it takes more than {SECONDS} seconds")


def limited() -> None:
    """Let this process have no more than so much more memory than it has."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))


def main() -> int:
    """Go through the readers; what a log says is done is not done again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", default=sorted(READERS), help="names; all of them if none is given")
    parser.add_argument("--count", type=int, help="mutations of each; 1,000,000 of tickets and 100,000 of others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--log", type=Path, default=Path("fuzz.log"), help="a line for each 10,000; a run goes on there"
    )
    given = parser.parse_args()
    lines = given.log.read_text().splitlines() if given.log.exists() else []
    faults = 0
    with given.log.open("a") as log:
        for name in given.readers:
            count = given.count or (1_000_000 if name == "ticket" else 100_000)
            chunks = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
            known = [json.loads(line) for line in lines]
            past = {
                (each["start"], each["stop"]): each
                for each in known
                if (each["reader"], each["seed"]) == (name, given.seed) and (each["start"], each["stop"]) in chunks
            }
            left = [chunk for chunk in chunks if chunk not in past]
            done = list(past.values())
            with ProcessPoolExecutor(given.processes, initializer=limited) as pool:
                futures = [pool.submit(_timed, name, *chunk, given.seed) for chunk in left]
                for future in futures:
                    done.append(future.result())
                    log.write(json.dumps(done[-1]) + "\n")
                    log.flush()
            total = sum((Counter(each["found"]) for each in done), Counter[str]())
            seconds = sum(each["seconds"] for each in done) / count * 100_000
            told = ", ".join(
                f"{what} {times:,}" for what, times in sorted(total.items()) if not what.startswith("FAULT")
            )
            print(f"{name}: {count:,} mutations, {told}; {seconds:.0f} seconds per 100,000", flush=True)
            for what in [what for what in total if what.startswith("FAULT")][:20]:
                faults += 1
                print(f"  {what}", flush=True)
    return min(faults, 1)


def _timed(name: str, start: int, stop: int, seed: int) -> dict[str, object]:
    began = time.process_time()
    found = several(name, start, stop, seed)
    seconds = round(time.process_time() - began, 1)
    return {"reader": name, "seed": seed, "start": start, "stop": stop, "found": found, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
