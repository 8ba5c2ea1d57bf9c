"""Sweeps: the points of a grid, what they share, and a call that runs them, is repeated, and is given one more value."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import warm_python
import yaml
from snakemake_calls import command
from test_reruns import merged

from sns_core.files import record_path
from sns_core.metrics.sweep import tabulate_sweep
from sns_workflow import configuration, plan
from sns_workflow.config_values import ConfigurationError
from sns_workflow.jobs import expected_jobs, graph_of_jobs
from sns_workflow.sweep import COLUMNS, maker_of, read

GRID = {"seed": [0, 1], "models.sns_residual.training.steps": [20, 40]}


def swept(root, grid: dict, **overlay):
    return read(merged(root, {"run": "mine", "sweep": grid, **overlay}))


def test_a_point_is_a_run_of_its_own_with_its_values(root):
    sweep = swept(root, GRID)
    assert (sweep.folder, sweep.axes) == ("results/mine-sweep", ("seed", "steps"))
    assert [point.folder for point in sweep.points] == [
        f"results/mine-sweep/seed{seed}-steps{steps}" for seed in (0, 1) for steps in (20, 40)
    ]
    last = sweep.points[-1]
    assert last.place == {"seed": 1, "steps": 40} and last.whole["seed"] == 1
    assert last.whole["models"]["sns_residual"]["training"]["steps"] == 40
    assert last.rule_prefix == "seed1_steps40_"


def test_points_share_what_no_setting_sets_apart(root):
    points = {point.name: point for point in swept(root, GRID).points}
    assert not points["seed0-steps20"].linked and not points["seed1-steps20"].linked
    for seed in (0, 1):
        first, linked = points[f"seed{seed}-steps20"].folder, points[f"seed{seed}-steps40"].linked

        def is_linked(name, linked=linked):
            return any(re.fullmatch(pattern, name) for pattern in linked)

        for name in ("data/train.nc", "shards/manifest.json", "reference/0-3/segment_0000.nc", "models/pointwise.safetensors",
                     "models/pointwise.csv", "rollouts/pointwise/0-1/segment_0000.nc", "ensembles/solver.nc"):  # fmt: skip
            assert is_linked(f"kolmogorov/{name}"), name
            assert maker_of(f"kolmogorov/{name}", linked) == f"{first}/kolmogorov/{name}"
        for name in ("models/sns_residual.safetensors", "calibrations/sns.json", "rollouts/sns/0-1/segment_0000.nc",
                     "metrics/pointwise.nc", "scorecard.csv"):  # fmt: skip
            assert not is_linked(f"kolmogorov/{name}"), name


def made(folder: str, name: str, target: str = "") -> None:
    """Make a file of a run, or a link to the file of the same name of another run."""
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if target:
        path.symlink_to(Path(target, name).resolve())
    else:
        path.touch()


MODEL, MANIFEST = "kolmogorov/models/pointwise.safetensors", "kolmogorov/shards/manifest.json"
SEGMENT = "kolmogorov/rollouts/solver/0-1/segment_0000.nc"


def test_a_point_that_has_made_a_file_remains_its_maker_where_a_value_is_put_first(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old, *others = swept(root, {"methods.sns.steps": [20, 40]}).points
    for name in (MANIFEST, SEGMENT):
        made(old.folder, name)
        made(others[0].folder, name, old.folder)
        made(others[0].folder, str(record_path(Path(name))))
    first, *rest = swept(root, {"methods.sns.steps": [60, 40, 20]}).points
    for name in (MANIFEST, SEGMENT):
        assert maker_of(name, first.linked) == f"{old.folder}/{name}" == maker_of(name, rest[0].linked)
    assert maker_of(MODEL, rest[1].linked) == f"{first.folder}/{MODEL}", "nobody has made it yet"
    assert not any(re.fullmatch(pattern, MANIFEST) for pattern in rest[1].linked)


def test_a_point_that_has_left_the_grid_remains_the_maker_of_its_files(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old, new = swept(root, {"methods.sns.steps": [20, 40]}).points
    for name in (MANIFEST, MODEL):
        made(old.folder, name)
        made(new.folder, name, old.folder)
    assert not swept(root, {"methods.sns.steps": [40]}).former, "a run that is not finished"
    Path(old.folder, "provenance.json").write_text(json.dumps({"configuration": old.whole}))
    sweep = swept(root, {"methods.sns.steps": [40]})
    assert [point.folder for point in sweep.former] == [old.folder] and len(sweep.points) == 1
    assert maker_of(MODEL, sweep.points[0].linked) == f"{old.folder}/{MODEL}"
    longer = swept(root, {"methods.sns.steps": [40]}, models={"pointwise": {"training": {"steps": 80}}})
    assert not any(re.fullmatch(pattern, MODEL) for pattern in longer.points[0].linked), "its settings are others"


def test_a_point_that_keeps_a_file_of_former_settings_does_not_replace_the_maker(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = swept(root, {"methods.sns.steps": [20, 40]}).points
    restart = "kolmogorov/rollouts/solver/0-1/restart_0000.safetensors"
    made(first.folder, restart)
    made(second.folder, restart)
    made(second.folder, SEGMENT)
    assert maker_of(SEGMENT, swept(root, {"methods.sns.steps": [20, 40]}).points[0].linked).startswith(second.folder)


def test_a_question_about_a_point_knows_its_links(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(root))
    maker, point = swept(root, {"methods.pointwise.steps": [20, 40]}, use={"methods": ["solver", "pointwise"]}).points
    snakefile, config = str(root / "Snakefile"), {**point.whole, "linked": point.linked}
    with graph_of_jobs(snakefile, config, ["verify"]) as graph:
        config_of_rule = json.loads(Path(next(iter(graph.jobs)).params.configuration).read_text())
    names = [f"kolmogorov/data/{split}.nc" for split in ("train", "validation", "test", "reference")]
    for name in (*names, MANIFEST, MODEL):
        made(maker.folder, name)
    stages = {str(job.outputs[0]): job.stage for job in expected_jobs(snakefile, config_of_rule, ["data", "models"])}
    assert stages == {f"{point.folder}/{name}": "link_result" for name in (MANIFEST, MODEL)}


def test_the_plan_of_a_sweep_counts_what_points_share_once(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(root))
    grid = {"methods.pointwise.steps": [20, 40]}
    config = merged(root, {"run": "mine", "sweep": grid, "use": {"methods": ["solver", "pointwise"]}})
    rows = plan.estimate_all(config, expected_jobs(str(root / "workflow/sweep.smk"), config))
    assert Counter(job.stage for job, _ in rows)["train_model"] == 1
    work = Counter()
    for job, estimate in rows:
        if job.stage == "rollout_segment" and job.arguments["name"] == "pointwise":
            work[job.outputs[0].parts[2]] += estimate.work["inference"].flops
    assert work["steps40"] == 2 * work["steps20"] > 0


def test_points_of_other_lengths_share_no_frames_that_stand_for_the_rollout(root):
    short, long = swept(root, {"rollout.block_steps": [5, 10]}).points
    assert not any(re.fullmatch(pattern, "kolmogorov/data/continued.nc") for pattern in long.linked)
    for name in ("data/test.nc", "data/stationarity.csv", "shards/manifest.json"):
        assert maker_of(f"kolmogorov/{name}", long.linked) == f"{short.folder}/kolmogorov/{name}"


def test_what_is_fitted_to_the_points_is_said_once(root):
    short = {"rollout": {"steps": 30, "segment_steps": 30}, "metrics": {"window": 30}}
    (note,) = swept(root, {"seed": [0, 1]}, **short).notes
    assert note.startswith("figures.fields.steps: ") and "figure 1 shows 0, 30" in note
    assert not swept(root, {"seed": [0, 1]}).notes


def test_overlays_have_names_and_equal_names_of_axes_are_told_apart(root):
    grid = {
        "length": {
            "short": {"models": {"pointwise": {"training": {"steps": 20}}}},
            "long": {"models": {"pointwise": {"training": {"steps": 30}}}},
        },
        "use.methods": [["solver", "pointwise"], ["solver"]],
        "models.sns_white.training.steps": [20],
        "models.sns_residual.training.steps": [40],
    }
    sweep = swept(root, grid)
    assert sweep.axes == ("length", "methods", "models.sns_white.training.steps", "models.sns_residual.training.steps")
    assert [(p.place["length"], p.place["methods"]) for p in sweep.points] == [
        ("short", 0), ("short", 1), ("long", 0), ("long", 1),
    ]  # fmt: skip
    assert [point.whole["models"]["pointwise"]["training"]["steps"] for point in sweep.points] == [20, 20, 30, 30]
    assert len({point.name for point in sweep.points}) == 4 and max(len(point.name) for point in sweep.points) < 64


def test_an_axis_is_not_called_like_a_column_of_the_table(root, tmp_path):
    sweep = swept(root, {"rollout.members": [1, 2]})
    assert sweep.axes == ("rollout.members",)
    rows = dict.fromkeys(COLUMNS, 1) | {"method": "solver", "score": "spectrum_error"}
    pd.DataFrame([rows]).to_csv(tmp_path / "scorecard.csv", index=False)
    output = tmp_path / "sweep.csv"
    places = [point.place for point in sweep.points]
    tabulate_sweep(
        scorecards=[tmp_path / "scorecard.csv"] * 2, places=places, output=output, output_readable=tmp_path / "sweep.md"
    )
    table = pd.read_csv(output)
    assert table["rollout.members"].tolist() == [1, 2]
    assert set(table) == {*COLUMNS, "rollout.members"} - {"value"}


def test_true_false_and_null_are_called_by_their_names(root):
    grid = {"methods.sns_published.renoise": [True, False], "methods.sns_published.max_level": [None, 3]}
    places = [point.place for point in swept(root, grid).points]
    assert [(place["renoise"], place["max_level"]) for place in places] == [
        ("true", "null"), ("true", 3), ("false", "null"), ("false", 3),
    ]  # fmt: skip


def test_without_a_grid_three_seeds_are_run(root):
    assert [point.place for point in read(merged(root)).points] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]


MISTAKES = {
    "no values": ({"seed": []}, "sweep.seed: must be a list of values, or overlays by their names"),
    "one value": ({"seed": 3}, "sweep.seed: must be a list of values"),
    "a list of axes": ([{"seed": [1]}], "sweep: must map each key to the list of its values"),
    "no overlay": ({"length": {"short": 3}}, "sweep.length.short: must be an overlay"),
    "a value twice": ({"seed": [1, 1]}, "sweep: two points have the name 'seed1'"),
    "values that differ in signs": (
        {"length": {"a.b": {}, "a_b": {}}},
        "sweep: the names of the points 'lengtha.b' and 'lengtha_b' differ in signs alone",
    ),
    "the name of the run": ({"run": ["a", "b"]}, "sweep.run: each point has a folder of its own"),
    "too many": ({"seed": list(range(1001))}, "sweep: 1001 points, and at most 1000 are allowed"),
    "a misspelt key": ({"rollout.membrs": [1]}, 'sweep, point membrs1: rollout: unknown key "membrs"; did you mean'),
    "a value out of bounds": (
        {"rollout.members": [1, 100]},
        "sweep, point rollout.members100: rollout.members: 100 exceeds the",
    ),
    "a column of the table": ({"method": {"a": {}}}, "sweep.method: is the name of a column of the sweep's table"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_grid_or_at_a_point_is_one_line(root, mistake):
    grid, words = MISTAKES[mistake]
    with pytest.raises(ConfigurationError) as error:
        swept(root, grid)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_single_run_refuses_a_grid_with_the_way_out(root):
    with pytest.raises(ConfigurationError, match=r"sweep: .*call snakemake -s workflow/sweep\.smk with it"):
        configuration.read(merged(root, {"sweep": GRID}))


def test_a_sweep_runs_once_shares_its_data_and_runs_only_what_is_added(root, tmp_path):
    overlay = {
        "run": "mine",
        "use": {"methods": ["solver", "pointwise"]},
        "rollout": {"steps": 40, "segment_steps": 40},
        "metrics": {"window": 40},
        "figures": {"fields": {"steps": [0, 40]}},
        "sweep": {"methods.pointwise.steps": [20, 40]},
    }

    def call(*flags: str) -> str:
        line = command(root, tmp_path, *flags, overlay=yaml.safe_dump(overlay), python=warm_python.executable())
        line[line.index(str(root / "Snakefile"))] = str(root / "workflow/sweep.smk")
        done = subprocess.run(line, env=warm_python.environment(), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    call("sweep")
    folder = tmp_path / "results/mine-sweep"
    shards, link = (folder / f"steps{steps}/kolmogorov/shards/manifest.json" for steps in (20, 40))
    assert link.is_symlink() and link.resolve() == shards and not shards.is_symlink()
    model = folder / "steps40/kolmogorov/models/pointwise.safetensors"
    assert (
        model.is_symlink() and not (folder / "steps40/kolmogorov/rollouts/pointwise/0-1/segment_0000.nc").is_symlink()
    )
    table = pd.read_csv(folder / "sweep.csv")
    assert set(table["steps"]) == {20, 40} and set(table["runs"]) == {1}
    horizons = table[(table["score"] == "stability_horizon") & (table["method"] == "pointwise")]
    assert horizons.set_index("steps")["mean"].le([20, 40]).all()
    assert (folder / "sweep.png").exists() and "| 20 | pointwise |" in (folder / "sweep.md").read_text()
    assert "Nothing to be done" in call("sweep")

    overlay["sweep"]["methods.pointwise.steps"].append(30)
    states = call("status")
    assert re.search(r"^steps20  (\d+) results: \1 done$", states, re.M)
    assert re.search(r"^steps30  (\d+) results: \1 missing$", states, re.M) and "left on 2 cores" in states
    call("sweep")
    assert (folder / "steps30/kolmogorov/models/pointwise.safetensors").is_symlink()
    assert set(pd.read_csv(folder / "sweep.csv")["steps"]) == {20, 30, 40}
    assert re.search(r"^(\d+) results of this configuration: \1 done$", call("verify"), re.M)

    overlay["sweep"]["methods.pointwise.steps"].remove(20)
    states = call("status")
    for point in ("steps40", "steps30", "steps20"):
        assert re.search(rf"^{point}  (\d+) results: \1 done$", states, re.M), "the first value was taken away"
