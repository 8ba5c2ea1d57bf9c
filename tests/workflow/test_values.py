"""Values without a meaning, and values that contradict each other: each mistake is one line with its place."""

import copy
import datetime
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
import yaml
from jsonschema import Draft202012Validator
from test_configuration import put

from sns_workflow import configuration, sweep
from sns_workflow.config_files import ConfigFiles
from sns_workflow.configuration import ConfigurationError, read

SOLVER = "systems.kolmogorov.solver"
DATA = "systems.kolmogorov.data"

# Values that YAML or Python allow but that have no meaning here: (key, value, words of the message).
MEANINGLESS = {
    "a date": ("run", datetime.date(2026, 1, 1), "run: 2026-01-01 is a date to YAML; put it in quotes"),
    "bytes": ("run", b"x", "run: b'x' is binary data"),
    "a set": ("use.methods", {"solver"}, "is a set to YAML"),
    "a line break": ("run", "smoke\n", "holds a line break"),
    "half of a character": ("methods.sns.label", "\ud800", "cannot be printed"),
    "a number as a key": ("rollout", {1: 2}, "the key 1 is a number to YAML"),
    "null as a key": ("rollout", {None: 2}, "the key null is null to YAML"),
    "true as a key": ("rollout", {True: 2}, "the key true is true or false to YAML"),
    "NaN": ("metrics.ensemble.disturbance", math.nan, "metrics.ensemble.disturbance: nan is not a finite number"),
    "infinity": (f"{DATA}.spin_up", math.inf, "spin_up: inf is not a finite number"),
    "NaN in a list": ("metrics.cost.grids", [1, math.nan], "metrics.cost.grids.1: nan is not a finite number"),
    "a huge seed": ("seed", 10**40, "is too large"),
    "half a member": ("rollout.members", 2.5, "rollout.members: 2.5 is not a whole number"),
    "a number as a name": ("run", 2026, "run: 2026 is not text; put it in quotes"),
    "no as a label": ("methods.sns.label", False, "YAML reads yes, no, on and off as true and false"),
    "text as a number": ("rollout.members", "8", "it is text: leave out the quotes"),
    "a long name": ("run", "x" * 300, "must have at most 64 characters"),
    "braces in a path": ("reuse", {"folder": "a{b}", "solver": False}, "a path without braces"),
    "one frame": ("models.pointwise.training.frames", 1, "frames: 1 must be at least 2"),
    "a walltime without quotes": ("metrics.dask.options", {"walltime": 43200}, "options.walltime: 43200 is not text"),
}

# Values that do not fit each other.
UNFIT = {
    "frames for the map of lags": ("methods.sns.steps", 50, "methods.sns.steps: 50 steps of 'sns' store 13 frames, and "),
    "shells in the wrong order": ("metrics.shells", [6, 1], "between 1 and 16"),
    "no shell": ("metrics.shells", [0, 0], "between 1 and 16"),
    "shells beyond the grid": ("metrics.shells", [1, 100], "between 1 and 16"),
    "a window longer than the rollout": ("metrics.window", 3050, "metrics.window: 3050 exceeds rollout.steps, 3000"),
    "a lead longer than the rollout": ("metrics.ensemble.leads", [1, 2, 5, 10, 20, 10**8], "exceeds rollout.steps, 3000"),
    "lags longer than a rollout": (
        "systems.kolmogorov.override",
        {"rollout": {"lags": 600}, "methods": {"sns_generation": {"steps": 500, "segment_steps": 500}}},
        "rollout.lags: 600 exceeds the 500 steps of the method",
    ),
    "warm-up longer than training": ("models.pointwise.training.warmup", 2001, "warmup: 2001 exceeds training.steps, 2000"),
    "groups above members": ("rollout.group_members", 9, "rollout.group_members: 9 exceeds rollout.members, 8"),
    "groups above all splits": (f"{DATA}.group_members", 65, "group_members: 65 exceeds the members of every split, 64"),
    "the finest of no grid": ("metrics.cost.finest_forecast", 3, "3 is neither 1 nor among metrics.cost.grids"),
    "a stride above S": ("methods.sns_published.stride", 101, "methods.sns_published.stride: 101 exceeds the 100 noise levels"),
    "a bound above S": ("methods.sns_published.max_level", 101, "methods.sns_published.max_level: 101 exceeds the 100 noise levels"),
    "a level above S": ("methods.sns.level", 101, "methods.sns.level: 101 exceeds the 100 noise levels"),
    "a blind level above S": ("methods.sns_published.blind", {"level": 101, "every": 2, "random": False}, "blind.level: 101 exceeds"),
    "levels that none refines": ("methods.thermalizer_of_pairs.min_level", 9, "min_level: 9 exceeds max_level 8"),
    "a clean path from an estimated level": ("methods.sns_published.path", "clean", "path: 'clean' needs condition_level 0, not null"),
    "an unconditional path beside a frame": (
        "methods.sns_generation.path", "unconditional", "path: 'unconditional' needs condition_level 100, not null"
    ),
    "two orders with fresh noise": ("methods.sns_published.sampler", {"order": 2}, "sampler.eta: 1 must be 0 with order 2"),
    "two orders under fresh noise": (
        "methods.sns_generation", {"label": "ACDM", "kind": "acdm", "models": {"denoiser": "sns_white"}, "sampler": {"eta": 0, "order": 2}},
        "methods.sns_generation.sampler.order: 2 must be 1",
    ),
    "noise on the input of a denoiser": ("models.sns_residual.training.input_noise", 0.1, "training.input_noise: 0.1 has no effect"),
    "steps fed back to a denoiser": ("models.sns_residual.training.unroll", 2, "training.unroll: 2 has no effect"),
    "low levels of a surrogate": ("models.pointwise.training.low_condition_share", 0.5, "with the objective 'pointwise'; set it to 0"),
    "low levels of no sample": ("models.sns_residual.training.low_condition_share", 0.03, "0.03 is no sample of a batch of 16"),
    "shells of a surrogate": ("models.pointwise.training.shell_weight", 1, "training.shell_weight: 1 has no effect"),
    "levels to examine": ("metrics.diagnose.levels", 102, "exceeds the 101 noise levels, 0 included"),
    "an empty label": ("methods.sns.label", " ", "methods.sns.label"),
    "a hidden label": ("methods.sns.label", "_sns", "does not begin with '_'"),
    "two methods of one label": ("methods.sns.label", "Pointwise", "is the label of 'pointwise' too"),
    "a movie of another run": ("figures.movie.methods", ["solver", "acdm"], "'acdm' is not in use.methods"),
    "a surrogate that is not run alone": ("use.methods", ["solver", "sns"], "'sns' refines the surrogate 'pointwise'"),
    "no rollout of a surrogate": ("use.methods", ["solver", "sns"], "a method of the kind 'pointwise' or 'stochastic_surrogate'"),
    "exponents for two channels": ("models.sns_residual.diffusion.colour", [0.2, 0.3, 0.4], "3 exponents for 1 channels"),
    "another method as the solver": ("methods.solver", {"label": "S", "kind": "pointwise", "models": {"surrogate": "pointwise"}},
                                     "methods.solver: every method is compared to this one"),
    "twice the same": ("use.methods", ["solver", "solver"], 'use.methods: "solver" stands twice'),
}  # fmt: skip

# Absurd amounts of work: the message gives the amount.
ABSURD = {
    "members": (f"{DATA}.splits.test.members", 10**9, "4,096 TB of frames"),
    "frames": (f"{DATA}.splits.train.frames", 10**9, "TB of frames"),
    "segments": ("rollout", {"steps": 6_000_000, "segment_steps": 50}, "120,000 segments of 6,000,000 steps"),
    "the solver's time step": (f"{SOLVER}.dt", 1e-9, "solver steps (spin_up over solver.dt 1e-09) in turn"),
    "the spin-up": (f"{DATA}.spin_up", 1e12, "solver steps (spin_up over solver.dt 0.01) in turn"),
    "a segment": ("rollout", {"steps": 10**10, "segment_steps": 10**10}, "hours on any machine"),
    "training": ("models.pointwise.training.steps", 10**10, "training steps in turn"),
    "a network": ("models.pointwise.network", {"width": 8192, "multipliers": [64, 64]}, "TB of weights"),
    "an ensemble": ("metrics.ensemble.members", 10**9, "TB of"),
    "pairs": ("metrics.diagnose.pairs", 10**11, "TB of memory"),
}

NAMES = {
    "a file of the run": ("systems", "report.html", "a run's folder uses this name itself"),
    "a folder of the run": ("systems", "logs", "a run's folder uses this name itself"),
    "the reference": ("methods", "reference", "a run's folder uses this name itself"),
    "a missing value": ("methods", "NA", "read this name as a number or a missing value"),
    "a number": ("methods", "1e4", "read this name as a number or a missing value"),
    "true": ("models", "true", "read this name as a number or a missing value"),
    "another case": ("methods", "SNS", "differs from 'sns' in case alone"),
    "a space": ("models", "my model", "letters, digits"),
}


def refused(config: dict, files: ConfigFiles | None = None) -> str:
    """Return the message of a refused configuration. Check that it is one short line."""
    with pytest.raises(ConfigurationError) as caught:
        read(config, files)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("case", [*MEANINGLESS, *UNFIT, *ABSURD])
def test_a_value_without_a_meaning_is_refused(config, case):
    key, value, words = {**MEANINGLESS, **UNFIT, **ABSURD}[case]
    if isinstance(value, dict) and case in ABSURD:
        for name, inner in value.items():
            put(config, f"{key}.{name}", inner)
    else:
        put(config, key, value)
    message = refused(config)
    assert words in message, message
    if case in ABSURD:
        assert "nothing has been started" in message


@pytest.mark.parametrize("case", NAMES)
def test_a_name_that_collides_is_refused(config, case):
    section, name, words = NAMES[case]
    config[section][name] = copy.deepcopy(next(iter(config[section].values())))
    assert words in refused(config)


def test_a_value_that_contains_itself_is_refused(config):
    config["metrics"]["cost"]["grids"].append(config["metrics"]["cost"]["grids"])
    assert "contains itself" in refused(config)
    deep = inner = {}
    for _ in range(100):
        inner["x"] = inner = {}
    assert "mappings deep" in refused({**config, "rollout": deep})


def test_equal_numbers_are_one_value(config):
    changed = copy.deepcopy(config)
    changed["rollout"] |= {"members": 8.0, "steps": 3e3}
    changed["systems"]["kolmogorov"]["data"]["spin_up"] = 40
    changed["metrics"]["cost"]["grids"] = [0.5, 0.625, 0.75, 1.0, 2.0, 4, 8.0]
    before, after = read(config), read(changed)
    assert before == after and repr(before) == repr(after)
    assert isinstance(after.whole["rollout"]["members"], int)
    assert isinstance(after.systems["kolmogorov"]["data"]["spin_up"], float)


def test_a_key_that_is_left_out_has_its_default(config):
    """A user's system and model set the required keys. Defaults fill in the rest."""
    least = copy.deepcopy(config)
    del least["hardware"], least["reuse"], least["metrics"]["user"], least["rollout"]["group_members"]
    system = least["systems"]["kolmogorov"]
    del system["override"], system["data"]["group_members"], system["data"]["shard_members"]
    assert read(least) == read(config)
    least["models"]["sns_coloured"] = {
        "objective": "denoiser",
        "network": {"width": 8, "multipliers": [1, 2]},
        "diffusion": {"levels": 10},
        "training": {"steps": 100, "batch": 4, "learning_rate": 1e-3},
    }
    least["use"]["methods"] = ["solver", "pointwise", "sns_in_place"]
    least["metrics"]["diagnose"]["levels"] = 11
    model = read(least).systems["kolmogorov"]["models"]["sns_coloured"]
    assert model["training"]["trajectories"] is None and model["diffusion"]["anchor"] is False
    least["systems"]["kolmogorov"]["override"] = {"models": {"new": copy.deepcopy(least["models"]["sns_coloured"])}}
    assert read(least).systems["kolmogorov"]["models"]["new"]["network"]["patch"] == 1


def test_the_defaults_of_the_schema_are_values_that_it_allows():
    def check(part: dict):
        if "default" in part and "$ref" not in part:
            assert Draft202012Validator(part).is_valid(part["default"])
        for inner in part.values():
            if isinstance(inner, dict):
                check(inner)

    check(configuration.schema())


FILES = {
    "rollout: {steps: 5}\nuse: {methods: [solver]}\nrollout: {steps: 6}\n": "line 3: rollout: the key stands twice, in line 1 too",
    "rollout:\n  steps: 5\n  members: 2\n  steps: 6\n": "line 4: rollout.steps: the key stands twice, in line 2 too",
    "x: &x [1, *x]\n": "line 1: x.1 contains itself",
    "metrics: {dask: {options: {walltime: 12:00:00}}}\n": "line 1: metrics.dask.options.walltime: 12:00:00 is the number 43200",
    "rollout:\n  steps: 0100\n": "line 2: rollout.steps: 0100 is the number 64",
    "# nothing\n": "the file is empty",
    '{\n\t"seed": 1,\n\t"seed": 2\n}': "line 3: seed: the key stands twice, in line 2 too",
}  # fmt: skip


@pytest.mark.parametrize("text", FILES)
def test_a_duplicate_key_and_a_misleading_number_are_refused(config, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.yaml"
    path.write_text(text)
    message = refused(config, ConfigFiles([path]))
    assert message.startswith("own.yaml") and FILES[text] in message, message


REPEATED = {
    "--config run=mine --config seed=1": "--config: stands 2 times in this call",
    "-C run=mine --cores 2 --config=seed=1 -n": "--config: stands 2 times in this call",
    "-Crun=mine -Cseed=1": "--config: stands 2 times in this call",
    "--configfile a.yaml --configfile b.yaml": "--configfile: stands 2 times in this call",
    "--configfile a.yaml --configfiles=b.yaml": "put all after one: --configfile first.yaml second.yaml",
    "-n --configfile a.yaml b.yaml --config run=mine seed=1 --cores 2 -- --config": "",
    "-c2 -C run=-C": "",
}


@pytest.mark.parametrize("reader", [configuration.read_or_stop, sweep.read_or_stop], ids=["run", "sweep"])
@pytest.mark.parametrize("words", REPEATED)
def test_an_option_of_which_snakemake_would_drop_one_is_refused(config, monkeypatch, capsys, reader, words):
    monkeypatch.setattr("sys.argv", ["snakemake", *words.split()])
    settings = SimpleNamespace(config={})
    modifier = SimpleNamespace(path_modifier=SimpleNamespace(replace_prefix=lambda path: path))
    workflow = SimpleNamespace(
        overwrite_configfiles=[], config_settings=settings, is_main_process=True, modifier=modifier
    )
    if not REPEATED[words]:
        reader(config, workflow)
        return
    with pytest.raises(SystemExit):
        reader(config, workflow)
    text = capsys.readouterr().err
    assert text.startswith("Configuration: --config") and REPEATED[words] in text and text.count("\n") == 1
    workflow.is_main_process = False
    reader(config, workflow)


def test_a_message_names_the_file_and_the_line(config, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("seed: 3\nbase: &base {lags: 7}\nrollout:\n  <<: *base\n  members: 99\n")
    second.write_text("methods:\n  sns.v2:\n    label: x\n    steps: two\n")
    files = ConfigFiles([first, second], root / "config" / "config.yaml", {"results": {"a": 1}})
    places = {
        "rollout.members": "first.yaml, line 5: ",
        "rollout.lags": "first.yaml, line 2: ",
        "rollout.members.deeper": "first.yaml, line 5: ",
        "methods.sns.v2.steps": "second.yaml, line 4: ",
        "methods.sns.v2.stride": "second.yaml, line 2: ",
        "results": "--config: ",
        "nothing": "",
    }
    assert {key: files.locate(key) for key in places} == places
    assert files.locate("metrics.window").startswith(f"{root / 'config' / 'config.yaml'}, line ")
    merged = configuration.merge(
        config, yaml.safe_load(first.read_text().replace("base: &base {lags: 7}\n", "").replace("*base", "{}"))
    )
    assert refused(merged, files).startswith("first.yaml, line 5: rollout.members: 99 exceeds")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("rollout: {block_steps: 70}", "line 1: rollout.steps: 3000 is not a multiple of rollout.block_steps 70"),
        ("hardware: {devices: 3}", "line 1: models.pointwise.training.batch: 16 does not divide among the 3 of"),
        ("seed: 1\nrollout: {frame_stride: 7}", "line 2: figures.fields.steps: 200 is not stored"),
        (
            "models:\n  pointwise:\n    training: {log_every: 300}",
            "line 3: models.pointwise.training.steps: 2000 is not",
        ),
        (
            "run: mine\nuse: {methods: [solver, pointwise, sns_distilled]}",
            "line 2: models.sns_student.calibration: 'sns' is not in use.methods",
        ),
        (
            "systems: {kolmogorov: {solver: {dt: 0.03}}}",
            "line 1: systems.kolmogorov.emulator.step: 0.05 is not a multiple",
        ),
    ],
)
def test_a_message_about_a_default_names_the_line_that_makes_it_a_mistake(
    config, root, tmp_path, monkeypatch, change, words
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.yaml"
    path.write_text(change)
    merged = configuration.merge(config, yaml.safe_load(change))
    message = refused(merged, ConfigFiles([path], root / "config" / "config.yaml"))
    assert message.startswith(f"own.yaml, {words}"), message
    typed = ConfigFiles([], root / "config" / "config.yaml", yaml.safe_load(change))
    assert refused(merged, typed).startswith(f"--config: {words.partition(': ')[2]}")


def test_a_source_whose_splits_have_other_names_is_told_the_names(config):
    files = {"train": "a.nc", "val": "b.nc", "test": "c.nc"}
    config["systems"]["mine"] = {"source": {"files": files, "variables": ["b"]}}
    config["use"]["systems"] = ["mine"]
    message = refused(config)
    assert message.startswith('systems.mine.source.files: unknown key "val"') and "validation" in message


@pytest.mark.parametrize("test", ["a/*.nc", "a/../a/2.nc", ["b/3.nc", "b/link.nc"]])
def test_a_file_in_two_splits_is_refused(config, tmp_path, monkeypatch, test):
    """A rollout must not be compared with a trajectory from which its model has learnt."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.nc", "a/2.nc", "b/1.nc", "b/3.nc"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("b/link.nc").symlink_to(tmp_path / "a/2.nc")
    files = {"train": "a/*.nc", "validation": "b/1.nc", "test": test}
    config["systems"]["mine"] = {"source": {"files": files, "variables": ["b"]}}
    config["use"]["systems"] = ["mine"]
    message = refused(config)
    assert message.startswith("systems.mine.source.files: ") and "'train' and in 'test'" in message
    assert message.endswith("name other files, or one pattern for all splits (source.splits)")


def write_source(folder: Path, frames: int, units: str, members: int = 10) -> dict:
    """Write small members, and return a source that reads them."""
    axes = {
        "member": range(members),
        "time": 0.5 * np.arange(frames),
        "y": 5.0 * np.arange(16),
        "x": 5.0 * np.arange(16),
    }
    values = np.random.default_rng(1).normal(size=[len(axis) for axis in axes.values()])
    field = xr.DataArray(values, axes, tuple(axes), "b")
    for axis in ("y", "x"):
        field[axis].attrs["units"] = units
    field.to_netcdf(folder / "mine.nc")
    return {"source": {"files": "mine.nc", "variables": ["b"]}}


def test_a_single_test_trajectory_is_refused_with_the_ways_out(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config["systems"]["mine"] = write_source(tmp_path, 200, "m", members=3)
    config["use"] = {"systems": ["mine"], "methods": ["solver", "pointwise"]}
    assert refused(config).startswith("systems.mine.source: holds one test trajectory, and two are needed; name more")
    config["systems"]["mine"]["source"]["pieces"] = 2
    read(config)
    config["use"]["systems"] = ["kolmogorov"]
    put(config, f"{DATA}.splits.test.members", 1)
    config["rollout"]["members"] = 1
    assert refused(config) == f"{DATA}.splits.test.members: 1 must be at least 2, from which forecasts start"


def test_short_test_trajectories_are_said_to_be_short(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config["systems"]["mine"] = write_source(tmp_path, 30, "m")
    config["use"]["systems"] = ["mine"]
    message = refused(config)
    assert "source.files: a test trajectory has 30 frames, and rollout.block_steps 50 needs 51" in message, message
    config["systems"]["mine"]["source"]["start"] = 9
    assert "source.start: 20 frames of a test trajectory follow" in refused(config)


@pytest.mark.parametrize(
    ("frames", "steps", "lags", "map_lags"), [(61, 50, 16, 4), (100, 50, 16, 4), (101, 100, 60, 15)]
)
def test_lags_are_fitted_to_the_whole_blocks_of_short_trajectories(
    config, tmp_path, monkeypatch, frames, steps, lags, map_lags
):
    """The data have 60 steps, say, and stand for the solver in whole blocks of 50: so many steps bound the lags."""
    monkeypatch.chdir(tmp_path)
    config["systems"]["mine"] = write_source(tmp_path, frames, "m")
    config["use"] = {"systems": ["mine"], "methods": ["solver", "pointwise"]}
    resolved = read(config).systems["mine"]
    assert resolved["methods"]["solver"]["steps"] == steps
    assert (resolved["rollout"]["lags"], resolved["metrics"]["map_lags"]) == (lags, map_lags)


@pytest.mark.parametrize(
    ("units", "periodic", "words"),
    [
        ("m", {}, []),
        ("degrees", {"y": False}, ["systems.mine.source: positions are in degrees", "closer along x"]),
        ("degrees_north", {}, ["systems.mine.source: positions are in degrees", "source.periodic: {y: false}"]),
    ],
)
def test_a_run_says_that_latitudes_and_longitudes_are_taken_for_a_plane(
    config, tmp_path, monkeypatch, units, periodic, words
):
    monkeypatch.chdir(tmp_path)
    config["systems"]["mine"] = write_source(tmp_path, 60, units)
    config["systems"]["mine"]["source"]["periodic"] = periodic
    config["use"] = {"systems": ["mine"], "methods": ["solver", "pointwise"]}
    notes = " ".join(line for line in read(config).notes if "degrees" in line)
    assert bool(notes) == bool(words) and all(word in notes for word in words), notes
    assert ("source.periodic" in notes) == (units == "degrees_north")


def test_a_missing_external_rollout_is_named(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config["methods"]["mine"] = {"label": "Mine", "kind": "external", "models": {}, "file": "mine.nc"}
    config["use"]["methods"] = ["solver", "pointwise", "mine"]
    read(config)
    with pytest.raises(ConfigurationError, match=r'methods.mine.file: there is no file "mine.nc"'):
        read(config, files_must_exist=True)


@pytest.mark.parametrize("text", ["[]", "{", '{"files": 1}'])
def test_a_damaged_list_of_a_collected_run_is_one_line(config, tmp_path, text):
    (tmp_path / "given.json").write_text(text)
    config["reuse"] = {"folder": str(tmp_path), "solver": False}
    assert "reuse.folder" in refused(config)


def test_figures_are_fitted_to_a_short_run_with_a_note(config):
    config["rollout"] |= {"steps": 500, "segment_steps": 500, "members": 2}
    for method in config["methods"].values():
        method.pop("steps", None), method.pop("segment_steps", None)
    configuration_read = configuration.read(config)
    figures = configuration_read.whole["figures"]
    assert figures["fields"]["steps"] == [0, 200, 500] and figures["explorer"]["members"] == 2
    assert [line.split(":")[0] for line in configuration_read.notes] == [
        "figures.fields.steps",
        "figures.explorer.members",
    ]
