"""Build the wheel, install it in an empty environment, and use it: `python tests/packaging/try_wheel.py --bounds lowest`.

    --bounds lowest|newest     every dependency at the lower bound of pyproject.toml, or as new as pip finds it
    --python python3.12        another interpreter for the environment
    --torch WORD               what pip is given for torch, such as torch==2.13.0+cpu (default: torch at its bound);
                               none: without torch, and then only what needs none is tried

The tests do not call this script: it downloads packages. Nothing of the clone is imported; the environment is removed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ALWAYS = """
from pathlib import Path
from importlib import metadata
import sns_core, sns_core.comparison
assert "site-packages" in sns_core.__file__, sns_core.__file__
print("sns_core", sns_core.__version__, {name: metadata.version(name) for name in NAMES})
text = sns_core.comparison.compare(GALLERY, GALLERY, output=Path("page.html"))
assert "0 settings differ" in text and Path("page.html").stat().st_size > 10_000
"""
WITH_TORCH = """
emulator = sns_core.load(GALLERY, method="sns")
rollout = emulator.rollout(emulator.initial_state(members=2), steps=4)
print(rollout.sizes)
rollout.to_netcdf("rollout.nc", engine="netcdf4")
"""


def requirements(extra: str = "movie") -> list[Requirement]:
    """Return the dependencies of the package with one extra, as pyproject.toml states them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in [*project["dependencies"], *project["optional-dependencies"][extra]]]


def lowest(requirement: Requirement) -> str:
    """Return a requirement at its lower bound: numpy>=1.26 becomes numpy==1.26.*, and av>=14 becomes av==14.*."""
    (bound,) = [each.version for each in requirement.specifier if each.operator == ">="]
    return f"{requirement.name}=={bound}.*"


def copy_sources(folder: Path) -> None:
    """Copy what the wheel is built from, since setuptools leaves its work in the folder from which it builds."""
    for name in ("sns_core", "sns_workflow", "workflow"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)


def main() -> int:
    """Build, install, use. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bounds", choices=("lowest", "newest"), default="newest")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--torch", default="")
    arguments = parser.parse_args()
    wanted = {each.name: lowest(each) if arguments.bounds == "lowest" else each.name for each in requirements()}
    wanted["torch"] = arguments.torch or wanted["torch"]
    if arguments.torch == "none":
        del wanted["torch"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        python, source = f"{folder}/venv/bin/python", Path(folder, "source")
        copy_sources(source)
        code = ALWAYS + (WITH_TORCH if "torch" in wanted else "")
        code = f"NAMES = {list(wanted)}\nGALLERY = __import__('pathlib').Path({str(ROOT / 'gallery/re1e4')!r})\n{code}"
        for words in (
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(source)],
            [arguments.python, "-m", "venv", f"{folder}/venv"],
            [python, "-m", "pip", "install", "--quiet", "--prefer-binary", *wanted.values()],
            [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--find-links", folder, "sns-core"],
            [python, "-m", "sns_core", "--help"],
            [python, "-c", code],
        ):
            if subprocess.run(words, cwd=folder, env=environment).returncode:
                print("failed:", " ".join(words)[:300], file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
