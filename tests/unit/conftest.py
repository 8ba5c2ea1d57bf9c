"""A tiny data set, tiny trained models and a calibration, made once for the tests of training, rollouts and faults."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import build_once
from tiny_models import CALIBRATED, EMULATOR, SPECS, SYSTEM, train

from sns_core.data import shard_dataset, simulate_trajectories
from sns_core.evaluation.calibration import calibrate_refinement

SPLITS = {"train": (3, 30), "validation": (2, 20), "test": (3, 24)}


@pytest.fixture
def specs() -> dict:
    return copy.deepcopy(SPECS)


def build_tiny(folder: Path) -> None:
    """Simulate the data set, train one model by each specification, and calibrate a refinement by two of them before its student."""
    files = [folder / f"{split}.nc" for split in SPLITS]
    for path, (members, frames) in zip(files, SPLITS.values(), strict=True):
        simulate_trajectories(
            system=SYSTEM, emulator=EMULATOR, split=path.stem, members=members, frames=frames, spin_up=1.0, seed=3,
            output=path, device="cpu",
        )  # fmt: skip
    manifest = folder / "shards" / "manifest.json"
    shard_dataset(trajectories=files, output=manifest, shard_members=2)
    for name, spec in SPECS.items():
        if "calibration" in spec:
            models = {"surrogate": folder / "pointwise.safetensors", "denoiser": folder / "residual.safetensors"}
            calibrate_refinement(models=models, manifest=manifest, output=folder / "calibration.json", **CALIBRATED)
        train(folder, manifest, name, copy.deepcopy(spec))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> SimpleNamespace:
    """The tiny data set and models: folder, manifest, test (the file of its frames), and models (role -> file).

    The role `calibration` is that of `surrogate` and `residual`.

    The role of `pointwise` is `surrogate`. All workers share the files, so tests must not change them.
    """
    folder = build_once(tmp_path_factory, "tiny", build_tiny)
    models = {name: folder / f"{name}.safetensors" for name in SPECS}
    models["surrogate"] = models.pop("pointwise")
    models["calibration"] = folder / "calibration.json"
    return SimpleNamespace(
        folder=folder, manifest=folder / "shards" / "manifest.json", test=folder / "test.nc", models=models
    )
