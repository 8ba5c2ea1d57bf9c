"""The whole DAG at the smoke scale, and what a user relies on: nothing is done twice, extension is cheap, kills lose nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr
from safetensors.torch import load_file

SYSTEM = Path("results/smoke/kolmogorov")


def command(root: Path, folder: Path, *words: str, overlay: str = "") -> list[str]:
    """The words of a call; `overlay` is a further configuration file's text."""
    extra = []
    if overlay:
        extra = [str(folder / f"overlay_{abs(hash(overlay))}.yaml")]
        Path(extra[0]).write_text(overlay)
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), "--directory", str(folder),
        "--workflow-profile", str(root / "profiles" / "default"), "--configfile", str(root / "config" / "smoke.yaml"), *extra,
        "--cores", "2", "--", *words,
    ]  # fmt: skip


def environment() -> dict:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def snakemake(root: Path, folder: Path, *words: str, flags: tuple[str, ...] = (), overlay: str = ""):
    """Run to the end; the finished process with its output in one stream."""
    line = command(root, folder, *words, overlay=overlay)
    line[-len(words) - 1 : -len(words) - 1] = flags
    return subprocess.run(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), timeout=600
    )


def planned(root: Path, folder: Path, *words: str, overlay: str = "") -> set[str]:
    """Rules that a dry run would execute."""
    result = snakemake(root, folder, *words, flags=("--dry-run",), overlay=overlay)
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    return {line.split()[0] for line in lines if len(line.split()) == 2 and line.split()[1].isdigit()} - {"total"}


@pytest.fixture(scope="session")
def finished(root, tmp_path_factory) -> Path:
    """A folder in which the smoke run is complete."""
    folder = tmp_path_factory.mktemp("smoke")
    result = snakemake(root, folder, "all")
    assert result.returncode == 0, result.stdout[-4000:]
    return folder


def test_run_leaves_report_provenance_and_tables(finished):
    report = (finished / "results/smoke/report.html").read_text()
    assert "data:image/png;base64," in report and 'src="http' not in report
    record = json.loads((finished / "results/smoke/provenance.json").read_text())
    assert record["configuration"]["run"] == "smoke" and record["seed"] == 0
    table = pd.read_csv(finished / SYSTEM / "metrics.csv")
    assert sorted(table.groupby("method").size().items()) == [
        ("acdm", 2), ("pointwise", 2), ("sns", 2), ("sns_clean", 2), ("sns_generation", 2), ("sns_published", 2),
        ("solver", 2), ("thermalizer", 2),
    ]  # fmt: skip
    assert (finished / SYSTEM / "figures").is_dir() and list((finished / SYSTEM / "figures").glob("*.pdf"))


def test_rollout_files_describe_themselves(finished):
    segment = xr.open_dataset(finished / SYSTEM / "rollouts/sns/segment_0001.nc")
    assert segment["vorticity"].dims == ("member", "time", "layer", "y", "x")
    record = json.loads(segment.attrs["provenance"])
    assert record["configuration"]["rollout"] == {"first_step": 30, "steps": 30, "members": [0, 1]}
    assert record["seed"] == 0 and "commit" in record["code"] and "torch" in record["versions"]
    assert segment["step"].values[[0, -1]].tolist() == [31, 60]


def test_the_solver_rollout_starts_where_the_test_split_ends(finished):
    test = xr.open_dataset(finished / SYSTEM / "data/test.nc")["vorticity"]
    rollout = xr.open_dataset(finished / SYSTEM / "rollouts/solver/segment_0000.nc")["vorticity"]
    last, first = test.isel(time=-1, member=slice(2)).values, rollout.isel(time=0).values
    assert abs(last - first).max() < 1e-5 * abs(last).max()


def test_second_call_does_nothing(root, finished):
    result = snakemake(root, finished, "all")
    assert result.returncode == 0 and "Nothing to be done" in result.stdout, result.stdout


def test_touched_files_and_lost_metadata_of_the_checkout_rerun_nothing(root, finished):
    for name in ("data/train.nc", "shards/manifest.json", "models/pointwise.safetensors"):
        os.utime(finished / SYSTEM / name)
    assert planned(root, finished, "models") == set()


def test_raising_the_steps_runs_new_segments_only(root, finished):
    result = snakemake(root, finished, "rollouts", flags=("--dry-run",), overlay="rollout: {steps: 90}")
    assert result.returncode == 0, result.stdout
    jobs = planned(root, finished, "rollouts", overlay="rollout: {steps: 90}")
    assert jobs == {"rollout_segment", "rollouts"}
    # Five of the eight methods follow rollout.steps; each needs its third segment and no other.
    line = next(line for line in result.stdout.splitlines() if line.startswith("rollout_segment"))
    assert line.split()[1] == "5"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("figures: {dpi: 61}", {"plot_"}),
        ("rollout: {frame_stride: 1}", {"rollout_segment"}),
        ("models: {sns_white: {training: {steps: 50}}}", {"train_model"}),
        ("metrics: {window: 30}", {"compute_metrics"}),
    ],
)
def test_a_changed_key_reruns_the_stages_that_read_it(root, finished, change, expected):
    jobs = planned(root, finished, "all", overlay=change)
    for name in expected:
        assert any(job.startswith(name) for job in jobs), jobs
    order = ["simulate_trajectories", "shard_dataset", "train_model", "rollout_segment", "compute_metrics"]
    first = next((order.index(name) for name in expected if name in order), len(order))
    assert not [name for name in order[:first] if name in jobs], jobs


def wait_for(condition, seconds: float, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, "the moment to kill never came"
        time.sleep(0.02)


def kill_tree(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_kill_9_during_training_loses_nothing(root, finished, tmp_path):
    """A killed workflow is unlocked, goes on from the training checkpoint and ends in the same bits."""
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        command(root, tmp_path, "models"), stdout=log, stderr=log, env=environment(), start_new_session=True
    )
    work = tmp_path / SYSTEM / "models/.work"
    wait_for(lambda: list(work.glob("*/checkpoint.safetensors")), 400, process)
    kill_tree(process)
    assert not (tmp_path / SYSTEM / "models/sns_white.safetensors").exists() or list(work.glob("*"))
    assert snakemake(root, tmp_path, "models", flags=("--unlock",)).returncode == 0
    again = snakemake(root, tmp_path, "models")
    assert again.returncode == 0, again.stdout
    for model in ("pointwise", "sns_white", "sns_coloured"):
        one, other = (load_file(folder / SYSTEM / f"models/{model}.safetensors") for folder in (finished, tmp_path))
        assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one), model
        history = [(folder / SYSTEM / f"models/{model}.csv").read_text() for folder in (finished, tmp_path)]
        assert history[0] == history[1]


QG = """
run: qg
use: {systems: [qg], methods: [solver, pointwise, sns, sns_generation]}
systems:
  qg:
    solver: {class: TwoLayerQG, resolution: 32, length: 1.0e+6, beta: 1.5e-11, bottom_drag: 5.787e-7, layer_ratio: 0.25,
             deformation_radius: 15000.0, upper_velocity: 0.025, lower_velocity: 0.0, eddy_frames: true, dt: 14400.0}
    emulator: {resolution: 16, step: 172800.0}
    data: {spin_up: 3.0e+6, shard_members: 2, splits: {train: {members: 4, frames: 40},
           validation: {members: 2, frames: 24}, test: {members: 4, frames: 60}}}
    override: {}
"""


def test_the_second_system_runs_through_the_same_rules(root, tmp_path):
    result = snakemake(root, tmp_path, "all", overlay=QG)
    assert result.returncode == 0, result.stdout[-4000:]
    windows = pd.read_csv(tmp_path / "results/qg/qg/windows.csv")
    assert set(windows["layer"]) == {"upper", "lower"} and windows["kinetic_energy_solver"].min() > 0
    assert "upper" in (tmp_path / "results/qg/report.html").read_text()


def test_the_theory_target_stands_alone(root, tmp_path):
    result = snakemake(root, tmp_path, "theory")
    assert result.returncode == 0, result.stdout[-4000:]
    theory = xr.open_dataset(tmp_path / "results/smoke/theory/theory.nc")
    assert float(theory["score_difference"]) < 1e-12
    assert (tmp_path / "results/smoke/theory/theory.png").exists()


def test_a_damaged_model_is_one_clear_line(root, finished, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    model = copy / SYSTEM / "models/pointwise.safetensors"
    model.write_bytes(model.read_bytes()[:1000])
    (copy / SYSTEM / "rollouts/pointwise/segment_0001.nc").unlink()
    result = snakemake(root, copy, "rollouts")
    assert result.returncode != 0
    assert "pointwise.safetensors: truncated" in result.stdout


def test_a_configuration_error_is_one_clear_line(root, tmp_path):
    result = snakemake(root, tmp_path, "all", flags=("--dry-run",), overlay="rolout: {steps: 90}")
    assert result.returncode != 0
    assert "unknown key 'rolout'; did you mean 'rollout'?" in result.stdout
    assert "Traceback" not in result.stdout
