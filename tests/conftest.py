"""Settings of all tests: paths, one thread, the mark `slow`, and the order in which several workers take the files."""

import copy
import inspect
import signal
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
torch.set_num_threads(1)
# A shell ignores SIGINT in what it starts in the background, and so would the calls that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A test is slow if it uses one of these fixtures, which train networks, run the workflow, or start a cluster or a
# browser. It is also slow if its module imports a helper that runs the workflow. Other slow tests carry the mark.
SLOW_FIXTURES = {"tiny", "finished", "cluster", "browser"}
SLOW_HELPERS = {"snakemake_calls", "warm_python"}
# Files that take more than half a minute, longest first.
LONG = ("test_slurm.py", "test_faults.py", "test_how_to_add.py", "test_rollout.py")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def default_config() -> dict:
    """The default configuration, which no test may change."""
    return yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


@pytest.fixture
def config(default_config) -> dict:
    """A copy of the default configuration, which a test may change."""
    return copy.deepcopy(default_config)


def is_slow(item: pytest.Item) -> bool:
    """Return whether `make test-fast` leaves a test out by the rule above."""
    values = vars(item.module).values()
    helpers = {value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None) for value in values}
    return bool(SLOW_FIXTURES & set(item.fixturenames) or SLOW_HELPERS & helpers)


def pytest_collection_modifyitems(config, items) -> None:
    """Mark slow tests, and skip those that need a GPU where there is none. Put long files first if several workers take
    one file at a time (`pytest -n 3 --dist loadfile`)."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch sees none"))
        if is_slow(item):
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: not item.path.is_relative_to(ROOT / "tests" / "workflow") and item.path.name not in LONG
        )
