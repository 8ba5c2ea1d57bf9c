"""No test runs the benchmarks. The names that they import exist, and the straightforward rollout is the same method."""

import ast
import importlib
from pathlib import Path

import pytest

from sns_core.data.emulation import Emulation
from sns_core.methods.build import build_method
from sns_core.streams import MemberStreams
from sns_core.training import load_model

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
