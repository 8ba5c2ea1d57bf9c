"""Checks that hold values of the configuration against each other, before anything runs.

All of them take the configuration after types and defaults have been settled (config_values.py) and the schema has been
met.
"""

import difflib
from pathlib import Path

from sns_core.catalogue import ALONE, OBJECTIVES, REFINEMENTS
from sns_core.grids import longer_side
from sns_core.plugins import definitions
from sns_workflow.config_models import used_models
from sns_workflow.config_values import ConfigurationError, shown

# Names that a run's folder uses itself, and words that pandas reads from a table as a missing value or as true and
# false.
FOLDERS = {
    "systems": {"logs", "theory", "provenance", "report.html", "progress.html", "provenance.json"},
    "methods": {"reference"},
}
WORDS = {"na", "nan", "null", "none", "true", "false"}

# Columns of metrics.csv and windows.csv, and a dimension, that are no variables of netCDF files
# (`attributes.VARIABLES`).
COLUMNS = {
    "system", "method", "frame", "steps", "first_step", "last_step", "members_lost", "inside", "floor_low", "floor_high",
    "calls_per_step", "seconds_per_step", "out_of_range_step", "out_of_range_share", "level_prev", "level_next",
    "decorrelation_time", "decorrelation_time_late", "member_spectrum_error", "member_spectrum_error_late",
    "window_spectrum_error", "window_spectrum_error_low", "window_spectrum_error_high", "share_beyond_bins",
    "vorticity_distance", "velocity_distance", "gradient_distance", "kinetic_energy_solver", "enstrophy_solver",
    "relative_change_solver",
}  # fmt: skip

CHANNELS = {
    "KolmogorovFlow": 1,
    "KuramotoSivashinsky": 1,
    "TwoLayerQG": 2,
}  # of the systems whose parameters do not name their layers
# Objectives that learn with a diffusion.
DIFFUSED = {"denoiser", "unconditional", "acdm", "distilled_generation", "distilled_refinement"}
# Settings of a training that only some objectives read: the value without an effect, and these objectives.
SURROGATES = {"pointwise", "pushforward", "dissipative"}
READ_BY = {
    "unroll": (1, {*SURROGATES, "crps"}),
    "input_noise": (0, SURROGATES),
    "shell_weight": (0, DIFFUSED),
    "low_condition_share": (0, {"denoiser"}),
}
# Kinds that walk a pair with a sampler of the configuration.
WALKED = ("refinement", "thermalizer", "generation", "acdm")
MOVIE_METHODS = 6  # side by side, where the configuration names none


def channels_of(system: dict) -> int | None:
    """Return the channels of a resolved system's frames.

    None for a system of the user's own, which says so when it runs.
    """
    layers = system["parameters"].get("layers") if system["name"] == "RecordedFlow" else None
    return len(layers) if layers else CHANNELS.get(system["name"])


def nearest(name: str, reference) -> str:
    """Return a hint that ends a message about an unknown name."""
    close = difflib.get_close_matches(name, sorted(reference), 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(reference))[:150]}"


def check_names(config: dict) -> None:
    """Check the names that the configuration gives, and that those which it uses are described."""
    for section in ("systems", "models", "methods"):
        lower = {}
        for name in config[section]:
            if name in FOLDERS.get(section, ()):
                raise ConfigurationError(f"{section}.{name}: a run's folder uses this name itself; choose another one")
            if name.lower() in WORDS or _is_number(name):
                raise ConfigurationError(
                    f"{section}.{name}: tables would read this name as a number or a missing value; choose another one"
                )
            if name.lower() in lower:
                raise ConfigurationError(
                    f"{section}.{name}: differs from {lower[name.lower()]!r} in case alone, and some disks take both for "
                    "one file; choose another name"
                )
            lower[name.lower()] = name
    for section, names in config["use"].items():
        for name in names:
            if name not in config[section]:
                raise ConfigurationError(
                    f"use.{section}: {name!r} is not described under {section}{nearest(name, config[section])}"
                )
    for name in config["use"]["systems"]:
        if {"solver", "source"} <= config["systems"][name].keys():
            raise ConfigurationError(
                f"systems.{name}: has a solver and a source of data; a configuration file adds keys to those of the default, so choose "
                "another name for a system of your own"
            )
        _check_override(config, name)
    if "solver" not in config["use"]["methods"]:
        raise ConfigurationError("use.methods: must hold 'solver', to which every method is compared")
    if config["methods"]["solver"]["kind"] != "solver":
        raise ConfigurationError("methods.solver: every method is compared to this one, so it must be the solver")
    for name in config["figures"]["movie"]["methods"] or []:
        if name not in config["use"]["methods"]:
            raise ConfigurationError(
                f"figures.movie.methods: {name!r} is not in use.methods{nearest(name, config['use']['methods'])}; null shows "
                f"the first {MOVIE_METHODS} of them"
            )


def _check_override(config: dict, system: str) -> None:
    """Check that the override of a system changes methods and models that are described.

    A model may also stand there whole.
    """
    override = config["systems"][system].get("override", {})
    for section in ("methods", "models"):
        for name, changes in override.get(section, {}).items():
            whole = section == "models" and isinstance(changes, dict) and "objective" in changes
            if name not in config[section] and not whole:
                raise ConfigurationError(
                    f"systems.{system}.override.{section}.{name}: is not described under {section}{nearest(name, config[section])}"
                )


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return "_" not in name


def check_metric_names(names: list[str]) -> None:
    """Check that the user's own metrics have names of their own: a metric must replace no variable and no column.

    `names`: as `module.name`. A metric stands in files and tables as its name, the solver's value as `<name>_solver`.
    """
    taken = COLUMNS | set(definitions.constant("sns_core.data.attributes", "VARIABLES")) if names else set()
    for name in names:
        short = name.rpartition(".")[2]
        for column in (short, f"{short}_solver"):
            if column in taken:
                raise ConfigurationError(
                    f"metrics.user: {name!r} would stand in files and tables as {column!r}, which another quantity there is "
                    "called; rename the function"
                )
        taken |= {short, f"{short}_solver"}


def check_labels(where: str, methods: dict) -> None:
    """Check that the labels of a run's methods tell them apart in tables and figures."""
    used = {}
    for name, method in methods.items():
        label = method["label"].strip()
        if not label or label.startswith("_"):
            raise ConfigurationError(
                f"{where}.{name}.label: {shown(method['label'])} must be text that does not begin with '_', which legends leave out"
            )
        if label in used:
            raise ConfigurationError(
                f"{where}.{name}.label: {shown(label)} is the label of {used[label]!r} too; figures could not tell them apart"
            )
        used[label] = name


def check_lengths(where: str, resolved: dict, figures: dict) -> None:
    """Check steps, frames, windows, lags and members of one system against each other."""
    _check_frames(where, resolved)
    for name, method in resolved["methods"].items():
        _check_rollout_length(name, method, resolved)
    _check_reference(where, resolved)
    for model in used_models(resolved):
        training = resolved["models"].get(model, {}).get("training")
        if training:
            _at_most(f"models.{model}.training.warmup", training["warmup"], training["steps"], "training.steps")
    _check_fields(figures["fields"], resolved["rollout"])


def _check_frames(where: str, resolved: dict) -> None:
    """Check that the test split is as long as the lags, and that parts of rollouts and splits are no larger than these."""
    rollout, metrics, data = resolved["rollout"], resolved["metrics"], resolved["data"]
    lags, stride, map_lags = rollout["lags"], rollout["frame_stride"], metrics["map_lags"]
    frames, needed = data["splits"]["test"]["frames"], max(lags, stride * map_lags) + 1
    if frames < needed:
        raise ConfigurationError(
            f"{where}.data.splits.test.frames: {frames} are too few for rollout.lags {lags} and metrics.map_lags {map_lags} "
            f"(of every {stride}th frame); at least {needed}"
        )
    _at_most("metrics.window", metrics["window"], rollout["steps"], "rollout.steps")
    _at_most("metrics.ensemble.leads", max(metrics["ensemble"]["leads"]), rollout["steps"], "rollout.steps")
    _at_most("rollout.group_members", rollout["group_members"], rollout["members"], "rollout.members")
    most = max(part["members"] for part in (*data["splits"].values(), *filter(None, [data["reference"]])))
    _at_most(f"{where}.data.group_members", data["group_members"], most, "the members of every split")


def _check_rollout_length(name: str, method: dict, resolved: dict) -> None:
    """Check that the rollout of a method is as long as the lags."""
    rollout, map_lags = resolved["rollout"], resolved["metrics"]["map_lags"]
    length, stride = method.get("steps", rollout["steps"]), rollout["frame_stride"]
    if length // stride < map_lags:
        place = f"methods.{name}.steps" if "steps" in method else "rollout.steps"
        raise ConfigurationError(
            f"{place}: {length} steps of {name!r} store {length // stride + 1} frames, and metrics.map_lags {map_lags} "
            f"needs {map_lags + 1}; take at least {map_lags * stride} steps, or at most {length // stride} lags"
        )
    if length < rollout["lags"]:
        raise ConfigurationError(
            f"rollout.lags: {rollout['lags']} exceeds the {length} steps of the method {name!r}; at most that many"
        )


def _check_reference(where: str, resolved: dict) -> None:
    """Check that the reference ensemble is as long as a block of statistics and as the lags."""
    reference, rollout = resolved["data"]["reference"], resolved["rollout"]
    least = max(rollout["block_steps"], rollout["lags"]) * resolved["emulator"]["step"]
    if reference and reference["duration"] < least * (1 - 1e-9):
        raise ConfigurationError(
            f"{where}.data.reference.duration: {reference['duration']:g} is shorter than one block of statistics or "
            f"rollout.lags; at least {least:g}"
        )


def _check_fields(fields: dict, rollout: dict) -> None:
    """Check that the member and the steps of figure 1 are stored."""
    if fields["member"] >= rollout["members"]:
        raise ConfigurationError(
            f"figures.fields.member: {fields['member']} is not among the {rollout['members']} of rollout.members, counted from 0; "
            "name one of them"
        )
    stride = rollout["frame_stride"]
    for step in fields["steps"]:
        if step % stride:
            raise ConfigurationError(
                f"figures.fields.steps: {step} is not stored; use multiples of rollout.frame_stride {stride}"
            )


def fit_figures(figures: dict, systems: dict[str, dict]) -> list[str]:
    """Fit what pictures show to a run that is shorter or smaller than they ask for; return one line for each change.

    `figures` is changed in place. No score depends on it, so a short trial run needs no changes here.
    """
    lines, fields, explorer = [], figures["fields"], figures["explorer"]
    longest = max(
        method.get("steps", resolved["rollout"]["steps"])
        for resolved in systems.values()
        for method in resolved["methods"].values()
    )
    beyond = [step for step in fields["steps"] if step > longest]
    if beyond:
        stride = max(resolved["rollout"]["frame_stride"] for resolved in systems.values())
        last = longest // stride * stride
        fields["steps"] = sorted({step for step in fields["steps"] if step <= longest} | {0, last})
        lines.append(
            f"figures.fields.steps: {', '.join(map(str, beyond))} lie beyond the {longest} steps of every rollout; "
            f"figure 1 shows {', '.join(map(str, fields['steps']))}"
        )
    members = min(resolved["rollout"]["members"] for resolved in systems.values())
    if explorer["members"] > members:
        lines.append(
            f"figures.explorer.members: {explorer['members']} exceeds rollout.members; the explorer shows {members}"
        )
        explorer["members"] = members
    return lines


def _at_most(key: str, value: float | None, bound: float, name: str) -> None:
    if value is not None and value > bound:
        raise ConfigurationError(f"{key}: {value} exceeds {name}, {bound}; at most that many")


def check_diffusion(where: str, spec: dict) -> None:
    """Check that a model with a diffusion has an objective that learns with it; one of the user's own may."""
    if "diffusion" in spec and spec["objective"] in OBJECTIVES and spec["objective"] not in DIFFUSED:
        raise ConfigurationError(
            f"{where}.diffusion: a model with the objective {spec['objective']!r} has no use for it; leave it out, or give the "
            "model another name"
        )


def check_training(where: str, spec: dict) -> None:
    """Check that a model sets only what its objective reads; an objective of the user's own may read anything."""
    if spec["objective"] not in OBJECTIVES:
        return
    for key, (neutral, objectives) in READ_BY.items():
        value = spec["training"].get(key, neutral)
        if value != neutral and spec["objective"] not in objectives:
            raise ConfigurationError(
                f"{where}.training.{key}: {value:g} has no effect on a model with the objective {spec['objective']!r}; set it to "
                f"{neutral}"
            )
    share, batch = spec["training"].get("low_condition_share", 0), spec["training"]["batch"]
    if share and not round(share * batch):
        raise ConfigurationError(
            f"{where}.training.low_condition_share: {share:g} is no sample of a batch of {batch}; set it to 0, or to "
            f"{1 / batch:g} or more"
        )


def check_scales(where: str, resolved: dict) -> None:
    """Check wavenumbers, grids, noise levels and channels of one system."""
    side, metrics = longer_side(resolved["emulator"]["resolution"]), resolved["metrics"]
    first, last = metrics["shells"]
    if not 1 <= first <= last <= side // 2:
        raise ConfigurationError(
            f"metrics.shells: [{first}, {last}] must be a first and a last shell between 1 and {side // 2}, half of "
            f"{where}.emulator.resolution {side}"
        )
    cost = metrics["cost"]
    if cost["finest_forecast"] not in (1, *cost["grids"]):
        raise ConfigurationError(
            f"metrics.cost.finest_forecast: {cost['finest_forecast']:g} is neither 1 nor among metrics.cost.grids, "
            f"{', '.join(f'{grid:g}' for grid in cost['grids'])}"
        )
    channels = channels_of(resolved["system"])
    for name, model in resolved["models"].items():
        colour = model.get("diffusion", {}).get("colour")
        if name in used_models(resolved) and channels and isinstance(colour, list) and len(colour) not in (1, channels):
            raise ConfigurationError(
                f"models.{name}.diffusion.colour: {len(colour)} exponents for {channels} channels of {where}; give one, or one "
                "for each channel"
            )
    for name, method in resolved["methods"].items():
        denoiser = resolved["models"].get(method["models"].get("denoiser"), {})
        diffusion = denoiser.get("diffusion", {})
        levels = diffusion.get("levels")
        if method.get("anchor_frame") == "resampled" and diffusion and not diffusion.get("anchor"):
            raise ConfigurationError(
                f"methods.{name}.anchor_frame: 'resampled' has no effect, because the denoiser {method['models']['denoiser']!r} "
                "sees no anchor; use initial, or set its diffusion.anchor to true"
            )
        if levels:
            _check_levels(f"methods.{name}", method, levels, metrics["diagnose"]["levels"])
        if method["kind"] in WALKED and levels:
            _check_walk(f"methods.{name}", method, levels)
        if method["kind"] == "refinement" and method["bookkeeping"] == "indices":
            _check_indices(f"methods.{name}", method)


def _check_levels(where: str, method: dict, levels: int, examined: int) -> None:
    """Check what a method says of noise levels against the number of levels of its denoiser."""
    values = {key: method.get(key) for key in ("stride", "max_level", "condition_level", "min_level", "level")}
    for key, value in {**values, "blind.level": (method.get("blind") or {}).get("level")}.items():
        if isinstance(value, int) and value > levels:
            raise ConfigurationError(f"{where}.{key}: {value} exceeds the {levels} noise levels of its denoiser")
    if values["max_level"] and values["min_level"] and values["min_level"] > values["max_level"]:
        raise ConfigurationError(
            f"{where}.min_level: {values['min_level']} exceeds max_level {values['max_level']}, so that nothing would be refined"
        )
    if method["kind"] in REFINEMENTS and examined > levels + 1:
        raise ConfigurationError(
            f"metrics.diagnose.levels: {examined} exceeds the {levels + 1} noise levels, 0 included, of the denoiser of {where}"
        )


def _check_walk(where: str, method: dict, levels: int) -> None:
    """Check that a path stands beside the previous frame that its name says, and that a sampler can take its steps."""
    path, held = method.get("path"), method.get("condition_level")
    needed = {"clean": 0, "unconditional": levels}.get(path, held)
    if held != needed:
        raise ConfigurationError(
            f"{where}.path: {path!r} needs condition_level {needed}, not {shown(held)}; set it, or take fixed_condition, which holds "
            "the previous frame at any level"
        )
    sampler = method["sampler"]
    if sampler["order"] == 2 and sampler["eta"]:
        raise ConfigurationError(
            f"{where}.sampler.eta: {sampler['eta']:g} must be 0 with order 2, whose steps are deterministic; set it, or order to 1"
        )
    if sampler["order"] == 2 and method["kind"] == "acdm":
        raise ConfigurationError(
            f"{where}.sampler.order: 2 must be 1, because the previous frame is noised afresh before each move"
        )


def _check_indices(where: str, method: dict) -> None:
    """Check that no option of a method with the bookkeeping "indices" needs a clean level or leaves the noise out."""
    clash = {
        "renoise": (not method["renoise"], "true"),
        "condition_level": (method["condition_level"] is not None, "null"),
        "blind": (method["blind"] is not None, "null"),
        "readout.kind": (method["readout"]["kind"] == "calibrated", "argmax"),
        "path": (method["path"] not in ("left_then_down", "down_then_left", "diagonal"), "left_then_down"),
    }
    for key, (wrong, remedy) in clash.items():
        if wrong:
            raise ConfigurationError(
                f"{where}.{key}: bookkeeping 'indices' noises and walks both frames at each step; set this to {remedy}, or "
                "bookkeeping to levels"
            )


def check_companions(resolved: dict, reuses: bool, files_must_exist: bool) -> None:
    """Check what a method needs beside itself: the rollout of its surrogate alone, a file."""
    methods = resolved["methods"]
    alone = {method["models"].get("surrogate") for method in methods.values() if method["kind"] in ALONE}
    for name, method in methods.items():
        surrogate = method["models"].get("surrogate")
        if method["kind"] in REFINEMENTS and surrogate not in alone and not reuses:
            raise ConfigurationError(
                f"use.methods: {name!r} refines the surrogate {surrogate!r}, and its denoiser is examined along that surrogate's "
                f"own rollout; use a method of the kind {' or '.join(map(repr, ALONE))} with this surrogate, too"
            )
        if "file" in method and method["kind"] == "external":
            path = method["file"]
            if "{" in path or "}" in path:
                raise ConfigurationError(
                    f"methods.{name}.file: {shown(path)} holds braces, which Snakemake replaces; rename it"
                )
            if files_must_exist and name != "solver" and not Path(path).exists():
                raise ConfigurationError(f"methods.{name}.file: there is no file {shown(path)} in {Path.cwd()}")


def movie_methods(config: dict) -> list[str]:
    """The methods that stand side by side in the movie."""
    return config["figures"]["movie"]["methods"] or config["use"]["methods"][:MOVIE_METHODS]
