"""What all tests share: paths, one thread, and the workflow's own modules on the import path."""

import copy
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests")]
torch.set_num_threads(1)

WHOLE = ("workflow", "slurm", "browser")  # folders whose tests share a run
FIRST = ("workflow", "slurm", "test_faults.py")  # the longest groups


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def config() -> dict:
    """The default configuration, to be changed at will."""
    return copy.deepcopy(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))


def _group(item) -> str:
    folder = item.path.relative_to(ROOT / "tests").parts[0]
    return folder if folder in WHOLE else item.path.name


def pytest_collection_modifyitems(config, items) -> None:
    """Tests of one file share what is made once for them, those of one workflow or cluster a whole run: one worker
    (`pytest -n 2 --dist loadgroup`) takes them together, and the long ones come first."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (*FIRST, _group(item)).index(_group(item)))
