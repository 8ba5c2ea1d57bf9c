"""The code imports what pyproject.toml states, the lock keeps its bounds, and the wheel holds every file."""

import ast
import fnmatch
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import sns_core

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = {
    "yaml": "pyyaml",
    "dask_jobqueue": "dask-jobqueue",
    "PIL": "matplotlib",
    "markupsafe": "jinja2",
    "cftime": "netcdf4",
    "mlflow": "mlflow-skinny",
}


def requirements(*extras: str) -> dict[str, Requirement]:
    """Return the dependencies with those of some extras, by their names in small letters."""
    lines = [*PROJECT["project"]["dependencies"]]
    for extra in extras:
        lines += PROJECT["project"]["optional-dependencies"][extra]
    return {each.name.lower(): each for each in map(Requirement, lines)}


def imported(folder: str, everywhere: bool) -> set[str]:
    """Return the names of other packages that the modules of a folder import, also inside functions if `everywhere`."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree) if everywhere else tree.body:
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"sns_core", "sns_workflow"}


@pytest.mark.parametrize(
    ("folder", "everywhere", "extras"),
    [
        ("sns_core", False, ["movie"]),
        ("sns_core", True, ["movie", "workflow", "cluster", "zarr", "well", "loggers"]),
        ("sns_workflow", True, ["workflow"]),
    ],
)
def test_every_import_is_a_dependency(folder, everywhere, extras):
    names = {MODULES.get(name, name).lower() for name in imported(folder, everywhere)}
    assert names <= set(requirements(*extras)), names - set(requirements(*extras))


def test_the_environment_of_conda_has_what_jobs_need_within_the_same_bounds():
    names = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
    dependencies = yaml.safe_load((ROOT / "envs" / "sns.yaml").read_text())["dependencies"]
    bounds = dict(text.split(" ", 1) for text in dependencies if not text.startswith("python "))
    needed = requirements("movie") | {name: requirements("cluster")[name] for name in ("distributed", "dask-jobqueue")}
    needed = {name: sorted(str(each.specifier).split(",")) for name, each in needed.items()}
    assert {names.get(name, name): sorted(bound.split(",")) for name, bound in bounds.items()} == needed


def test_the_lock_keeps_the_bounds():
    lock = (ROOT / "envs" / "requirements-cpu.txt").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==([\w.+]+)", lock, re.M))
    pins = {name.lower(): Version(version.partition("+")[0]) for name, version in pins.items()}
    for name, requirement in requirements("movie", "workflow", "cluster", "dev").items():
        if name != "sns-core":
            assert requirement.specifier.contains(pins[name]), f"{requirement} and {pins[name]}"


@pytest.mark.parametrize("package", ["sns_core", "sns_workflow"])
def test_the_wheel_holds_every_file_that_the_code_reads(package):
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for path in (ROOT / package).rglob("*"):
        if path.is_file() and path.suffix != ".py" and path.parent.name != "__pycache__":
            patterns = data.get(".".join(path.parent.relative_to(ROOT).parts), [])
            assert any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns), path


def test_citation_and_codemeta_have_the_version_the_licence_and_the_dependencies():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    codemeta = json.loads((ROOT / "codemeta.json").read_text())
    assert citation["version"] == codemeta["version"] == sns_core.__version__
    assert codemeta["license"].rpartition("/")[2] == citation["license"] == PROJECT["project"]["license"]
    assert codemeta["name"] == citation["title"]
    assert [name.lower() for name in codemeta["softwareRequirements"]] == list(requirements())
