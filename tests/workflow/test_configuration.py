"""Every mistake in a configuration is one line that names the key and the way out."""

import copy
import inspect
import math
import typing

import pytest
import yaml
from helpers import write_shallow_water

from sns_core import options as options_module
from sns_core import plugins
from sns_core.catalogue import METHODS, OBJECTIVES, SYSTEMS
from sns_core.data.pairs import SYMMETRIES
from sns_core.diffusion import PATHS
from sns_core.diffusion.prediction import KINDS as PREDICTIONS
from sns_core.diffusion.readout import KINDS
from sns_core.plugins import load
from sns_core.stages import STAGES
from sns_workflow import configuration, sweep
from sns_workflow.configuration import ConfigurationError, resolve, segments, validate
from sns_workflow.fingerprint import fingerprint, modules

SOLVER = "systems.kolmogorov.solver"

# (key to set, value, words of the message). The value None deletes the key.
MISTAKES = {
    "misspelt top key": ("rolout", {}, ['unknown key "rolout"', "'rollout'"]),
    "misspelt deep key": ("models.pointwise.training.leraning_rate", 1.0, ["models.pointwise.training", "'learning_rate'"]),
    "misspelt section of a model": ("models.pointwise.trainig", {"steps": 3000}, ["models.pointwise.trainig", "did you mean 'training'?"]),
    "misspelt option of a model": ("models.sns_student.runup", 4, ["models.sns_student.runup", "did you mean 'run_up'?"]),
    "misspelt steps of a method": ("methods.sns.segment_step", 50, ["methods.sns.segment_step", "did you mean 'segment_steps'?"]),
    "missing key": (f"{SOLVER}.resolution", None, [SOLVER, "'resolution'", "missing"]),
    "negative viscosity": (f"{SOLVER}.viscosity", -1e-3, [f"{SOLVER}.viscosity", "at least 0"]),
    "viscosity as text": (f"{SOLVER}.viscosity", "1e-3", ["viscosity", "is not a number", "1.0e-3"]),
    "a list for a number": ("rollout.steps", [3000], ["rollout.steps", "whole number"]),
    "zero members": ("rollout.members", 0, ["rollout.members", "at least 1"]),
    "odd grid": (f"{SOLVER}.resolution", 63, ["resolution", "a multiple of 2"]),
    "unknown system class": (f"{SOLVER}.class", "KolmogorovFlo", ["class", "did you mean 'KolmogorovFlow'"]),
    "unknown objective": ("models.pointwise.objective", "pointwse", ["objective", "did you mean 'pointwise'"]),
    "unknown path": ("methods.sns_published.path", "left", ["methods.sns_published.path", "left_then_down"]),
    "share out of range": ("methods.thermalizer_of_pairs.readout.refine_share", 1.5, ["readout.refine_share", "between 0 and 1"]),
    "emulator step": ("systems.kolmogorov.emulator.step", 0.053, ["emulator.step", "not a multiple of solver.dt", "0.05"]),
    "emulator finer than the solver": ("systems.kolmogorov.emulator.resolution", 128, ["emulator.resolution", "finer"]),
    "frames of one row": ("systems.kolmogorov.emulator.resolution", [1, 32], ["emulator.resolution", "[1, 32]", "both be N"]),
    "a solver of one row": (f"{SOLVER}.resolution", [1, 64], [f"{SOLVER}.resolution", "whole number"]),
    "network cannot halve": ("systems.kolmogorov.emulator.resolution", 30, ["cannot halve 30", "divide by 4"]),
    "heads divide no width": (
        "models.pointwise.network", {"width": 6, "multipliers": [2, 3], "attention": True}, ["network.width", "18 channels", "of 4"],
    ),
    "forcing unresolved": (f"{SOLVER}.forcing_wavenumber", 40, ["forcing_wavenumber", "at most 20"]),
    "anchor needs longer data": ("models.sns_white.diffusion.anchor_gap", 200, ["models.sns_white", "402 frames"]),
    "a diffusion without use": ("models.pointwise.diffusion", {"levels": 10}, ["models.pointwise.diffusion", "no use for it"]),
    "missing model role": ("methods.sns.models", {"surrogate": "pointwise"}, ["methods.sns.models", "needs a denoiser"]),
    "no such model": ("methods.sns.models.denoiser", "sns_colored", ["no model 'sns_colored'", "'sns_coloured'"]),
    "model of another objective": ("methods.sns.models.denoiser", "pointwise", ["objective 'pointwise'", "needs 'denoiser'"]),
    "role without use": ("methods.pointwise.models.denoiser", "sns_white", ["has no use for a denoiser"]),
    "unknown method in use": ("use.methods", ["solver", "pointwize"], ["use.methods", "did you mean 'pointwise'"]),
    "no solver": ("use.methods", ["pointwise"], ["use.methods", "'solver'"]),
    "more members than the test split": ("rollout.members", 17, ["rollout.members", "16 members"]),
    "steps and blocks": ("rollout.steps", 3010, ["rollout.steps", "rollout.block_steps 50"]),
    "window and blocks": ("metrics.window", 130, ["metrics.window", "rollout.block_steps 50"]),
    "steps and log rows": ("models.pointwise.training.steps", 2050, ["training.steps", "log_every 100"]),
    "run name leaves the folder": ("run", "../elsewhere", ["run", "letters, digits"]),
    "results leave the folder": ("results", "../../etc", ["results", "relative path without .."]),
    "absolute results": ("results", "/etc", ["results", "relative path"]),
    "override of an unknown key": ("systems.kolmogorov.override", {"rollout": {"stepps": 3}}, ["override", "'steps'"]),
    "override of an unknown method": (
        "systems.kolmogorov.override", {"methods": {"thermaliser": {"stride": 2}}},
        ["override.methods.thermaliser", "did you mean 'thermalizer'"],
    ),
    "override of an unknown model": (
        "systems.kolmogorov.override", {"models": {"pointwize": {"network": {"width": 8}}}},
        ["override.models.pointwize", "did you mean 'pointwise'"],
    ),
    "a batch for three": ("hardware.devices", 3, ["training.batch", "does not divide among the 3 of hardware.devices"]),
    "figure of a missing member": ("figures.fields.member", 8, ["figures.fields.member", "8 of rollout.members"]),
    "figure of a step that is not stored": ("figures.fields.steps", [0, 201], ["figures.fields.steps", "frame_stride 4"]),
    "more training frames than there are": ("models.pointwise.training.frames", 500, ["training.frames", "the 400 of"]),
    "more trajectories than there are": ("models.pointwise.training.trajectories", 65, ["training.trajectories", "the 64 of"]),
    "an option of another method": ("methods.pointwise.stride", 2, ["methods.pointwise.stride", "has no such option"]),
    "an option of refinement in place": ("methods.sns.gain", [1.8, 1.0], ["methods.sns.gain", "has no such option"]),
    "level 0 for the next frame": ("methods.sns.level", 0, ["methods.sns.level", "at least 1"]),
    "order of the sampler": ("methods.sns_published.sampler.order", 3, ["sampler.order", "none of 1, 2"]),
    "more starts than the test split": ("metrics.ensemble.starts", 17, ["metrics.ensemble.starts", "16 members"]),
    "a lead without truth": ("methods.sns.leads", [1, 3], ["methods.sns.leads", "3 is not among 1, 2, 5, 10, 20"]),
    "an external method without a file": ("methods.sns", {"label": "x", "kind": "external", "models": {}}, ["methods.sns", "'file'"]),
    "theory without levels": ("theory.levels", [10], ["theory.levels"]),
    "a folder to reuse as text": ("reuse", "gallery/re1e4", ["reuse", "is not a mapping or null"]),
    "null as text": ("reuse", "null", ["reuse", "--config passes null as text", "--configfile"]),
    "half of reuse": ("reuse.folder", "gallery/re1e4", ["reuse", "'solver' is missing"]),
    "groups as text": ("rollout.group_members", "two", ["rollout.group_members", "is not a whole number or null"]),
    "a reference of one member": ("systems.kolmogorov.data.reference.members", 1, ["reference.members", "at least 2"]),
    "a short reference": ("systems.kolmogorov.data.reference.duration", 2.5, ["reference.duration", "rollout.lags; at least 3"]),
    "a check in words": ("systems.kolmogorov.data.require_stationary", "yes", ["require_stationary", "true or false"]),
    "unknown precision": ("hardware.precision", "float16", ["hardware.precision", "none of auto"]),
    "compile in words": ("hardware.compile", "gpu", ["hardware.compile", "is not true or false"]),
}  # fmt: skip


TAKEN = [
    "mse",
    "enstrophy",
    "layer",
    "frame",
    "map_late",
    "window_spectrum_error",
    "relative_change",
    "inside",
    "decorrelation_time",
]


@pytest.mark.parametrize("name", [*TAKEN, "floor_high"])
def test_a_metric_of_the_users_own_replaces_no_quantity_of_ours(config, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("mine.py").write_text(f"def {name}(frames, system): ...\ndef skewness(frames, system): ...\n")
    config["metrics"]["user"] = ["mine.skewness"]
    validate(config)
    config["metrics"]["user"].append(f"mine.{name}")
    with pytest.raises(ConfigurationError) as error:
        validate(config)
    assert f"metrics.user: 'mine.{name}' would stand in files and tables as '{name}'" in str(error.value)
    assert str(error.value).endswith("rename the function") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "names", [("mine.flux", "other.flux"), ("mine.flux_solver", "mine.flux"), ("mine.flux", "mine.flux_solver")]
)
def test_no_column_of_a_metric_is_the_column_of_another(config, tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    for module in ("mine", "other"):
        text = "def flux(frames, system): ...\ndef flux_solver(frames, system): ...\n"
        tmp_path.joinpath(f"{module}.py").write_text(text)
    config["metrics"]["user"] = list(names)
    with pytest.raises(ConfigurationError, match=r"metrics\.user: .* would stand in .* as 'flux(_solver)?'"):
        validate(config)


def put(config: dict, key: str, value) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        config[parent] = {} if config[parent] is None else config[parent]
        config = config[parent]
    if value is None:
        del config[last]
    else:
        config[last] = value


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_clear_line(config, mistake):
    key, value, fragments = MISTAKES[mistake]
    put(config, key, value)
    with pytest.raises(ConfigurationError) as caught:
        validate(config)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    for fragment in fragments:
        assert fragment in message, message


def test_every_configuration_is_valid_on_top_of_the_default(root, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shallow_water(tmp_path)
    for overlay in (root / "config").glob("*.yaml"):
        merged = configuration.merge(copy.deepcopy(config), yaml.safe_load(overlay.read_text()))
        sweep.read(merged) if "sweep" in merged else validate(merged)


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("renoise", False, "true"),
        ("condition_level", 0, "null"),
        ("blind", {"level": 1, "every": 1, "random": False}, "null"),
        ("readout", {"kind": "calibrated", "refine_share": 0.9}, "argmax"),
        ("path", "fixed_condition", "left_then_down"),
    ],
)
def test_bookkeeping_by_indices_refuses_options_that_need_a_clean_level_or_no_noise(config, key, value, remedy):
    config["methods"]["sns_published"]["bookkeeping"] = "indices"
    validate(config)
    config["methods"]["sns_published"][key] = value
    with pytest.raises(ConfigurationError, match=rf"methods\.sns_published\.{key}.*set this to {remedy}, or"):
        validate(config)


def test_an_anchor_that_no_network_sees_is_refused(config):
    config["methods"]["sns_published"]["anchor_frame"] = "resampled"
    validate(config)
    config["models"]["sns_white"]["diffusion"]["anchor"] = False
    with pytest.raises(
        ConfigurationError, match=r"^methods\.sns_published\.anchor_frame: .* 'sns_white' sees no anchor; use"
    ):
        validate(config)


def test_no_two_models_of_the_default_are_one_object(root):
    """An overlay is merged in place, so one object under two keys, as from a YAML alias, would change under both."""
    mappings = []

    def walk(value):
        if isinstance(value, dict):
            assert id(value) not in [id(mapping) for mapping in mappings]
            mappings.append(value)
            for inner in value.values():
                walk(inner)

    walk(yaml.safe_load((root / "config" / "config.yaml").read_text()))


def test_an_override_of_one_model_leaves_the_others(config):
    config["models"]["sns_white"]["network"] = config["models"]["pointwise"]["network"]
    config["systems"]["kolmogorov"]["override"] = {"models": {"pointwise": {"network": {"attention": True}}}}
    models = resolve(config, "kolmogorov")["models"]
    assert models["pointwise"]["network"]["attention"] and not models["sns_white"]["network"]["attention"]


def test_schema_and_code_list_the_same_choices():
    definitions = yaml.safe_load(configuration.SCHEMA.read_text())["$defs"]
    model, diffusion = definitions["model"]["properties"], definitions["diffusion"]["properties"]
    assert set(diffusion["prediction"]["enum"]) == set(PREDICTIONS)
    assert set(model["objective"]["anyOf"][0]["enum"]) == set(OBJECTIVES)
    assert set(definitions["training"]["properties"]["symmetries"]["enum"]) == set(SYMMETRIES)
    solvers = definitions["system"]["properties"]["solver"]["properties"]["class"]["anyOf"][0]["enum"]
    assert set(solvers) == set(SYSTEMS) - {"RecordedFlow"}  # a flow from files has no solver


def test_the_options_of_a_method_are_those_that_its_class_takes():
    for kind, path in METHODS.items():
        build = inspect.signature(load(path).build)
        taken = {name: p for name, p in build.parameters.items() if p.kind is p.KEYWORD_ONLY}
        options = plugins.options_of(kind)
        assert set(options) == set(taken), kind
        assert {name for name, option in options.items() if option.required} == {
            name for name, p in taken.items() if p.default is p.empty
        }
        for name, option in options.items():
            # The type from the syntax tree equals the type that Python evaluates from the annotation.
            assert option.hint == taken[name].annotation, (kind, name)
            if not option.required:
                default = taken[name].default
                assert option.default == default
                value = plugins.check_option(kind, name, default, name)
                # A mapping gets the defaults of the keys that the default of the option leaves out.
                assert value == default or value.items() >= default.items()
        assert plugins.needs_of(kind) == load(path).needs
    # ACDM always walks along the path `acdm`.
    assert set(typing.get_args(options_module.PathName)) == set(PATHS) - {"acdm"}
    kinds = [
        k for hint in typing.get_args(options_module.Readout) for k in typing.get_args(hint.__annotations__["kind"])
    ]
    assert sorted(kinds) == sorted(KINDS)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    {
        "no number": ("stride", "two", 'methods.sns_published.stride: "two" is not a whole number'),
        "a fraction": ("stride", 1.5, "methods.sns_published.stride: 1.5 is not a whole number"),
        "below the least": ("max_level", 0, "methods.sns_published.max_level: 0 must be at least 1"),
        "not a number at all": ("gain", [math.nan, 1], "methods.sns_published.gain.0: nan is not a finite number"),
        "too few values": ("gain", [1.0], r"methods.sns_published.gain: \[1.0\] must have 2 values"),
        "an unknown path": (
            "path",
            "diagnal",
            "methods.sns_published.path: \"diagnal\" is none of .*; did you mean 'diagonal'",
        ),
        "an unknown read-out": ("readout", {"kind": "mode"}, 'methods.sns_published.readout.kind: "mode" is none of'),
        "a read-out without its share": ("readout", {"kind": "quantile"}, "the key 'quantile' is missing"),
        "an unknown key": ("sampler", {"clipped": 1}, 'methods.sns_published.sampler: unknown key "clipped"'),
        "a word for true": ("renoise", "no", 'methods.sns_published.renoise: "no" is not true or false'),
        "an old name": ("joint", True, "is called 'shared_level' now"),
    }.values(),
)
def test_an_option_that_its_method_cannot_take_is_one_line(config, name, value, words):
    config["methods"]["sns_published"][name] = value
    with pytest.raises(ConfigurationError, match=words):
        validate(config)


def test_options_are_resolved_to_their_values(config):
    config["methods"]["sns_published"] |= {"stride": 8.0, "readout": {"kind": "argmax", "refine_share": 0.97}}
    validate(config)
    assert plugins.check_option("refinement", "stride", 8.0, "stride") == 8
    # An overlay that changes the kind of a read-out leaves the old kind's keys behind.
    readout = config["methods"]["sns_published"]["readout"]
    assert plugins.check_option("refinement", "readout", readout, "readout") == {"kind": "argmax"}


def test_override_changes_one_system_only(config):
    config["systems"]["kolmogorov"]["override"] = {
        "rollout": {"steps": 500},
        "models": {"pointwise": {"network": {"width": 8}}},
    }
    resolved = resolve(config, "kolmogorov")
    assert (
        resolved["rollout"]["steps"] == 500 and resolved["rollout"]["block_steps"] == config["rollout"]["block_steps"]
    )
    assert resolved["models"]["pointwise"]["network"]["width"] == 8
    assert config["rollout"]["steps"] == 3000, "the shared configuration must stay as it was"


def test_segments_cover_the_rollout_and_extension_keeps_the_old_ones():
    rollout = {"steps": 100, "segment_steps": 40}
    assert segments({}, rollout) == [(0, 40), (40, 40), (80, 20)]
    assert segments({}, {**rollout, "steps": 200})[:2] == segments({}, rollout)[:2]
    assert segments({"steps": 50, "segment_steps": 50}, rollout) == [(0, 50)]


def test_fingerprint_follows_imports_to_the_defining_module():
    used = modules("rollout_segment", "KolmogorovFlow", METHODS["refinement"])
    for expected in (
        "rollout.engine",
        "methods.refinement",
        "diffusion.plane",
        "networks.unet",
        "systems.kolmogorov",
        "systems.spectral",
    ):
        assert f"sns_core.{expected}" in used
    assert not [
        name for name in used if name.startswith(("sns_core.figures", "sns_core.training.train", "sns_core.report"))
    ]
    assert "sns_core.methods.acdm" not in used, "an edit of another method must not make this one run again"
    assert "sns_core.training.train" not in modules("simulate_trajectories", "KolmogorovFlow")


def test_training_does_not_wait_for_a_check_that_cannot_find_a_drift(config):
    data = config["systems"]["kolmogorov"]["data"]
    data["splits"]["validation"]["members"] = 1
    validate(config)
    data["require_stationary"] = True
    with pytest.raises(
        ConfigurationError, match=r"require_stationary: true needs at least 2 members in data\.splits\.validation"
    ):
        validate(config)


@pytest.mark.slow
def test_fingerprint_ignores_comments_and_notices_code(monkeypatch, tmp_path, root):
    import shutil

    from sns_workflow import fingerprint as module

    shutil.copytree(root / "sns_core", tmp_path / "sns_core", ignore=shutil.ignore_patterns("__pycache__"))

    def prints():
        module.forget()
        return {stage: fingerprint(stage, "KolmogorovFlow") for stage in STAGES}

    monkeypatch.setattr(module, "ROOT", tmp_path)
    before = prints()
    schedule = tmp_path / "sns_core" / "diffusion" / "schedule.py"
    text = schedule.read_text()
    schedule.write_text("# a comment\n" + text.replace('"""The variance-preserving', '"""A variance-preserving'))
    assert prints() == before
    schedule.write_text(text.replace("offset: float = 0.008", "offset: float = 0.009"))
    changed = {stage for stage, value in prints().items() if value != before[stage]}
    assert changed == {
        "train_model",
        "calibrate_refinement",
        "rollout_segment",
        "rollout_ensemble",
        "rollout_grids",
        "measure_cost",
        "diagnose_denoiser",
        "compute_theory",
        "plot_phase_space",
    }
    schedule.write_text(text)
    solver = tmp_path / "sns_core" / "systems" / "schemes.py"
    solver.write_text(solver.read_text().replace("0.1496590219993", "0.1496590219994"))
    changed = {stage for stage, value in prints().items() if value != before[stage]}
    assert "simulate_trajectories" in changed and "train_model" in changed
    monkeypatch.undo()
    prints()


@pytest.mark.parametrize("old", [old for old in configuration.RENAMED if not old.startswith("methods.")])
def test_the_message_for_an_old_key_names_the_new_key(config, old):
    """Another test, beside the check of methods, covers the keys of methods."""
    old, new = (key.replace("*", "acdm") for key in (old, configuration.RENAMED[old]))
    *parents, last = new.split(".")
    holder = config
    for parent in parents:
        holder = holder[parent]
    value = holder.pop(last)
    put(config, old, value if value is not None else False)
    with pytest.raises(ConfigurationError, match=f"^{old.replace('.', '[.]')}: was renamed to {new}$"):
        validate(config)


def test_a_configuration_with_old_keys_is_read_with_new_keys(config):
    del config["hardware"]["checkpoint_minutes"]  # came later, and had no old name
    old = copy.deepcopy(config)
    hardware, old["given"] = old.pop("hardware"), old.pop("reuse")
    old |= hardware
    old["rollout"]["block"] = old["rollout"].pop("block_steps")
    old["metrics"]["extra"] = old["metrics"].pop("user")
    old["metrics"]["cost"]["finest"] = old["metrics"]["cost"].pop("finest_forecast")
    old["metrics"]["diagnose"]["grid"] = old["metrics"]["diagnose"].pop("levels")
    old["theory"]["marks"] = old["theory"].pop("training_steps")
    names = {"shared_level": "joint", "blind": "fixed", "refine_every": "every", "min_level": "threshold",
             "start_from": "begin", "anchor_frame": "anchor", "kind": "stepper"}  # fmt: skip
    for method in old["methods"].values():
        for new in names.keys() & method.keys():
            method[names[new]] = method.pop(new)
        if "refine_share" in method.get("readout", {}):
            method["readout"]["quantile"] = method["readout"].pop("refine_share")
        elif method.get("readout", {}).get("kind") == "argmax":
            method["readout"]["quantile"] = 0.1  # the old schema required this key even if the kind did not use it
    for model in old["models"].values():
        model["training"]["low_condition"] = model["training"].pop("low_condition_share")
    assert configuration.with_new_names(old) == config
    assert configuration.with_new_names(copy.deepcopy(config)) == config


def test_the_page_of_renamed_keys_lists_all_of_them(root):
    rows = [
        line.split("|") for line in (root / "docs" / "configuration-keys.md").read_text().splitlines() if "`" in line
    ]
    listed = {row[1].strip(" `"): row[2].strip(" `") for row in rows if len(row) > 3}
    assert listed == configuration.RENAMED
