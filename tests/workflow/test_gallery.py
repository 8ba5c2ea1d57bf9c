"""Collect a finished run. Another folder then remakes its figures and numbers without data and without training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers import equal, write_rollout_of_the_solver
from snakemake_calls import SYSTEM, planned, snakemake

from sns_core.collection import _origin, collect_run
from sns_core.errors import UserError
from sns_core.files import read_json, read_tensors, record_path, write_json, write_tensors
from sns_core.gallery import take_result
from sns_workflow.configuration import ConfigurationError, resolve, reused_results, validate

RUN = Path("results/gallery-smoke/kolmogorov")
FEW = {"use": {"methods": ["solver", "pointwise", "sns"]}}


@pytest.fixture(scope="module")
def gallery(finished, tmp_path_factory) -> Path:
    """A working directory that holds the smoke run, collected under gallery/smoke, and nothing else."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        collect_run(run=finished / "results/smoke", output=Path("gallery/smoke/given.json"))
    return folder


@pytest.fixture
def gallery_copy(gallery, tmp_path, monkeypatch) -> Path:
    """A copy of the gallery in which a test may work."""
    folder = Path(shutil.copytree(gallery, tmp_path / "here"))
    monkeypatch.chdir(folder)
    return folder


def overlay(folder: Path, **changes) -> str:
    """Return the collected configuration, with changes on top, as JSON."""
    return json.dumps({**read_json(folder / "gallery/smoke/config.json"), **changes})


def without_times(path: Path, methods: list[str]) -> pd.DataFrame:
    """Return the rows of the methods in a table, without times, which depend on how busy the machine was."""
    table = pd.read_csv(path)
    table = table[table["method"].isin(methods)]
    if "score" in table:
        table = table[table["score"] != "seconds_per_step"]
    return table.drop(columns="seconds_per_step", errors="ignore").reset_index(drop=True)


def test_collected_results_give_the_same_numbers_and_a_report_without_training(root, finished, gallery_copy):
    """A rollout that was made elsewhere stands beside them in every figure."""
    write_rollout_of_the_solver(finished / SYSTEM, gallery_copy / "mine.nc")
    mine = {"label": "My model", "kind": "external", "models": {}, "file": "mine.nc", "steps": 40, "segment_steps": 20}
    methods = {**read_json(gallery_copy / "gallery/smoke/config.json")["methods"], "mine": mine}
    config = overlay(gallery_copy, use={"methods": [*FEW["use"]["methods"], "mine"]}, methods=methods)
    rules = planned(root, gallery_copy, "all", overlay=config)
    assert "take_result" in rules
    assert not rules & {
        "train_model",
        "simulate_trajectories",
        "shard_dataset",
        "compute_reference",
        "diagnose_denoiser",
    }
    result = snakemake(root, gallery_copy, "all", overlay=config)
    assert result.returncode == 0, result.stdout[-4000:]
    for name in ("metrics.csv", "windows.csv", "scorecard.csv"):
        original, remade = (
            without_times(path / name, FEW["use"]["methods"]) for path in (finished / SYSTEM, gallery_copy / RUN)
        )
        assert len(original) > 2
        pd.testing.assert_frame_equal(original, remade)
    same = ("calibrations/sns.json", "rollouts/sns/0-1/segment_0001.nc", "ensembles/sns.nc", "diagnostics/sns.nc")
    for name in (*same, "metrics/reference.nc"):
        assert equal(finished / SYSTEM / name, gallery_copy / RUN / name), name
    for name in ("spin_up", "levels", "condition_error"):
        assert (gallery_copy / RUN / f"figures/{name}.png").exists()
    assert "My model" in (gallery_copy / "results/gallery-smoke/report.html").read_text()
    verified = snakemake(root, gallery_copy, "verify", overlay=config)
    assert verified.returncode == 0, verified.stdout
    assert "Nothing to be done" in snakemake(root, gallery_copy, "all", overlay=config).stdout


def test_a_collected_run_is_small_and_vouches_for_its_files(gallery, finished):
    folder = gallery / "gallery/smoke"
    listing = read_json(folder / "given.json")
    kinds = {entry["kind"] for entry in listing["files"].values()}
    assert kinds == {"data", "models", "calibrations", "diagnostics", "solver"}
    assert listing["provenance"]["systems"]["kolmogorov"]["wall_seconds"]
    with (
        xr.open_dataset(folder / "kolmogorov/data/test.nc") as test,
        xr.open_dataset(finished / SYSTEM / "data/test.nc") as all_,
    ):
        assert "vorticity" not in test and test["final_state"].equals(all_["final_state"])
        assert test["kinetic_energy"].equals(all_["kinetic_energy"])
    with xr.open_dataset(folder / "kolmogorov/data/train.nc") as train:
        assert set(train.data_vars) == {"kinetic_energy"}
    page = (folder / "README.md").read_text()
    assert (
        "KolmogorovFlow on 32 x 32" in page
        and "| Spectrum error (decades) |" in page
        and "figures/scorecard.png" in page
        and "every 0.1 time units" in page
        and "after a spin-up of 2 time units" in page
    )
    assert (folder / "kolmogorov/scorecard.csv").read_bytes() == (finished / SYSTEM / "scorecard.csv").read_bytes()


def test_the_page_of_a_run_from_files_names_no_solver():
    manifest = {"emulator": {"resolution": [16, 32], "step": 0.2}}
    assert _origin({"source": {}, "data": {}}, manifest, "s") == "Data from files, with frames of 16 x 32 every 0.2 s."


def test_the_page_of_a_run_of_days_counts_days():
    solver = {"class": "TwoLayerQG", "resolution": 64, "dt": 3600.0}
    settings = {"solver": solver, "data": {"spin_up": 1.09e8, "splits": {"train": {"members": 4, "frames": 9}}}}
    manifest = {"emulator": {"resolution": 32, "step": 432000.0}}
    words = _origin(settings, manifest, "s")
    assert "frames of 32 x 32 every 5 days." in words and "after a spin-up of 1261.57 days." in words


def test_a_limit_on_the_size_leaves_out_the_solvers_rollout_and_a_later_run_makes_it(root, finished, gallery_copy):
    listing = read_json(Path("gallery/smoke/given.json"))
    sizes = {
        kind: sum(e["bytes"] for e in listing["files"].values() if e["kind"] == kind) for kind in ("solver", "models")
    }
    whole = sum(entry["bytes"] for entry in listing["files"].values())
    kinds = {entry["kind"] for entry in listing["files"].values()}
    output = Path("gallery/smoke/given.json")
    collect_run(run=finished / "results/smoke", output=output, megabytes=(whole - sizes["solver"] / 2) / 1e6)
    assert not list(Path("gallery/smoke/kolmogorov").glob("rollouts/*/*/*.nc"))
    assert {entry["kind"] for entry in read_json(output)["files"].values()} == kinds - {"solver"}
    assert {"rollout_segment", "take_result"} <= planned(
        root, gallery_copy, str(RUN / "rollouts/solver/0-1/segment_0001.nc"), overlay=overlay(gallery_copy)
    )
    with pytest.raises(UserError, match="MB without the solver's rollout"):
        collect_run(run=finished / "results/smoke", output=output, megabytes=sizes["models"] / 2e6)


def merged(config: dict, gallery_copy: Path, **changes) -> dict:
    return {**config, **json.loads(overlay(gallery_copy, **changes))}


def test_a_longer_rollout_uses_the_collected_models(root, config, gallery_copy):
    stored = read_json(Path("gallery/smoke/config.json"))
    longer = merged(
        config,
        gallery_copy,
        rollout={**stored["rollout"], "steps": 90},
        reuse={"folder": "gallery/smoke", "solver": False},
    )
    validate(longer)
    kinds = set(reused_results(longer).values())
    assert kinds == {"data", "models", "calibrations"}, "denoisers were examined along rollouts of another length"


def change(config: dict, key: str, value) -> dict:
    *parents, last = key.split(".")
    inner = config
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return config


UNFIT = [
    ("rollout.steps", 90, ["rollout.steps is 90 here, 60 in gallery/smoke", "reuse.solver false"]),
    ("seed", 1, ["seed is 1 here, 0 in gallery/smoke"]),
    ("systems.kolmogorov.solver.viscosity", 4e-3, ["viscosity is 0.004 here, 0.005"]),
    ("systems.kolmogorov.emulator.step", 0.2, ["emulator.step is 0.2 here, 0.1"]),
    ("models.pointwise.training.steps", 50, ["models.pointwise.training.steps is 50 here, 40"]),
    ("models.sns_residual.diffusion.prediction", "velocity", ["prediction is \"velocity\" here, \"residual\""]),
    ("methods.sns.anchor_frame", "resampled", ["methods.sns.anchor_frame", "training frames"]),
    ("methods.sns.condition_level", 0, ["methods.sns", "no calibration of this method with these options"]),
    ("methods.sns.models.surrogate", "other", ["models.other", "holds no such model"]),
    ("reuse.folder", "gallery/nowhere", ["reuse.folder", "collect_run"]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "fragments"), UNFIT, ids=[key for key, *_ in UNFIT])
def test_a_key_that_does_not_fit_is_named_before_any_job_runs(config, gallery_copy, key, value, fragments):
    whole = change(merged(config, gallery_copy), key, value)
    whole["models"]["other"] = whole["models"]["pointwise"]
    with pytest.raises(ConfigurationError) as caught:
        validate(whole)
    for fragment in ["gallery/", *fragments]:
        assert fragment in str(caught.value)


def test_options_of_methods_may_differ_and_results_that_depend_on_them_are_not_reused(config, gallery_copy):
    whole = change(merged(config, gallery_copy), "methods.sns_published.stride", 4)
    validate(whole)
    names = reused_results(whole)
    assert "kolmogorov/diagnostics/sns_published.nc" not in names and "kolmogorov/diagnostics/sns.nc" in names
    assert "kolmogorov/calibrations/sns.json" in names
    assert len(names) == len(reused_results(merged(config, gallery_copy))) - 1
    relabelled = change(merged(config, gallery_copy), "methods.sns.label", "Ours")
    assert reused_results(relabelled) == reused_results(merged(config, gallery_copy))
    assert resolve(whole, "kolmogorov")["methods"]["sns_published"]["stride"] == 4


def test_a_newer_key_has_its_default_in_a_collected_configuration(config, gallery_copy):
    path = Path("gallery/smoke/given.json")
    listing = read_json(path)
    del listing["configuration"]["metrics"]["user"]
    write_json(path, listing)
    validate(merged(config, gallery_copy))


def test_an_altered_file_is_refused_and_left_alone(gallery_copy):
    listing, name = Path("gallery/smoke/given.json"), "kolmogorov/models/sns_residual.safetensors"
    path = listing.parent / name
    take_result(listing=listing, name=name, output=Path("taken.safetensors"))
    assert Path("taken.safetensors").read_bytes() == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"not the file that .* lists"):
        take_result(listing=listing, name=name, output=Path("taken.safetensors"))
    path.unlink()
    with pytest.raises(UserError, match="missing, though"):
        take_result(listing=listing, name=name, output=Path("taken.safetensors"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("resolution", 32, "its resolution is 32, that of the data is 16"),
        ("statistics", {"std": [1.0]}, "its statistics is"),
        ("data", "0" * 64, "its data is"),
    ],
)
def test_a_model_of_other_data_is_not_collected(finished, tmp_path, key, value, message):
    run = Path(shutil.copytree(finished / "results/smoke", tmp_path / "run"))
    path = run / "kolmogorov/models/pointwise.safetensors"
    tensors, note = read_tensors(path)
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values()) and np.isfinite(note["step"])
    write_tensors(path, tensors, {**note, key: value})
    with pytest.raises(UserError, match=message):
        collect_run(run=run, output=tmp_path / "gallery/given.json")


def test_an_unfinished_run_and_a_run_of_reused_results_are_not_collected(finished, tmp_path):
    with pytest.raises(UserError, match=r"provenance\.json: missing"):
        collect_run(run=tmp_path, output=tmp_path / "gallery/given.json")
    run = Path(shutil.copytree(finished / "results/smoke", tmp_path / "run"))
    record = read_json(run / "provenance.json")
    record["configuration"]["reuse"] = {"folder": "gallery/re1e4", "solver": True}
    write_json(run / "provenance.json", record)
    record_path(run / "provenance.json").unlink()  # or it would say that the file has changed
    with pytest.raises(UserError, match="collect the run that made them"):
        collect_run(run=run, output=tmp_path / "gallery/given.json")


def test_a_folder_that_is_collected_again_holds_the_new_run_alone_and_a_refused_call_leaves_the_old(finished, tmp_path):
    run, listing = Path(shutil.copytree(finished / "results/smoke", tmp_path / "run")), tmp_path / "gallery/given.json"
    collect_run(run=run, output=listing)
    before = {path: path.read_bytes() for path in sorted(listing.parent.rglob("*")) if path.is_file()}
    with pytest.raises(UserError, match=rf"{listing.parent}: .* MB without the solver's rollout, of 0.5 allowed"):
        collect_run(run=run, output=listing, megabytes=0.5)
    assert {path: path.read_bytes() for path in sorted(listing.parent.rglob("*")) if path.is_file()} == before
    (run / "kolmogorov/figures/ablation.png").unlink()
    (run / "kolmogorov/cost.csv").unlink()
    collect_run(run=run, output=listing)
    gone = {"kolmogorov/figures/ablation.png", "kolmogorov/cost.csv"}
    after = {path for path in listing.parent.rglob("*") if path.is_file()}
    assert {str(path.relative_to(listing.parent)) for path in before.keys() - after} == gone
    assert "ablation" not in (listing.parent / "README.md").read_text()


def test_a_run_is_not_collected_into_a_folder_of_results(finished, tmp_path):
    run = Path(shutil.copytree(finished / "results/smoke", tmp_path / "run"))
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    with pytest.raises(UserError, match="is a result of a run, which would be replaced; name a folder of its own"):
        collect_run(run=run, output=run / "given.json", megabytes=1e-3)
    with pytest.raises(
        UserError, match=r"other\.json: the listing of a folder is called given\.json; give .*given\.json"
    ):
        collect_run(run=run, output=tmp_path / "gallery/other.json")
    shutil.rmtree(run / "kolmogorov/rollouts/solver/0-1")
    with pytest.raises(UserError, match=r"holds no rollouts/solver/\*/segment_\*\.nc; run `snakemake` to its end"):
        collect_run(run=run, output=tmp_path / "gallery/given.json")
    for path, content in before.items():
        assert "solver/0-1" in str(path) or path.read_bytes() == content


def test_the_gallery_of_this_repository_is_complete_and_valid(root, config, monkeypatch):
    monkeypatch.chdir(root)
    for path in root.glob("gallery/*/config.json"):
        validate({**config, **read_json(path)})
        listing = read_json(path.with_name("given.json"))
        assert sum(entry["bytes"] for entry in listing["files"].values()) <= 20e6
        for name in listing["files"]:
            assert (path.parent / name).exists(), name
