"""The whole chain in one space dimension, stage by stage: Kuramoto-Sivashinsky flow from the solver to a scorecard and a picture."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from tiny_models import CALIBRATED, SPECS, train

from sns_core.data import shard_dataset, simulate_trajectories
from sns_core.evaluation.calibration import calibrate_refinement
from sns_core.evaluation.coarse_solver import rollout_grids
from sns_core.figures.fields import plot_fields
from sns_core.metrics.floors import draw_floors
from sns_core.metrics.reference import compute_reference
from sns_core.metrics.rollout_metrics import compute_metrics
from sns_core.metrics.scorecard import score_methods
from sns_core.rollout import rollout_segment
from sns_core.rollout.ensemble import rollout_ensemble

pytestmark = pytest.mark.slow
SYSTEM = {"name": "KuramotoSivashinsky", "parameters": {"resolution": [1, 32], "length": 22.0, "dt": 0.25}}
EMULATOR = {"resolution": [1, 16], "step": 1.0}
SPLITS = {"train": (3, 30), "validation": (2, 20), "test": (3, 24)}
STEPS, LAGS, WINDOW, SHELLS = 40, 4, 20, [1, 5]
METHODS = {
    "solver": {"kind": "solver"}, "pointwise": {"kind": "pointwise"}, "calibrated": {"kind": "calibrated_refinement"},
    "flow_matching": {"kind": "flow_matching"},
}  # fmt: skip
LABELS = {name: name for name in METHODS}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> SimpleNamespace:
    """Files of a run: manifest, segments and metrics (method -> files), reference, and scorecard."""
    folder = tmp_path_factory.mktemp("row")
    files = [folder / f"{split}.nc" for split in SPLITS]
    for path, (members, frames) in zip(files, SPLITS.values(), strict=True):
        simulate_trajectories(
            system=SYSTEM, emulator=EMULATOR, split=path.stem, members=members, frames=frames, spin_up=50.0, seed=3,
            output=path, device="cpu",
        )  # fmt: skip
    manifest, test = folder / "shards" / "manifest.json", files[-1]
    shard_dataset(trajectories=files, output=manifest, shard_members=2)
    models = {"surrogate": "pointwise", "denoiser": "residual", "velocity": "flow_matching"}
    for role, name in models.items():
        spec = copy.deepcopy(SPECS[name])
        spec["training"]["symmetries"] = "all"
        models[role] = train(folder, manifest, name, spec)
    pair = {role: models[role] for role in ("surrogate", "denoiser")}
    calibrate_refinement(models=pair, manifest=manifest, output=folder / "calibration.json", **CALIBRATED)
    models["calibration"] = folder / "calibration.json"
    segments, metrics = {}, {}
    for name, method in METHODS.items():
        segments[name] = [folder / f"{name}.nc"]
        rollout_segment(
            name=name, method=method, models=models, manifest=manifest, initial=[test], first_step=0, steps=STEPS,
            members=[0, 1, 2], output=segments[name][0], restart=folder / f"{name}_restart.safetensors", seed=5, frame_stride=2,
            block=5, lags=LAGS, device="cpu", precision="float32",
        )  # fmt: skip
        rollout_ensemble(
            name=name, method=method, models=models, manifest=manifest, initial=[test], starts=2, members=2, leads=[1, 4],
            disturbance=0.01, seed=5, output=folder / f"{name}_ensemble.nc", device="cpu", precision="float32",
        )  # fmt: skip
    reference = folder / "reference.nc"
    compute_reference(trajectories=[test], manifest=manifest, lags=LAGS, frame_stride=2, map_lags=3, output=reference)
    for name in METHODS:
        metrics[name] = folder / f"{name}_metrics.nc"
        compute_metrics(
            segments=segments[name], solver=segments["solver"], reference=reference, manifest=manifest, window=WINDOW,
            shells=SHELLS, map_lags=3, output=metrics[name], output_windows=folder / f"{name}.csv",
        )  # fmt: skip
    draw_floors(ensemble=[], members=3, steps=[STEPS], window=WINDOW, shells=SHELLS, output=folder / "floors.csv")
    score_methods(
        metrics=list(metrics.values()), ensembles=[folder / f"{name}_ensemble.nc" for name in METHODS], reference=reference,
        floors=folder / "floors.csv", system="ks", window=WINDOW, shells=SHELLS, output=folder / "scorecard.csv",
    )  # fmt: skip
    return SimpleNamespace(
        folder=folder, manifest=manifest, test=test, segments=segments, metrics=metrics, reference=reference
    )


def test_files_hold_a_row_of_points(run):
    with xr.open_dataset(run.test) as dataset:
        assert dict(dataset.sizes)["y"] == 1 and dataset["y"].values.tolist() == [0.0]
        np.testing.assert_allclose(dataset["x"], 22.0 / 16 * np.arange(16))
        assert dataset["final_state"].shape == (3, 1, 1, 32)
        assert dataset["kinetic_energy"].long_name == "mean kinetic energy of the solver's state"
        np.testing.assert_allclose(dataset["u"].mean("x"), 0.0, atol=1e-6)


def test_the_energy_of_the_field_is_that_of_its_spectrum(run):
    """Parseval in one dimension, in the results: the sum over shells is half the mean square, the system's one energy."""
    with xr.open_dataset(run.metrics["solver"]) as result:
        np.testing.assert_array_equal(result["kinetic_energy"], result["enstrophy"])
        mean = result["kinetic_energy"].mean("step")
        spectrum = result["energy_spectrum"].mean("block").sum("wavenumber") * float(result["wavenumber"][1])
        np.testing.assert_allclose(spectrum.transpose(*mean.dims), mean, rtol=1e-5)


def test_the_scorecard_leaves_out_what_has_no_meaning(run):
    table = pd.read_csv(run.folder / "scorecard.csv")
    scores = set(table["score"])
    assert {"spectrum_error", "enstrophy", "enstrophy_variance", "relative_change", "decorrelation_time"} <= scores
    assert not [score for score in scores if score.startswith(("zonal", "velocity", "kinetic"))]
    for method in METHODS:
        of_method = table[table["method"] == method].set_index("score")["value"]
        assert np.isfinite(
            of_method[["spectrum_error", "gradient_distance", "enstrophy", "relative_change", "crps"]]
        ).all()
    assert (table["members_lost"] == 0).all()


def test_rows_are_drawn_and_run_on_other_grids(run, tmp_path):
    plot_fields(
        segments=run.segments, metrics=run.metrics, reference=run.reference, labels=LABELS, steps=[0, 20, STEPS], member=1,
        dpi=40, output=tmp_path / "fields.png",
    )  # fmt: skip
    assert (tmp_path / "fields.png").stat().st_size > 10_000
    rollout_grids(
        manifest=run.manifest, initial=[run.test], grids=[16, 32, 48], finest=32, starts=2, members=2, leads=[1], disturbance=0.01,
        rolled=2, steps=12, every=1, seed=1, output=Path(tmp_path / "grids.nc"), device="cpu",
    )  # fmt: skip
    with xr.open_dataset(tmp_path / "grids.nc") as grids:
        assert (
            grids["forecast"].shape == (3, 2, 2, 1, 1, 1, 16)
            and int(grids["own"] if "own" in grids else grids.attrs["own"]) == 32
        )
        forecast = torch.from_numpy(grids["forecast"].values)
    assert torch.isfinite(forecast[:2]).all() and torch.isnan(forecast[2]).all()
