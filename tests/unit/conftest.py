"""A tiny data set and tiny trained models, made once for the tests of training, rollouts and faults."""

import copy
from types import SimpleNamespace

import pytest
from tiny_models import EMULATOR, SPECS, SYSTEM, train

from sns_core.data import shard_dataset, simulate_trajectories


@pytest.fixture
def specs() -> dict:
    return copy.deepcopy(SPECS)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> SimpleNamespace:
    """manifest, test (its frames file) and models {"surrogate", "denoiser", "unconditional", "acdm"}."""
    folder = tmp_path_factory.mktemp("tiny")
    splits = {"train": (3, 30), "validation": (2, 20), "test": (3, 24)}
    files = [folder / f"{split}.nc" for split in splits]
    for path, (members, frames) in zip(files, splits.values(), strict=True):
        simulate_trajectories(
            system=SYSTEM, emulator=EMULATOR, split=path.stem, members=members, frames=frames, spin_up=1.0, seed=3,
            output=path, device="cpu",
        )  # fmt: skip
    manifest = folder / "shards" / "manifest.json"
    shard_dataset(trajectories=files, output=manifest, shard_members=2)
    models = {
        role: train(folder, manifest, name, copy.deepcopy(SPECS[name]))
        for role, name in {"surrogate": "pointwise", **{name: name for name in SPECS if name != "pointwise"}}.items()
    }
    return SimpleNamespace(folder=folder, manifest=manifest, test=folder / "test.nc", models=models)
