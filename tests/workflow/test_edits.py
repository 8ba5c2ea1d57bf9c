"""Dry runs of a copy of the project over a finished run: which edit reruns which rules."""

import os
import time
from pathlib import Path

import pytest
from snakemake_calls import copy_project, planned

PAGES = {
    "plot_ablation", "plot_condition_error", "plot_distributions", "plot_error", "plot_fields", "plot_levels", "plot_movie", "plot_spectra",
    "plot_temporal", "plot_zonal",
}  # fmt: skip
COST = {"tabulate_cost", "plot_cost"}
SCORES = {"score_methods", "plot_scorecard", *COST}
REFERENCE = {"rollout_reference", "compute_reference", "draw_floors"}
BELOW_METRICS = {"aggregate_metrics", "compute_metrics", "record_provenance", "write_report", *SCORES}
BELOW_CALIBRATIONS = {
    "rollout_segment",
    "rollout_ensemble",
    "measure_cost",
    "diagnose_denoiser",
    *PAGES,
    *BELOW_METRICS,
}
BELOW_MODELS = {"calibrate_refinement", "plot_calibration", *BELOW_CALIBRATIONS}
BELOW_ROLLOUTS = {"rollout_grids", *BELOW_MODELS}
EVERYTHING = {
    "simulate_trajectories", "shard_dataset", "check_stationarity", "train_model", "plot_spin_up", *REFERENCE, *BELOW_ROLLOUTS,
}  # fmt: skip


@pytest.fixture(scope="module")
def copied(root, finished, tmp_path_factory) -> tuple[Path, Path]:
    """(project, run): copies that the tests may edit. The run is complete."""
    return copy_project(root, tmp_path_factory.mktemp("project")), finished


def append(text: str):
    return lambda content: content + text


def reformat(content: str) -> str:
    """Change the layout: longer lines, other white space, more comments. The program stays the same."""
    return "# a remark\n" + content.replace(" = ", "  =  ").replace("\n\n\n", "\n\n\n\n")


def new_docstring(content: str) -> str:
    return '"""Another sentence."""\n' + content.split('"""', 2)[2]


CODE = append("\n\nEDITED = True\n")
# What of the pages is told apart from the copy: their templates and captions lie in the project's folder.
REPORT = {"write_report", "write_explorer"}
EDITS = [
    ("sns_core/systems/kolmogorov.py", CODE, EVERYTHING),
    ("sns_core/systems/two_layer_qg.py", CODE, set()),
    ("sns_core/networks/unet.py", CODE, {"train_model", *BELOW_ROLLOUTS}),
    ("sns_core/training/train.py", CODE, {"train_model", *BELOW_MODELS}),
    ("sns_core/methods/refinement.py", CODE, BELOW_CALIBRATIONS),
    ("sns_core/methods/calibrated.py", CODE, BELOW_MODELS),
    ("sns_core/evaluation/calibration.py", CODE, BELOW_MODELS),
    ("sns_core/methods/acdm.py", CODE, BELOW_CALIBRATIONS - {"diagnose_denoiser", "plot_condition_error"}),
    ("sns_core/evaluation/denoiser_diagnosis.py", CODE, {"diagnose_denoiser", "plot_condition_error", "plot_levels", "write_report"}),
    ("sns_core/metrics/aggregate.py", CODE, {"aggregate_metrics", "plot_ablation", "plot_spectra", "record_provenance", *REPORT}),
    ("sns_core/figures/error.py", CODE, {"plot_error", *REPORT}),
    ("sns_core/figures/style.py", CODE, {*PAGES, "plot_phase_space", "plot_spin_up", "plot_scorecard", "plot_cost", "plot_calibration",
                                         *REPORT}),
    ("sns_core/metrics/scorecard.py", CODE, {"draw_floors", "aggregate_metrics", "plot_ablation", "plot_spectra",
                                             "record_provenance", *SCORES, *REPORT}),
    ("sns_core/metrics/floors.py", CODE, {"draw_floors", "aggregate_metrics", "plot_ablation", "plot_spectra",
                                          "record_provenance", *SCORES, *REPORT}),
    ("sns_core/metrics/stationarity_check.py", CODE, {"check_stationarity", "plot_spin_up", *REPORT}),
    ("sns_core/rollout/ensemble.py", CODE, {"rollout_ensemble", "rollout_grids", "measure_cost", *SCORES, *REPORT}),
    ("sns_core/evaluation/timing.py", CODE, {"measure_cost", *COST, *REPORT}),
    ("sns_core/metrics/cost.py", CODE, {*COST, *REPORT}),
    ("sns_core/figures/movie.py", CODE, {"plot_movie", *REPORT}),
    ("sns_core/figures/explorer/explorer.js", append("\n// a remark\n"), REPORT),
    ("sns_core/report.py", CODE, REPORT),
    ("sns_core/record.py", CODE, {"record_provenance", *REPORT}),
    ("workflow/report/error.rst", append("\nOne more line.\n"), REPORT),
    ("sns_core/systems/kolmogorov.py", append("# a comment\n"), set()),
    ("sns_core/systems/kolmogorov.py", reformat, set()),
    ("sns_core/training/train.py", new_docstring, set()),
    ("README.md", append("\n"), set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "edit", "expected"), EDITS, ids=[f"{index} {name}" for index, (name, *_) in enumerate(EDITS)]
)
def test_an_edit_reruns_what_it_touches_and_nothing_else(copied, name, edit, expected):
    project, run = copied
    path = project / name
    before = path.read_text() if path.exists() else ""
    path.write_text(edit(before))
    try:
        jobs = planned(project, run, "all")
    finally:
        path.write_text(before)
    assert jobs - {"all"} - REPORT == expected - REPORT


def test_a_checkout_that_touches_every_file_reruns_nothing(copied):
    project, run = copied
    later = time.time() + 100
    for path in project.rglob("*"):
        os.utime(path, (later, later))
    assert planned(project, run, "all") <= {"all", *REPORT}
