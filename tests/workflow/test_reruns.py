"""A job reruns if one of its settings has changed, for any values of the other settings; `verify` agrees."""

import copy
import functools
import itertools
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import snakemake.api  # the modules of snakemake import each other in a ring, which is entered here
import torch
import xarray as xr
import yaml
from safetensors.torch import save_file
from snakemake import workflow as snakemake_workflow
from snakemake.common import configfile
from snakemake.utils import update_config
from snakemake_calls import SYSTEM, planned, snakemake

from sns_core.data import shard_dataset
from sns_core.errors import DamagedFile
from sns_core.files import _checksum, read_tensors, write_tensors
from sns_core.stages import STAGES
from sns_workflow.command import arguments_of, settings
from sns_workflow.configuration import read
from sns_workflow.inspect_run import judge_all
from sns_workflow.jobs import graph_of_jobs, job_of
from sns_workflow.sweep import dependencies


@functools.cache
def layer(path: Path) -> dict:
    """Return the content of a configuration file, which a caller must not change."""
    return yaml.safe_load(path.read_text())


def merged(root: Path, *overlays: dict) -> dict:
    """Return the configuration of the smoke run with overlays on top."""
    config = {}
    for overlay in (layer(root / "config/config.yaml"), layer(root / "config/smoke.yaml"), *overlays):
        update_config(config, copy.deepcopy(overlay))
    return config


@pytest.fixture(scope="module")
def jobs(root, tmp_path_factory) -> dict:
    """Return rule -> (printed parameters of one job, which Snakemake compares; settings of the job)."""
    by_rule = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nothing"))
        for targets in (["all"], ["theory"], [str(SYSTEM / "figures/held_out.png")]):
            with graph_of_jobs(str(root / "Snakefile"), merged(root), targets) as graph:
                for job in graph.jobs:
                    if job.rule.name in STAGES:
                        printed = graph.workflow.persistence._params(job)
                        assert job.shellcmd, "the shell command names only what the rule has"
                        by_rule[job.rule.name] = (set(printed), json.loads(job.params.settings), job.params)
    return by_rule


def test_all_that_snakemake_compares_of_a_job_are_named_settings_and_its_code(jobs):
    assert set(jobs) == set(STAGES) - {
        "collect_run",
        "take_result",
        "link_result",
        "read_source",
        "tabulate_sweep",
        "plot_sweep",
    }
    for rule, (printed, values, params) in jobs.items():
        expected = {repr(params.settings), repr(params.code)}
        if rule in ("aggregate_metrics", "score_methods"):
            expected.add(repr(params.order))
        assert printed == expected, f"{rule}: a parameter has no name, or is not compared"
        taken = {argument.name for argument in arguments_of(rule) if argument.directive == "settings"}
        needed = {argument.name for argument in arguments_of(rule) if argument.required} & taken
        assert needed <= set(values) <= taken, rule


def test_a_value_moved_from_one_setting_to_another_is_seen_for_all_pairs_of_each_rule(jobs):
    pairs = 0
    for rule, (printed, values, params) in jobs.items():
        apart = printed - {repr(params.settings)}
        for source, target in itertools.permutations(values, 2):
            if json.dumps(values[source]) == json.dumps(values[target]):
                continue
            floats = [a.name for a in arguments_of(rule) if a.annotation == "float"]
            if not all(isinstance(values[n], int | float) for n in (source, target)) and {source, target} & set(floats):
                continue  # a number is no valid value
            moved = {**values, target: values[source]}
            swapped = {**moved, source: values[target]}
            for changed in (moved, swapped):
                now = {repr(settings(rule, changed)(None))} | apart
                assert now != printed, f"{rule}: {source} moved to {target}"
            pairs += 1
    assert pairs > 400


@pytest.mark.parametrize(
    ("device", "launchers"),
    [("cpu", {""}), ("cuda:1", {""}), ("cuda", {"", "-m sns_core.gpus 1", "-m sns_core.gpus 2"})],
)
def test_jobs_with_gpus_start_on_gpus_of_their_own_unless_one_is_named(root, tmp_path, monkeypatch, device, launchers):
    monkeypatch.chdir(tmp_path)
    config = merged(root, {"hardware": {"device": device, "devices": 2}})
    with graph_of_jobs(str(root / "Snakefile"), config, ["all"]) as graph:
        calls = {job.rule.name: job.params.call for job in graph.jobs if job.rule.name in STAGES}
    parts = {rule: re.search(r"-m sns_core\.gpus \d+|$", call)[0] for rule, call in calls.items()}
    assert set(parts.values()) == launchers and parts["plot_error"] == "" == parts["shard_dataset"]
    assert device != "cuda" or (parts["train_model"], parts["rollout_segment"]) == (
        "-m sns_core.gpus 2",
        "-m sns_core.gpus 1",
    )


def test_rollouts_without_networks_depend_on_no_setting_of_networks(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rollouts, needs = [], []
    for overlay in ({}, {"hardware": {"precision": "float32", "compile": True}}):
        config = merged(root, overlay)
        with graph_of_jobs(str(root / "Snakefile"), config, ["all"]) as graph:
            jobs = [job for job in graph.jobs if job.rule.name in ("rollout_segment", "rollout_ensemble")]
            rollouts.append({str(job.output[0]): (job.wildcards.method, job.params.settings) for job in jobs})
        needs.append(dependencies(read(config)))
    changed = {rollouts[0][name][0] for name in rollouts[0] if rollouts[0][name] != rollouts[1][name]}
    assert changed == set(merged(root)["use"]["methods"]) - {"solver"}
    shared = [pattern for pattern in needs[0] if needs[0][pattern] == needs[1][pattern]]
    assert any(re.fullmatch(pattern, "kolmogorov/rollouts/solver/0-1/segment_0000.nc") for pattern in shared)
    assert not any(re.fullmatch(pattern, "kolmogorov/rollouts/sns/0-1/segment_0000.nc") for pattern in shared)


def test_the_solver_alone_has_no_figure_of_distances_from_it(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = []
    for methods in (["solver"], ["solver", "pointwise"]):
        with graph_of_jobs(str(root / "Snakefile"), merged(root, {"use": {"methods": methods}}), ["figures"]) as graph:
            drawn.append({job.rule.name for job in graph.jobs if job.rule.name.startswith("plot_")})
    assert drawn[1] - drawn[0] == {"plot_error"}


def change(key: str, value) -> dict:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


# Each edit sets one key of the smoke configuration to a new value. Several new values equal that of another key of the
# same rule.
EDITS = [
    ("seed", 1), ("rollout.lags", 2), ("rollout.frame_stride", 1), ("rollout.members", 1), ("rollout.steps", 90),
    ("rollout.segment_steps", 20), ("rollout.group_members", 1), ("rollout.block_steps", 5),
    ("metrics.window", 30), ("metrics.shells", [1, 5]), ("metrics.map_lags", 3), ("metrics.ensemble.starts", 2),
    ("metrics.ensemble.members", 2), ("metrics.ensemble.leads", [1, 2]), ("metrics.ensemble.disturbance", 0.25),
    ("metrics.diagnose.pairs", 3), ("metrics.diagnose.levels", 7), ("metrics.cost.steps", 3), ("metrics.cost.repeats", 3),
    ("metrics.cost.seconds", 2.0), ("metrics.cost.spectrum_steps", 10), ("metrics.cost.finest_forecast", 1),
    ("metrics.cost.grids", [0.5, 1, 2]), ("metrics.dask.workers", 2), ("metrics.dask.memory", 1234),
    ("figures.dpi", 61), ("figures.fields.member", 1), ("figures.fields.steps", [0, 30]), ("figures.movie.seconds", 3.0),
    ("figures.movie.rate", 7), ("figures.movie.methods", ["solver", "pointwise"]), ("figures.explorer.members", 1),
    ("figures.explorer.megabytes", 5.0), ("hardware.device", "cpu"), ("hardware.devices", 2), ("hardware.precision", "float32"),
    ("hardware.compile", True), ("hardware.checkpoint_minutes", 1.0), ("loggers", ["tensorboard"]),
    ("use.methods", ["solver", "pointwise", "sns"]),
    ("use.methods", ["solver", "sns", "pointwise", "sns_published", "sns_clean", "thermalizer", "acdm", "sns_generation"]),
    ("methods.sns.label", "Ours"), ("methods.sns_published.stride", 2), ("methods.sns_published.max_level", 3),
    ("methods.sns_published.gain", [1.5, 1.0]), ("methods.sns_published.path", "diagonal"),
    ("methods.sns_published.sampler.eta", 0.5), ("methods.sns_published.models.denoiser", "sns_residual"),
    ("methods.sns.models.denoiser", "sns_white"), ("methods.sns.condition_level", 0), ("methods.sns.level", 2),
    ("methods.sns.completion", False), ("methods.sns.balance", False), ("methods.sns.match_departure", False),
    ("methods.pointwise.steps", 30), ("methods.acdm.stride", 2), ("methods.thermalizer.max_level", 4),
    ("models.pointwise.training.steps", 50), ("models.pointwise.network.width", 4), ("models.sns_white.diffusion.colour", 0.5),
    ("models.sns_residual.training.learning_rate", 0.001), ("models.sns_residual.training.batch", 4),
    ("models.acdm.training.ema", 0.99), ("systems.kolmogorov.solver.viscosity", 0.006), ("systems.kolmogorov.solver.drag", 0.2),
    ("systems.kolmogorov.data.spin_up", 3.0), ("systems.kolmogorov.data.shard_members", 1),
    ("systems.kolmogorov.data.reference.members", 5), ("systems.kolmogorov.data.reference.duration", 7.0),
    ("systems.kolmogorov.data.reference", None), ("systems.kolmogorov.data.require_stationary", True),
    ("systems.kolmogorov.data.group_members", 2), ("systems.kolmogorov.data.splits.test.members", 5),
    ("systems.kolmogorov.data.splits.train.frames", 31), ("systems.kolmogorov.override", {"rollout": {"lags": 3}}),
    ("resources.train_model.mem_mb", 1234), ("theory.training_steps", [10]),
]  # fmt: skip


def test_a_file_whose_date_is_ignored_is_followed_by_another_way_too(root, tmp_path, monkeypatch):
    """Snakemake 9.27 leaves out every job that follows a job to be run through files with an ignored date alone, even if
    the outputs of that job are missing (findings/snakemake-ancient-hides-missing-outputs.sh)."""
    monkeypatch.chdir(tmp_path)
    followed = 0
    with graph_of_jobs(str(root / "Snakefile"), merged(root), ["all"]) as graph:
        for job in graph.jobs:
            trusted = {str(file) for file in job.input if file.is_ancient}
            for producer, files in graph.dependencies[job].items():
                if all(str(file) in trusted for file in files):
                    queue, ancestors = [job], set()
                    while queue:
                        for parent, inputs in graph.dependencies[queue.pop()].items():
                            if any(not file.is_ancient for file in inputs) and parent not in ancestors:
                                ancestors.add(parent)
                                queue.append(parent)
                    assert producer in ancestors, f"{job.rule.name} alone does not run after {producer.rule.name}"
                    followed += 1
    assert followed > 5


def test_a_changed_reference_ensemble_changes_the_scores_whatever_is_asked_for(root, finished):
    smaller = "systems: {kolmogorov: {data: {reference: {members: 5}}}}"
    rules = planned(root, finished, "metrics", overlay=smaller)
    assert {"rollout_reference", "compute_reference", "draw_floors", "score_methods"} <= rules


def test_methods_in_another_order_are_listed_anew_and_not_made_anew(root, finished):
    methods = merged(root)["use"]["methods"]
    rules = planned(root, finished, overlay=f"use: {{methods: [{', '.join(reversed(methods))}]}}")
    assert "tabulate_cost" in rules
    assert not rules & {"train_model", "calibrate_refinement", "rollout_segment", "compute_metrics", "measure_cost"}


def read_once(patch: pytest.MonkeyPatch) -> None:
    """Let Snakemake read each file once: all graphs of this process have the same rules and the same defaults."""
    parse, load = snakemake_workflow.parse, configfile.load_configfile
    read_files, loaded = {}, functools.cache(load)

    def parse_once(path, workflow, linemap, overwrite_shellcmd=None, rulecount=0):
        key = (path.get_path_or_uri(secret_free=True), rulecount)
        if key not in read_files:
            lines = {}
            read_files[key] = (*parse(path, workflow, lines, overwrite_shellcmd, rulecount), lines)
        code, count, lines = read_files[key]
        linemap.update(lines)
        return code, count

    patch.setattr(snakemake_workflow, "parse", parse_once)
    patch.setattr(configfile, "load_configfile", lambda path: copy.deepcopy(loaded(path)))


OF_ONE_METHOD = ("calibrate_refinement", "rollout_segment", "rollout_ensemble")


def test_verify_and_the_dry_run_agree_after_each_edit_of_the_configuration(root, finished):
    assert len(EDITS) >= 60
    unlike, unchanged, shared, rules, rolled = [], [], [], {}, {}
    before = dependencies(read(merged(root)))
    with pytest.MonkeyPatch.context() as patch:
        read_once(patch)
        patch.chdir(finished)
        for key, value in EDITS:
            with graph_of_jobs(str(root / "Snakefile"), merged(root, change(key, value)), ["all"]) as graph:
                jobs = [(job, job_of(job)) for job in graph.jobs if job.rule.name in STAGES]
                to_run = {str(mine.outputs[0]) for job, mine in jobs if graph.needrun(job)}
                rules[key] = {mine.stage for job, mine in jobs if graph.needrun(job)}
                rolled[key] = {
                    job.wildcards.method for job, mine in jobs if graph.needrun(job) and mine.stage in OF_ONE_METHOD
                }
            judge_all([mine for _, mine in jobs], thorough=False)
            stale = {str(mine.outputs[0]) for _, mine in jobs if mine.state != "done"}
            if stale != to_run:
                unlike.append((key, sorted(stale - to_run)[:5], sorted(to_run - stale)[:5]))
            now = dependencies(read(merged(root, change(key, value))))
            equal = [pattern for pattern in now if now[pattern] == before.get(pattern)]
            names = [Path(path).relative_to("results/smoke").as_posix() for path in to_run]
            shared += [(key, name) for name in names if any(re.fullmatch(pattern, name) for pattern in equal)]
            if rules[key] <= {"record_provenance", "write_report"}:  # these rules read the whole configuration
                unchanged.append(key)
    assert not unlike, "\n".join(f"{key}: verify alone {stale}, dry run alone {runs}" for key, stale, runs in unlike)
    assert not shared, f"two points of a sweep would share what this setting sets apart: {shared}"
    # The new value equals that of another parameter of the same rule.
    assert {"rollout_ensemble", "rollout_grids"} <= rules["metrics.ensemble.starts"], (
        "starts was 3, as members and leads"
    )
    assert {"rollout_segment", "compute_reference", "compute_metrics"} <= rules["rollout.lags"]
    assert {"rollout_grids", "measure_cost"} <= rules["rollout.members"]
    for option in ("condition_level", "level", "completion", "balance", "match_departure", "models.denoiser"):
        assert {"calibrate_refinement", "rollout_segment"} <= rules[f"methods.sns.{option}"], option
        assert rolled[f"methods.sns.{option}"] == {"sns"}, option
    assert rolled["methods.sns_published.stride"] == {"sns_published"}
    assert "calibrate_refinement" not in rules["methods.sns_published.stride"]
    assert "simulate_trajectories" in rules["systems.kolmogorov.data.spin_up"]
    assert unchanged == ["metrics.dask.workers", "metrics.dask.memory", "hardware.devices", "hardware.checkpoint_minutes",
                         "loggers", "resources.train_model.mem_mb", "theory.training_steps"]  # fmt: skip


def test_splits_of_equal_size_share_no_entry_of_snakemakes_cache(root, tmp_path, monkeypatch):
    """The cache ignores wildcards, so only a parameter distinguishes the two splits."""
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    splits = "systems: {kolmogorov: {data: {splits: {validation: {members: 2, frames: 24}, test: {members: 2, frames: 24}}}}}"
    splits += "\nmetrics: {ensemble: {starts: 2}}"
    names = [str(SYSTEM / f"data/{split}.nc") for split in ("validation", "test")]
    for _ in range(2):  # the second call takes the files from the cache
        call = snakemake(root, tmp_path, *names, flags=("--cache", "simulate_trajectories"), overlay=splits)
        assert call.returncode == 0, call.stdout
        for split, name in zip(("validation", "test"), names, strict=True):
            with xr.open_dataset(tmp_path / name) as dataset:
                assert json.loads(dataset.attrs["provenance"])["configuration"]["split"] == split
            (tmp_path / name).unlink()
    assert len(list((tmp_path / "cache").iterdir())) >= 2


def test_a_file_of_another_split_is_refused(finished, tmp_path):
    for name in ("train", "validation", "test"):
        shutil.copy(finished / SYSTEM / f"data/{name if name != 'validation' else 'test'}.nc", tmp_path / f"{name}.nc")
    files = [tmp_path / f"{name}.nc" for name in ("train", "validation", "test")]
    with pytest.raises(DamagedFile, match=r"validation\.nc: holds the split 'test', not 'validation' as its name says"):
        shard_dataset(trajectories=files, output=tmp_path / "manifest.json")


def test_a_model_that_is_made_again_reruns_nothing(root, finished, tmp_path):
    """Equal content gives an equal file: the new file has the checksum of the old file."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    model = SYSTEM / "models/pointwise.safetensors"
    before = (run / model).read_bytes()
    tensors, note = read_tensors(run / model)
    for _ in range(5):
        write_tensors(tmp_path / "again.safetensors", tensors, note)
        assert (tmp_path / "again.safetensors").read_bytes() == before
    os.replace(tmp_path / "again.safetensors", run / model)
    assert planned(root, run, "all") == set()


def test_files_with_the_metadata_of_earlier_versions_are_read(finished, tmp_path):
    tensors, note = read_tensors(finished / SYSTEM / "models/pointwise.safetensors")
    text = json.dumps(note, sort_keys=True)
    save_file(tensors, tmp_path / "old.safetensors", metadata={"note": text, "sha256": _checksum(tensors, text)})
    read, same_note = read_tensors(tmp_path / "old.safetensors")
    assert same_note == note and all(torch.equal(read[name], tensors[name]) for name in tensors)
    save_file(tensors, tmp_path / "bad.safetensors", metadata={"sns": "[1, 2]"})
    with pytest.raises(DamagedFile):
        read_tensors(tmp_path / "bad.safetensors")
