"""What an installation from the clone looks like from the folder that holds the clone."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = "import sys, setuptools.build_meta as backend; backend.{hook}(sys.argv[1])"
# Libraries come last and without their .pth files: the interpreter's own installation of the package is one of those.
SITE = (
    "import site, sys, sysconfig; site.addsitedir(sys.argv[1]);"
    f"sys.path += [sysconfig.get_paths()['purelib'], *{[path for path in sys.path if 'site-packages' in path]}];"
)
USE = SITE + "from sslticket import BadInput, __file__; print(__file__)"
DRY_RUN = SITE + "from sslticket.cli.commands import run_command; run_command(sys.argv[2:])"


def run(folder: Path, *words: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("hook", ["build_editable", "build_wheel"])
def test_the_folder_that_holds_the_clone_does_not_hide_the_package(tmp_path: Path, hook: str) -> None:
    setuptools = pytest.importorskip("setuptools", minversion="77")
    assert setuptools.__file__
    clone, site = tmp_path / "sslticket", tmp_path / "site"
    clone.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    for name in ("sslticket", "recipes"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "benchmarks").mkdir()
    (clone / "benchmarks" / "other.py").touch()
    run(clone, "-c", BUILD.format(hook=hook), str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    assert not (site / "benchmarks").exists()
    # Without -S the interpreter's own installation of the package, if there is one, would be asked first.
    found = run(tmp_path, "-S", "-c", USE, str(site))
    home = clone if hook == "build_editable" else site
    assert Path(found) == home / "sslticket" / "__init__.py"
    if hook == "build_wheel":
        assert (site / "sslticket" / "py.typed").exists()
        words = f"run stabilizing_lenet300_mnist --dataset digits --image-size 8 --out {tmp_path / 'runs'} --dry-run"
        shown = run(tmp_path, "-S", "-c", DRY_RUN, str(site), *words.split())
        assert "run folder" in shown
        assert str(ROOT) not in shown


def test_both_containers_run_the_script_that_knows_each_extra() -> None:
    script = (ROOT / "containers" / "install.sh").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {"cpu", "cuda12", "cuda13"} <= set(extras)
    assert all(f"{extra})" in script for extra in ("cpu", "cuda12"))  # cuda13's index is PyPI
    docker = (ROOT / "containers" / "Dockerfile").read_text(encoding="utf-8")
    apptainer = (ROOT / "containers" / "sslticket.def").read_text(encoding="utf-8")
    assert [line for line in docker.splitlines() if line.startswith("RUN ")] == [
        'RUN sh /src/containers/install.sh /src "$EXTRA"'
    ]
    steps = apptainer.partition("%post\n")[2].partition("\n\n")[0].split("\n")
    assert [step.strip() for step in steps] == ['sh /src/containers/install.sh /src "{{ EXTRA }}"']


def test_metadata_keeps_dali_out_of_what_everybody_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not [each for each in project["dependencies"] if "dali" in each]
    assert project["optional-dependencies"]["cpu"] == []
