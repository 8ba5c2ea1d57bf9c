"""No test times anything. The names that benchmarks import exist, the straightforward rollout is the same method, and the
measurements on a GPU run from end to end on a CPU."""

import ast
import importlib
import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from sns_core.data.emulation import Emulation
from sns_core.methods.build import build_method
from sns_core.streams import MemberStreams
from sns_core.training import load_model
from sns_workflow import configuration

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def imported_names(path: Path) -> list[tuple[str, str | None]]:
    """Return (module, name) of each import of the project's packages and scripts. `import module` has the name None."""
    roots = {"sns_core", "sns_workflow", *(script.stem for script in SCRIPTS)}
    pairs = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            pairs += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            pairs += [(alias.name, None) for alias in node.names]
    return [(module, name) for module, name in pairs if module.partition(".")[0] in roots]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_name_that_a_benchmark_imports_exists(path, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    for module, name in imported_names(path):
        source = importlib.import_module(module)
        if name is not None and not hasattr(source, name):
            importlib.import_module(f"{module}.{name}")


def test_the_straightforward_rollout_makes_the_same_step(tiny, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    worker = importlib.import_module("worker")
    options = {
        "kind": "refinement", "path": "diagonal", "readout": {"kind": "mean"}, "sampler": {"eta": 0.0, "clip": 8.0}, "stride": 4,
        "shared_level": True, "max_level": 4, "renoise": False, "gain": [1.8, 1.0],
    }  # fmt: skip
    emulation, streams = Emulation.read(tiny.manifest), MemberStreams(0, "test", members=range(3))
    method = build_method(options, {role: tiny.models[role] for role in ("surrogate", "denoiser")}, emulation)
    start = method.start(emulation.build_system().initial_state(3, streams.at(0)))
    carry, record = method.step(start, streams.at(1))  # the step draws no random numbers: it is in place, and eta is 0
    models = load_model(tiny.models["surrogate"], "pointwise"), load_model(tiny.models["denoiser"], "denoiser")
    frame = worker.plain_rollout(method, *models).step(start["frame"], start["frame"])
    assert record.calls.sum() > 0
    change, difference = carry["frame"] - method.surrogate(start["frame"]), carry["frame"] - frame
    # The two differ: the package denoises the pair as encoded, the straightforward code the pair scaled to its level.
    assert difference.std() < 0.1 * change.std()


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("gpu")


@pytest.mark.parametrize("scale", ["workstation", "paper"])
def test_the_networks_on_a_gpu_are_those_of_the_configuration(gpu, root, config, scale):
    models = configuration.resolve(
        configuration.merge(config, yaml.safe_load((root / f"config/{scale}.yaml").read_text())), "kolmogorov"
    )["models"]
    for name, network in gpu.NETWORKS[scale].items():
        assert network == models[name]["network"] and gpu.BATCHES[name] == models[name]["training"]["batch"]


@pytest.mark.parametrize("part", ["equality", "solvers", "networks", "rollouts", "training"])
def test_a_part_of_the_measurements_on_a_gpu_runs_on_a_cpu(gpu, part):
    lines = "\n".join(gpu.PARTS[part](torch.device("cpu"), gpu.SIZES["tiny"])).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert lines[0].startswith("## ") and len(table) > 3 and len({line.count("|") for line in table}) == 1
    if part == "equality":
        assert all(line.endswith("| holds |") for line in table[2:])


BARE = ("netCDF4", "cftime", "dask", "distributed", "snakemake", "jsonschema", "yaml", "jinja2", "av", "pytest")


@pytest.mark.slow
def test_the_script_for_a_gpu_needs_no_more_than_a_bare_machine_has(root, tmp_path):
    """Modules that a bare machine lacks cannot be imported. A part past its limit is stopped; the others go on."""
    for name in BARE:
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    settings = {"DEVICE": "cpu", "SIZES": "tiny", "PYTHONPATH": str(tmp_path), "SECONDS_networks": "0.1"}
    words = [root / "benchmarks/gpu.sh", tmp_path / "results", "networks", "solvers"]
    done = subprocess.run(words, env={**os.environ, **settings}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (page,) = (tmp_path / "results").glob("gpu_*.md")
    text = page.read_text()
    assert "Stopped after its limit of 0.1 seconds." in text and "| KolmogorovFlow | 32 | 2 |" in text


def test_the_seconds_of_a_student_count_those_of_its_teacher(monkeypatch, root, config):
    """Each network is built as the workflow builds it, and trains; the seconds themselves are not looked at."""
    monkeypatch.syspath_prepend(FOLDER)
    training = importlib.import_module("rivals_training")
    for overlay in ("rivals", "smoke"):
        configuration.merge(config, yaml.safe_load((root / f"config/{overlay}.yaml").read_text()))
    config["use"]["methods"] = ["solver", "distilled_generation_1"]
    resolved = configuration.read(config).systems["kolmogorov"]
    names = ["distilled_generation_1", "sns_residual"]
    trainers = training.trainers_of(resolved["models"], names, resolved["system"], 16, frames=20)
    assert list(trainers)[-1] == "distilled_generation_1", "after its teacher"
    taken = training.seconds_per_step(trainers, 1)
    assert all(seconds > 0 for seconds in taken.values()) and all(trainer.step == 8 for trainer in trainers.values())
    rows = training.table(resolved["models"], {"distilled_generation_1": 0.5, "sns_residual": 0.25})
    assert "| `distilled_generation_1` | 2,000 | 0.500 | 1000 | 1010 |" in rows
