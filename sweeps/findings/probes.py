"""What the features of each objective's dense network are worth to a nearest-neighbour probe, beside objectives.py.

Run       sslticket sweep sweeps/findings/probes.py --out runs/probes --data-root /data --probe 200it
Cost      docs/findings.md has the core-hours that it took.
"""

from dataclasses import replace
from pathlib import Path

from sslticket.registry import load_user_file

OBJECTIVES = load_user_file(Path(__file__).with_name("objectives.py"))
sweeps = [
    replace(each, settings={**each.settings, "levels": 1}, evaluate=(), title=f"{each.title}: probes")
    for each in OBJECTIVES.sweeps
]
