"""What all tests share: paths and one thread."""

import copy
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
torch.set_num_threads(1)

LONG = ("test_slurm.py", "test_faults.py", "test_how_to_add.py", "test_rollout.py")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def config() -> dict:
    """The default configuration, to be changed at will."""
    return copy.deepcopy(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))


def pytest_collection_modifyitems(config, items) -> None:
    """Of several workers (`pytest -n 2 --dist loadfile`) each takes a file at a time: the long ones come first."""
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: not item.path.is_relative_to(ROOT / "tests" / "workflow") and item.path.name not in LONG
        )
