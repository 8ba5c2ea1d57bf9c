"""The one place where a configuration is read, checked and resolved for each system: `read`.

Imports no torch: every job of a workflow parses the Snakefile again. Every mistake is one line that names the file, the key,
the value and the way out. The steps: what the files say (config_files.py), what a value means (config_values.py), the schema,
and what values say of each other (config_checks.py).
"""

import contextlib
import copy
import json
import math
import sys
from dataclasses import dataclass, field

from sns_core import plugins
from sns_core.catalogue import ATTENTION_HEADS
from sns_core.grids import Grid, grid_shape, longer_side, per_axis
from sns_workflow import config_checks
from sns_workflow.config_checks import movie_methods, nearest
from sns_workflow.config_files import ConfigFiles
from sns_workflow.config_methods import METHOD_KEYS, settle_model, settle_options
from sns_workflow.config_models import teachers_of, used_models, with_teachers
from sns_workflow.config_reuse import check_reuse, reused_results
from sns_workflow.config_schema import (
    DEFAULT,
    RENAMED,
    RENAMED_VALUES,
    SCHEMA,
    check_schema,
    complete,
    resolve,
    schema,
    with_new_names,
)
from sns_workflow.config_values import ConfigurationError, merge, plain

__all__ = [
    "METHOD_KEYS",
    "RENAMED",
    "SCHEMA",
    "ConfigFiles",
    "Configuration",
    "ConfigurationError",
    "complete",
    "merge",
    "movie_methods",
    "read",
    "read_or_stop",
    "resolve",
    "schema",
    "teachers_of",
    "used_models",
    "with_new_names",
    "with_teachers",
]


@dataclass(frozen=True)
class Configuration:
    """A configuration that has passed all checks.

    `whole`: the mapping with types settled and defaults filled in; `systems`: name -> what holds for this system (see
    `resolve`); `reused`: name of a file below the run's folder -> kind, for results that are copied from another run;
    `notes`: lines that a reader should see, about values that were fitted to the run.
    """

    whole: dict
    systems: dict[str, dict]
    reused: dict[str, str]
    notes: tuple[str, ...] = field(default=(), compare=False)


def read(config: dict, files: ConfigFiles | None = None, files_must_exist: bool = False) -> Configuration:
    """Check a configuration as Snakemake has merged it, and return what the rules use.

    `files`: where it was read from, for messages that name file and line; `files_must_exist`: refuse an external rollout
    that is not there. Raises ConfigurationError, one line, for the first mistake.
    """
    files = files or ConfigFiles()
    try:
        files.check()
        if "sweep" in config:
            raise ConfigurationError(
                "sweep: this configuration describes many runs; call snakemake -s workflow/sweep.smk with it"
            )
        whole = complete(plain(config))
        check_schema(whole)
        config_checks.check_names(whole)
        systems = {}
        for system in whole["use"]["systems"]:
            systems[system] = _check_system(system, whole, files_must_exist)
        _settle_shared("methods", whole, systems)
        _settle_shared("models", whole, systems)
        if whole["reuse"] is not None:
            check_reuse(whole)
        notes = [line for resolved in systems.values() for line in resolved.pop("notes", [])]
        notes += config_checks.fit_figures(whole["figures"], systems)
        return Configuration(whole, systems, reused_results(whole), tuple(notes))
    except ConfigurationError as error:
        place = files.locate(error.key, str(error)) if error.key else ""
        raise ConfigurationError(f"{place}{error}", error.key) from None


def _settle_shared(section: str, whole: dict, systems: dict[str, dict]) -> None:
    """Give the methods or models of the whole configuration, which is recorded, the options that hold for all systems."""
    overridden = {name for system in systems for name in whole["systems"][system]["override"].get(section, {})}
    first = next(iter(systems.values()))
    for name in first[section].keys() - overridden:
        spec, shared = first[section][name], whole[section][name]
        # The stand-in of a solver, and models that were fitted to files, hold for their system alone.
        if spec.get("kind") == shared.get("kind") and not (section == "models" and first.get("notes")):
            whole[section][name] = copy.deepcopy(spec)


def read_or_stop(config: dict, workflow, files_must_exist: bool = False) -> Configuration:
    """Read the configuration of a Snakefile; a mistake ends the process with one line on standard error.

    An exception would do the same, with lines of Snakemake's around it.
    """
    files = ConfigFiles(workflow.overwrite_configfiles, DEFAULT, workflow.config_settings.config)
    try:
        configuration = read(config, files, files_must_exist)
        _refuse_prefix(configuration.whole["results"], workflow)
    except ConfigurationError as error:
        print(f"Configuration: {error}", file=sys.stderr)
        sys.exit(1)
    if workflow.is_main_process:  # every job reads the configuration again
        for note in configuration.notes:
            print(f"Configuration: {note}", file=sys.stderr)
    return configuration


def _refuse_prefix(results: str, workflow) -> None:
    """Refuse the `prefix` of a module: it would move the files of rules, and not the names of files among their settings."""
    probe = f"{results}/x"
    moved = workflow.modifier.path_modifier.replace_prefix(probe)
    if moved != probe:
        raise ConfigurationError(
            f"results: prefix and replace_prefix of a module do not move the names of files among the settings of jobs; leave "
            f"them out, and give the module's config `results: {moved.removesuffix('/x')}`"
        )


def validate(config: dict) -> None:
    """Raise ConfigurationError for the first mistake in `config`."""
    read(config)


def _multiple(whole: float, part: float) -> bool:
    ratio = whole / part
    return ratio <= 1e12 and round(ratio) >= 1 and abs(ratio - round(ratio)) < 1e-9 * ratio


def _check_system(name: str, config: dict, files_must_exist: bool) -> dict:
    """Check values of one system against each other, and return what holds for it."""
    resolved = resolve(config, name)
    if config["systems"][name]["override"]:
        sections = {key: resolved[key] for key in ("models", "rollout", "metrics")}
        methods = {**config["methods"], **resolved["methods"]}
        methods |= {"solver": config["methods"]["solver"]}
        check_schema({**config, **sections, "methods": methods}, f"systems.{name}.override: ")
    solver, emulator = resolved["system"]["parameters"], resolved["emulator"]
    where = f"systems.{name}"
    config_checks.check_work(where, resolved)
    if not _multiple(emulator["step"], solver["dt"]):
        closest = max(1, round(min(emulator["step"] / solver["dt"], 1e12))) * solver["dt"]
        raise ConfigurationError(
            f"{where}.emulator.step: {emulator['step']:g} is not a multiple of solver.dt {solver['dt']:g}; nearest: {closest:g}"
        )
    if "source" not in resolved:
        _check_grids(where, emulator["resolution"], solver["resolution"])
    if plugins.is_own(resolved["system"]["name"]):
        _check_own_system(f"{where}.solver", resolved["system"]["name"], solver)
    if resolved["system"]["name"] == "TwoLayerQG" and solver["resolution"] % emulator["resolution"]:
        raise ConfigurationError(
            f"{where}.emulator.resolution: {emulator['resolution']} does not divide solver.resolution "
            f"{solver['resolution']}; frames are means over blocks of its points"
        )
    wavenumber = solver.get("forcing_wavenumber", 0)
    points = longer_side(solver["resolution"])
    if "source" not in resolved and wavenumber >= points // 3:
        raise ConfigurationError(
            f"{where}.solver.forcing_wavenumber: {wavenumber} is not resolved by {points} points; at most {points // 3 - 1}"
        )
    used = used_models(resolved)
    for model, spec in resolved["models"].items():
        if model in used and spec["training"]["batch"] % resolved["devices"]:
            raise ConfigurationError(
                f"models.{model}.training.batch: {spec['training']['batch']} does not divide among the "
                f"{resolved['devices']} of hardware.devices"
            )
        with _name_checked(f"models.{model}.objective"):
            spec = resolved["models"][model] = settle_model(f"models.{model}", spec)
        if model in used:
            _check_teachers(model, spec, resolved["models"])
            config_checks.check_diffusion(f"models.{model}", spec)
            _check_model(f"models.{model}", spec, emulator["resolution"], resolved["data"]["splits"])
    for method, spec in resolved["methods"].items():
        _check_method(f"methods.{method}", spec, resolved)
    for model in used:
        _check_calibration(f"models.{model}", resolved["models"][model], resolved["methods"], config["methods"])
    rollout, window = resolved["rollout"], resolved["metrics"]["window"]
    if rollout["members"] > resolved["data"]["splits"]["test"]["members"]:
        raise ConfigurationError(
            f"rollout.members: {rollout['members']} exceeds the {resolved['data']['splits']['test']['members']} members "
            f"of {where}.data.splits.test, where rollouts start"
        )
    if window % rollout["block_steps"]:
        raise ConfigurationError(
            f"metrics.window: {window} is not a multiple of rollout.block_steps {rollout['block_steps']}"
        )
    test, starts = resolved["data"]["splits"]["test"]["members"], resolved["metrics"]["ensemble"]["starts"]
    if test < 2 and "source" in resolved:
        raise ConfigurationError(
            f"{where}.source: holds one test trajectory, and two are needed; name more files, or cut it (source.pieces)"
        )
    if test < 2:
        raise ConfigurationError(
            f"{where}.data.splits.test.members: {test} must be at least 2, from which forecasts start"
        )
    if starts > test:
        raise ConfigurationError(
            f"metrics.ensemble.starts: {starts} states from the {test} members of {where}.data.splits.test; at most as many as these"
        )
    _check_user_metrics(resolved["metrics"]["user"])
    config_checks.check_labels("methods", resolved["methods"])
    config_checks.check_lengths(where, resolved, config["figures"])
    config_checks.check_scales(where, resolved)
    config_checks.check_companions(resolved, config["reuse"] is not None, files_must_exist)
    return resolved


def solver_grids(resolved: dict) -> list[int]:
    """Return the points along the longer side of the grids on which the solver is timed, the coarsest first.

    These are its own grid and those multiples of it in metrics.cost.grids on which the system can be computed, and from
    which the emulator's grid can be made.
    """
    solver, side = resolved["system"]["parameters"], longer_side(resolved["emulator"]["resolution"])
    solver_points, least = longer_side(solver["resolution"]), max(side, 3 * (solver.get("forcing_wavenumber", 0) + 1))
    unit = side if resolved["system"]["name"] == "TwoLayerQG" else 2  # block means, or truncation
    grids = {factor * solver_points for factor in resolved["metrics"]["cost"]["grids"]}
    return sorted({solver_points, *(int(points) for points in grids if points >= least and points % unit == 0)})


def _check_grids(where: str, frames: Grid, states: Grid) -> None:
    """Check that frames can be made from the states of a solver by leaving out points."""
    if (grid_shape(frames)[0] == 1) != (grid_shape(states)[0] == 1):
        raise ConfigurationError(
            f"{where}.emulator.resolution: {frames} and solver.resolution {states} must both be N, for N x N points, or both [1, N], "
            "for a single row"
        )
    if longer_side(frames) > longer_side(states):
        raise ConfigurationError(f"{where}.emulator.resolution: {frames} is finer than solver.resolution {states}")


@contextlib.contextmanager
def _name_checked(where: str):
    """Turn a ValueError about a name of the user's own into a ConfigurationError that begins with its key."""
    try:
        yield
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _check_own_system(where: str, name: str, solver: dict) -> None:
    with _name_checked(f"{where}.class"):
        taken = plugins.parameters(name)
        plugins.files_behind(name)
    if taken is None:
        return
    accepted, required = taken
    for key in solver:
        if key not in accepted:
            raise ConfigurationError(f"{where}: {name} takes no {key!r}{nearest(key, accepted)}")
    for key in required:
        if key not in solver and key not in ("dtype", "device"):
            raise ConfigurationError(f"{where}: the key {key!r} is missing, which {name} takes")


def _check_user_metrics(names: list[str]) -> None:
    for name in names:
        with _name_checked("metrics.user"):
            plugins.definition(name)
            plugins.files_behind(name)
    config_checks.check_metric_names(names)


def _check_model(where: str, spec: dict, resolution: Grid, splits: dict) -> None:
    network, training = spec["network"], spec["training"]
    divisor = network["patch"] * 2 ** (len(network["multipliers"]) - 1)
    sides = zip(grid_shape(resolution), per_axis(divisor, resolution), strict=True)
    odd = next((points for points, part in sides if points % part), None)
    if odd:
        raise ConfigurationError(
            f"{where}.network: cannot halve {odd} points {len(network['multipliers']) - 1} times after patches of "
            f"{network['patch']}; emulator.resolution must divide by {divisor}"
        )
    bottom = network["width"] * network["multipliers"][-1]
    if network["attention"] and bottom % ATTENTION_HEADS:
        raise ConfigurationError(
            f"{where}.network.width: attention over {bottom} channels, width {network['width']} times the last of the multipliers, "
            f"has {ATTENTION_HEADS} heads; take a multiple of {ATTENTION_HEADS}"
        )
    if training["steps"] % training["log_every"]:
        raise ConfigurationError(
            f"{where}.training.steps: {training['steps']} is not a multiple of log_every {training['log_every']}"
        )
    needed = max(training["unroll"], spec.get("window", 1)) + 1
    if "diffusion" in spec and spec["diffusion"]["anchor"]:
        needed = 2 * spec["diffusion"]["anchor_gap"] + 2
    for key, most in {"trajectories": splits["train"]["members"], "frames": splits["train"]["frames"]}.items():
        if (training[key] or 0) > most:
            raise ConfigurationError(f"{where}.training.{key}: {training[key]} exceeds the {most} of the train split")
    for split in ("train", "validation"):
        frames = (training["frames"] if split == "train" else None) or splits[split]["frames"]
        if frames < needed:
            raise ConfigurationError(
                f"{where}: needs {needed} frames per trajectory, the split {split!r} gives {frames}"
            )


def _check_teachers(name: str, spec: dict, models: dict) -> None:
    """Check the models that a training learns from against the class of its objective."""
    where, teachers = f"models.{name}", teachers_of(spec)
    needs = plugins.class_needs(plugins.objective_class(spec["objective"]))
    _check_roles(where, teachers, needs, f"a model with the objective {spec['objective']!r}", models)
    if name in with_teachers(teachers.values(), models):
        raise ConfigurationError(f"{where}.models: {name!r} would learn from itself; name another model")
    # An objective of the user's own may learn from a teacher with another diffusion; ours cannot.
    for teacher in () if plugins.is_own(spec["objective"]) else teachers.values():
        for key, value in models[teacher].get("diffusion", {}).items():
            if spec["diffusion"].get(key) != value:
                raise ConfigurationError(
                    f"{where}.diffusion.{key}: {spec['diffusion'].get(key)!r} is not the {value!r} of its teacher {teacher!r}; "
                    "leave diffusion out, and it is the teacher's"
                )
    levels = spec.get("diffusion", {}).get("levels", math.inf)
    if spec.get("condition_level", 0) > levels:
        raise ConfigurationError(
            f"{where}.condition_level: {spec['condition_level']} exceeds the {levels} noise levels of its diffusion"
        )
    if spec.get("moves", 1) * spec.get("teacher_moves", 0) > levels:
        raise ConfigurationError(
            f"{where}.teacher_moves: {spec['teacher_moves']} in each of {spec['moves']} moves exceeds the {levels} noise "
            "levels of its diffusion"
        )


def _check_calibration(where: str, spec: dict, methods: dict, described: dict) -> None:
    """Check the method whose calibration a training reads: it is in use, has the models of the training, and its defaults.

    `methods`: those in use; `described`: all that the configuration describes.
    """
    name, objective = spec.get("calibration"), spec["objective"]
    if not plugins.class_is_calibrated(plugins.objective_class(objective)):
        if name is not None:
            raise ConfigurationError(f"{where}.calibration: a model with the objective {objective!r} reads none")
        return
    refinements = [method for method, value in methods.items() if value["kind"] == "calibrated_refinement"]
    if name not in refinements:
        if name in described and described[name]["kind"] == "calibrated_refinement":
            raise ConfigurationError(
                f"{where}.calibration: {name!r} is not in use.methods; name it there, too: the training reads what it measures"
            )
        close = nearest(name, refinements) if name and refinements else ""
        what = f"{name!r} is no calibrated refinement of this run{close}" if name else "is missing"
        raise ConfigurationError(
            f"{where}.calibration: {what}; name a method of use.methods that refines with the models of this one, such as sns"
        )
    method = methods[name]
    if method["models"] != teachers_of(spec):
        raise ConfigurationError(
            f"{where}.calibration: {name!r} has the models {method['models']}, this training {teachers_of(spec)}; name the same"
        )
    options = plugins.options_of(method["kind"])
    for key in options.keys() & method.keys():
        if method[key] != plugins.default_of(options[key]):
            raise ConfigurationError(
                f"{where}.calibration: {name!r} sets {key}, which a student does not learn; name a method without options"
            )


def _check_roles(where: str, roles: dict, needs: dict, user: str, models: dict) -> None:
    """Check the models that a `user` names by their roles: each role that it needs, no other one, and their objectives."""
    for role, objectives in needs.items():
        if role not in roles:
            raise ConfigurationError(f"{where}.models: {user} needs a {role}; name a model as {role}: …")
        model = roles[role]
        if model not in models:
            raise ConfigurationError(f"{where}.models.{role}: no model {model!r}{nearest(model, models)}")
        objective = models[model]["objective"]
        if objective not in objectives:
            raise ConfigurationError(
                f"{where}.models.{role}: {model!r} has the objective {objective!r}, the {role} of {user} needs "
                f"{' or '.join(map(repr, objectives))}"
            )
    for role in roles:
        if role not in needs:
            raise ConfigurationError(f"{where}.models: {user} has no use for a {role}")


def _check_method(where: str, spec: dict, resolved: dict) -> None:
    """Check a method against its class: the models that it needs, and the options that its `build` takes."""
    kind = spec["kind"]
    if kind in RENAMED_VALUES["methods.*.kind"]:
        raise ConfigurationError(f"{where}.kind: {kind!r} was renamed to {RENAMED_VALUES['methods.*.kind'][kind]!r}")
    with _name_checked(f"{where}.kind"):
        needs, options = plugins.needs_of(kind), plugins.options_of(kind)
        plugins.files_behind(plugins.class_of(kind))
    _check_roles(where, spec["models"], needs, f"a method of the kind {kind!r}", resolved["models"])
    spec |= settle_options(where, spec, options)
    leads = resolved["metrics"]["ensemble"]["leads"]
    for lead in spec.get("leads", []):
        if lead not in leads:
            raise ConfigurationError(
                f"{where}.leads: {lead} is not among {', '.join(map(str, leads))} of metrics.ensemble.leads"
            )
    block = resolved["rollout"]["block_steps"]
    for key in ("steps", "segment_steps"):
        value = spec.get(key, resolved["rollout"][key])
        if value % block:
            place = where if key in spec else "rollout"
            raise ConfigurationError(f"{place}.{key}: {value} is not a multiple of rollout.block_steps {block}")


def segments(method: dict, rollout: dict) -> list[tuple[int, int]]:
    """Return (first step, steps) of each segment of a method's rollout."""
    total = method.get("steps", rollout["steps"])
    length = method.get("segment_steps", rollout["segment_steps"])
    return [(start, min(length, total - start)) for start in range(0, total, length)]


def reference_groups(resolved: dict) -> list[str]:
    """Return the groups of members of the reference ensemble; none where the test split is the reference."""
    data = resolved["data"]
    return member_groups({**data["reference"], "group_members": data["group_members"]}) if data["reference"] else []


def reference_spans(resolved: dict) -> list[tuple[int, int]]:
    """Return (first step, steps) of each segment of the reference ensemble, whole blocks of steps."""
    if not resolved["data"]["reference"]:
        return []
    block, rollout = resolved["rollout"]["block_steps"], resolved["rollout"]
    steps = int(resolved["data"]["reference"]["duration"] / resolved["emulator"]["step"] * (1 + 1e-9)) // block * block
    return segments({"steps": steps}, rollout)


def member_groups(of: dict) -> list[str]:
    """Return the groups of members of a rollout or split, one group per job: "0-3", "4-7", …"""
    size, members = of["group_members"] or of["members"], of["members"]
    return [f"{first}-{min(first + size, members) - 1}" for first in range(0, members, size)]


def members_of(group: str) -> list[int]:
    """Return the members of a group "first-last"."""
    first, last = map(int, group.split("-"))
    return list(range(first, last + 1))


def as_parameter(value) -> str:
    """JSON with sorted keys: the same configuration slice is the same parameter, in any order of its keys."""
    return json.dumps(value, sort_keys=True)
