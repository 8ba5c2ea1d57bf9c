"""The whole DAG at the smoke scale, and two promises to a user: nothing is done twice, and extension is cheap."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import warm_python
import xarray as xr
from helpers import equal, write_rollout_of_the_solver
from snakemake_calls import SYSTEM, planned, snakemake

from sns_core.data.attributes import VARIABLES
from sns_core.files import read_tensors
from sns_workflow.config_checks import COLUMNS


def test_run_leaves_report_provenance_and_tables(finished):
    report = (finished / "results/smoke/report.html").read_text()
    assert "data:image/png;base64," in report and 'src="http' not in report
    record = json.loads((finished / "results/smoke/provenance.json").read_text())
    assert record["configuration"]["run"] == "smoke" and record["seed"] == 0
    made = json.loads((finished / SYSTEM / "provenance/windows.csv.json").read_text())
    assert made["stage"] == "aggregate_metrics" and "windows.csv" in made["outputs"], (
        "the record names the stage that made the file, not a stage that read it"
    )
    table = pd.read_csv(finished / SYSTEM / "metrics.csv")
    assert sorted(table.groupby("method").size().items()) == [
        ("acdm", 2), ("pointwise", 2), ("sns", 2), ("sns_clean", 2), ("sns_generation", 2), ("sns_published", 2),
        ("solver", 2), ("thermalizer", 2),
    ]  # fmt: skip
    assert (finished / SYSTEM / "figures").is_dir() and list((finished / SYSTEM / "figures").glob("*.pdf"))


def test_no_metric_of_a_users_own_can_have_the_name_of_a_variable_dimension_or_column(finished):
    names = set()
    for path in (finished / SYSTEM / "metrics").glob("*.nc"):
        with xr.open_dataset(path) as dataset:
            names |= set(map(str, [*dataset.variables, *dataset.dims]))
    for table in ("metrics.csv", "windows.csv"):
        names |= set(pd.read_csv(finished / SYSTEM / table, nrows=0).columns)
    assert {"mse", "levels", "window_spectrum_error", "share_beyond_bins"} <= names
    assert names <= {*VARIABLES, *COLUMNS}


def test_rollout_files_describe_themselves(finished):
    segment = xr.open_dataset(finished / SYSTEM / "rollouts/sns/0-1/segment_0001.nc")
    assert segment["vorticity"].dims == ("member", "time", "layer", "y", "x")
    record = json.loads(segment.attrs["provenance"])
    assert record["configuration"]["rollout"] == {"first_step": 30, "steps": 30, "members": [0, 1]}
    assert record["seed"] == 0 and "commit" in record["code"] and "torch" in record["versions"]
    assert segment["step"].values[[0, -1]].tolist() == [31, 60]


def test_the_solver_rollout_starts_where_the_test_split_ends(finished):
    test = xr.open_dataset(finished / SYSTEM / "data/test.nc")["vorticity"]
    rollout = xr.open_dataset(finished / SYSTEM / "rollouts/solver/0-1/segment_0000.nc")["vorticity"]
    last, first = test.isel(time=-1, member=slice(2)).values, rollout.isel(time=0).values
    assert abs(last - first).max() < 1e-5 * abs(last).max()


def test_second_call_does_nothing(root, finished):
    result = snakemake(root, finished, "all")
    assert result.returncode == 0 and "Nothing to be done" in result.stdout, result.stdout


def test_touched_files_and_lost_metadata_of_the_checkout_rerun_nothing(root, finished):
    for name in ("data/train.nc", "shards/manifest.json", "models/pointwise.safetensors"):
        os.utime(finished / SYSTEM / name)
    assert planned(root, finished, "models") == set()


def test_another_number_of_devices_reruns_nothing_and_trains_by_torchrun(root, finished, tmp_path):
    assert planned(root, finished, "metrics", overlay="hardware: {devices: 2}") == set()
    model = SYSTEM / "models/pointwise.safetensors"
    result = snakemake(root, tmp_path, str(model), overlay="hardware: {devices: 2}")
    assert result.returncode == 0, result.stdout[-3000:]
    note = json.loads((tmp_path / model).with_suffix(".json").read_text())
    assert note["provenance"]["processes"] == 2
    (by_one, _), (by_two, _) = (read_tensors(folder / model) for folder in (finished, tmp_path))
    assert all(torch.allclose(by_one[name], by_two[name], atol=5e-3) for name in by_one)


def test_raising_the_steps_runs_new_segments_only(root, finished):
    result = snakemake(root, finished, "rollouts", flags=("--dry-run",), overlay="rollout: {steps: 90}")
    assert result.returncode == 0, result.stdout
    jobs = planned(root, finished, "rollouts", overlay="rollout: {steps: 90}")
    assert jobs == {"rollout_segment", "rollouts"}
    # Five of the eight methods follow rollout.steps. Each needs only its third segment.
    line = next(line for line in result.stdout.splitlines() if line.startswith("rollout_segment"))
    assert line.split()[1] == "5"


def simulations(result) -> list[str]:
    """Return the files that a dry run would simulate."""
    assert result.returncode == 0, result.stdout
    return sorted(re.findall(r"rule simulate_trajectories:\n    output: \S*/(\S+)\.nc", result.stdout))


def test_members_simulated_in_groups_give_the_same_data(root, finished, tmp_path):
    grouped, aloud = "systems: {kolmogorov: {data: {group_members: 2%s}}}", ("--dry-run", "--quiet", "progress")
    assert snakemake(root, tmp_path, "data", overlay=grouped % "").returncode == 0
    names = sorted(path.stem for path in (tmp_path / SYSTEM / "data").glob("*.nc"))
    assert names == ["test_0-1", "test_2-3", "train_0-1", "train_2-3", "validation_0-1"]
    manifests = [folder / SYSTEM / "shards/manifest.json" for folder in (finished, tmp_path)]
    assert manifests[0].read_text() == manifests[1].read_text()

    # A rollout starts from the same states. A lost group reruns alone. More members make more groups.
    segment = SYSTEM / "rollouts/solver/0-1/segment_0000.nc"
    assert snakemake(root, tmp_path, str(segment), overlay=grouped % "").returncode == 0
    assert equal(tmp_path / segment, finished / segment)
    more = grouped % ", splits: {test: {members: 8}}"
    assert simulations(snakemake(root, tmp_path, "data", flags=aloud, overlay=more)) == ["test_4-5", "test_6-7"]
    (tmp_path / SYSTEM / "data/train_2-3.nc").unlink()
    forced = snakemake(root, tmp_path, "data", flags=(*aloud, "--forcerun", "shard_dataset"), overlay=grouped % "")
    assert simulations(forced) == ["train_2-3"]


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


FOREIGN = """
use: {methods: [solver, pointwise, mine]}
methods:
  mine: {label: My model, kind: external, models: {}, file: mine.nc, steps: 40, segment_steps: 20}
"""


def test_an_external_rollout_is_scored_beside_the_methods_of_the_run(root, finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    write_rollout_of_the_solver(run / SYSTEM, run / "mine.nc")
    assert planned(root, run, f"{SYSTEM}/scorecard.csv", overlay=FOREIGN) <= {
        "rollout_segment", "draw_floors", "compute_metrics", "score_methods",
    }  # fmt: skip
    result = snakemake(root, run, f"{SYSTEM}/scorecard.csv", overlay=FOREIGN)
    assert result.returncode == 0, result.stdout[-4000:]
    card = pd.read_csv(run / SYSTEM / "scorecard.csv").set_index(["method", "score"])
    assert set(card.loc["mine"].index) == set(card.loc["solver"].index) - {"crps", "spread_skill"}
    assert card.loc[("mine", "kinetic_energy"), "value"].item() == pytest.approx(1, abs=0.5)
    assert np.isnan(card.loc[("mine", "seconds_per_step"), "value"].item())


def test_another_workflow_may_use_this_one_as_a_module(root, finished, tmp_path):
    (tmp_path / "Snakefile").write_text(f"""
configfile: "{root}/config/config.yaml"
configfile: "{root}/config/smoke.yaml"

module sns:
    snakefile: "{root}/Snakefile"
    config: config

use rule * from sns as sns_*

rule mine:
    default_target: True
    input: "results/smoke/kolmogorov/windows.csv"
    output: "rows"
    shell: "wc -l < {{input}} > {{output}}"
""")
    words = [
        warm_python.executable(),
        "-m",
        "snakemake",
        "--snakefile",
        tmp_path / "Snakefile",
        "--cores",
        "1",
        "--directory",
    ]
    dry = subprocess.run(
        [*words, tmp_path, "--dry-run"], capture_output=True, text=True, env=warm_python.environment(), timeout=100
    )
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "sns_train_model" in dry.stdout + dry.stderr
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    done = subprocess.run([*words, run], capture_output=True, text=True, env=warm_python.environment(), timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int((run / "rows").read_text()) > 8
    assert "sns_" not in done.stderr.split("Job stats")[1].split("Select")[0], (
        "the module reuses the results of the workflow"
    )


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
"""


def test_the_second_system_runs_through_the_same_rules(root, tmp_path):
    drawn = [f"results/qg/qg/figures/{name}.png" for name in ("fields", "zonal", "cost")]
    result = snakemake(root, tmp_path, "metrics", *drawn, overlay=QG)
    assert result.returncode == 0, result.stdout[-4000:]
    windows = pd.read_csv(tmp_path / "results/qg/qg/windows.csv")
    card = pd.read_csv(tmp_path / "results/qg/qg/scorecard.csv")
    assert set(card["layer"].dropna()) == {"upper", "lower"} and set(card["method"]) == set(windows["method"])
    assert set(windows["layer"]) == {"upper", "lower"} and windows["kinetic_energy_solver"].min() > 0


def test_the_theory_target_stands_alone(root, tmp_path):
    result = snakemake(root, tmp_path, "theory")
    assert result.returncode == 0, result.stdout[-4000:]
    theory = xr.open_dataset(tmp_path / "results/smoke/theory/theory.nc")
    assert float(theory["score_difference"]) < 1e-12
    assert (tmp_path / "results/smoke/theory/theory.png").exists()


def test_a_configuration_error_is_one_clear_line(root, tmp_path):
    result = snakemake(root, tmp_path, "all", flags=("--dry-run",), overlay="rolout: {steps: 90}")
    assert result.returncode != 0
    assert "did you mean 'rollout'?" in result.stdout and "rolout" in result.stdout
    assert "Traceback" not in result.stdout


def test_failed_jobs_are_listed_with_the_end_of_their_logs_and_the_remedy(root, tmp_path):
    """With the default options and with those for a cluster. The log names the mistake of the configuration."""
    unstable = "systems: {kolmogorov: {solver: {dt: 0.1}}}"
    for profile in ("default", "slurm"):
        flags = ("--workflow-profile", str(root / "profiles" / profile), "--executor", "local", "--retries", "0")
        result = snakemake(root, tmp_path, str(SYSTEM / "data/test.nc"), flags=flags, overlay=unstable)
        assert result.returncode != 0
        message = result.stdout[result.stdout.index("simulate_trajectories failed to make") :]
        assert message.splitlines()[:2] == [
            f"simulate_trajectories failed to make {SYSTEM / 'data/test.nc'}",
            f"the end of {SYSTEM / 'logs/simulate_test.log'}:",
        ]
        assert "a time step of" in message.splitlines()[2] and "the same call again" in message
