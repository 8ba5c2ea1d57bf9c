"""Checks of one system of the configuration: its values against each other, and against the classes that they name.

`check_system` also settles the options of models and methods, so that what it returns holds for the system as it
stands.
"""

import contextlib
import math

from sns_core import plugins
from sns_core.catalogue import ATTENTION_HEADS
from sns_core.grids import Grid, grid_shape, longer_side, per_axis
from sns_core.plugins import definitions
from sns_workflow import config_checks, plugin_checks
from sns_workflow.config_checks import nearest
from sns_workflow.config_methods import settle_model, settle_options
from sns_workflow.config_models import teachers_of, used_models, with_teachers
from sns_workflow.config_renamed import RENAMED_VALUES
from sns_workflow.config_schema import check_schema, resolve
from sns_workflow.config_values import ConfigurationError
from sns_workflow.config_work import check_work


def check_system(name: str, config: dict, files_must_exist: bool) -> dict:
    """Check one system of a configuration, and return what holds for it (see `resolve`), with options settled.

    Raises ConfigurationError for the first mistake. `files_must_exist`: refuse an external rollout that is not there.
    """
    resolved = resolve(config, name)
    if config["systems"][name]["override"]:
        _check_overridden(name, config, resolved)
    where, used = f"systems.{name}", used_models(resolved)
    check_work(where, resolved)
    _check_solver(where, resolved)
    for model, spec in resolved["models"].items():
        if model in used:
            _check_batch(f"models.{model}", spec, resolved["devices"])
        with _name_checked(f"models.{model}.objective"):
            spec = resolved["models"][model] = settle_model(f"models.{model}", spec)
        if model in used:
            _check_teachers(model, spec, resolved["models"])
            config_checks.check_diffusion(f"models.{model}", spec)
            config_checks.check_training(f"models.{model}", spec)
            _check_model(f"models.{model}", spec, resolved["emulator"]["resolution"], resolved["data"]["splits"])
    for method, spec in resolved["methods"].items():
        _check_method(f"methods.{method}", spec, resolved)
    for model in used:
        _check_calibration(f"models.{model}", resolved["models"][model], resolved["methods"], config["methods"])
    _check_starts(where, resolved)
    _check_guard(where, resolved["data"])
    _check_user_metrics(resolved["metrics"]["user"])
    config_checks.check_labels("methods", resolved["methods"])
    config_checks.check_lengths(where, resolved, config["figures"])
    config_checks.check_scales(where, resolved)
    config_checks.check_companions(resolved, config["reuse"] is not None, files_must_exist)
    return resolved


def _check_overridden(name: str, config: dict, resolved: dict) -> None:
    """Check the sections that a system overrides against the schema, once they are merged."""
    sections = {key: resolved[key] for key in ("models", "rollout", "metrics")}
    methods = {**config["methods"], **resolved["methods"]}
    methods |= {"solver": config["methods"]["solver"]}
    check_schema({**config, **sections, "methods": methods}, f"systems.{name}.override: ")


def _check_solver(where: str, resolved: dict) -> None:
    """Check time step, grid, forcing and class of a solver against the frames that are made from its states."""
    system, solver, emulator = resolved["system"]["name"], resolved["system"]["parameters"], resolved["emulator"]
    if not _is_multiple(emulator["step"], solver["dt"]):
        closest = max(1, round(min(emulator["step"] / solver["dt"], 1e12))) * solver["dt"]
        raise ConfigurationError(
            f"{where}.emulator.step: {emulator['step']:g} is not a multiple of solver.dt {solver['dt']:g}; nearest: {closest:g}"
        )
    if "source" not in resolved:
        _check_grids(where, emulator["resolution"], solver["resolution"])
    if plugins.is_own(system):
        _check_own_system(f"{where}.solver", system, solver)
    if system == "TwoLayerQG" and solver["resolution"] % emulator["resolution"]:
        raise ConfigurationError(
            f"{where}.emulator.resolution: {emulator['resolution']} does not divide solver.resolution "
            f"{solver['resolution']}; frames are means over blocks of its points"
        )
    wavenumber, points = solver.get("forcing_wavenumber", 0), longer_side(solver["resolution"])
    if "source" not in resolved and wavenumber >= points // 3:
        raise ConfigurationError(
            f"{where}.solver.forcing_wavenumber: {wavenumber} is not resolved by {points} points; at most {points // 3 - 1}"
        )


def _is_multiple(whole: float, part: float) -> bool:
    ratio = whole / part
    return ratio <= 1e12 and round(ratio) >= 1 and abs(ratio - round(ratio)) < 1e-9 * ratio


def _check_batch(where: str, spec: dict, devices: int) -> None:
    """Check that the devices of a training can share each batch evenly."""
    if spec["training"]["batch"] % devices:
        raise ConfigurationError(
            f"{where}.training.batch: {spec['training']['batch']} does not divide among the {devices} of hardware.devices; "
            f"take a multiple of {devices}"
        )


def _check_starts(where: str, resolved: dict) -> None:
    """Check the members from which rollouts and ensembles start against the test split, and windows against blocks."""
    rollout, metrics, test = resolved["rollout"], resolved["metrics"], resolved["data"]["splits"]["test"]["members"]
    if rollout["members"] > test:
        raise ConfigurationError(
            f"rollout.members: {rollout['members']} exceeds the {test} members of {where}.data.splits.test, where rollouts start"
        )
    if metrics["window"] % rollout["block_steps"]:
        raise ConfigurationError(
            f"metrics.window: {metrics['window']} is not a multiple of rollout.block_steps {rollout['block_steps']}; take a multiple of it"
        )
    starts = metrics["ensemble"]["starts"]
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


def _check_guard(where: str, data: dict) -> None:
    """Check that the check of stationarity, where training waits for it, can find a drift in each split."""
    for split, part in data["splits"].items() if data["require_stationary"] else ():
        if part["members"] < 2:
            raise ConfigurationError(
                f"{where}.data.require_stationary: true needs at least 2 members in data.splits.{split}, because a drift is held against "
                "the spread of the members; set it to false, or raise the members"
            )


def _check_grids(where: str, frames: Grid, states: Grid) -> None:
    """Check that frames can be made from the states of a solver by leaving out points."""
    if (grid_shape(frames)[0] == 1) != (grid_shape(states)[0] == 1):
        raise ConfigurationError(
            f"{where}.emulator.resolution: {frames} and solver.resolution {states} must both be N, for N x N points, or both [1, N], "
            "for a single row"
        )
    if longer_side(frames) > longer_side(states):
        raise ConfigurationError(
            f"{where}.emulator.resolution: {frames} is finer than solver.resolution {states}; take at most as many points"
        )


@contextlib.contextmanager
def _name_checked(where: str):
    """Turn a ValueError about a name of the user's own into a ConfigurationError that begins with its key."""
    try:
        yield
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _check_own_system(where: str, name: str, solver: dict) -> None:
    with _name_checked(f"{where}.class"):
        plugin_checks.check_class(
            name, "system", "sns_core.systems.base.System", ("initial_state", "velocity", "step|steps"), derived=True
        )
        taken = plugins.parameters(name)
        definitions.files_behind(name)
    if taken is None:
        return
    accepted, required = taken
    for key in ("dtype", "device"):
        if key not in accepted:
            raise ConfigurationError(
                f"{where}.class: the __init__ of {name} takes no {key!r}, which the stages pass; add it"
            )
    for key in solver:
        if key not in accepted:
            raise ConfigurationError(f"{where}: {name} takes no {key!r}{nearest(key, accepted)}")
    for key in required:
        if key not in solver and key not in ("dtype", "device"):
            raise ConfigurationError(f"{where}: the key {key!r} is missing, which {name} takes")


def _check_user_metrics(names: list[str]) -> None:
    for name in names:
        with _name_checked("metrics.user"):
            definitions.definition(name)
            definitions.files_behind(name)
            plugin_checks.check_metric(name)
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
            f"{where}.training.steps: {training['steps']} is not a multiple of log_every {training['log_every']}; take a multiple of it"
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
    if spec["objective"] == "distilled_refinement" and spec["diffusion"].get("prediction", "noise") == "noise":
        raise ConfigurationError(
            f"{where}.diffusion.prediction: 'noise' tells a student next to nothing, because its only move begins at pure noise; "
            "name a denoiser with another prediction, such as sns_residual"
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
    """Check the method whose calibration a training reads: it is in use, with the same models and without options.

    `methods`: those in use; `described`: all that the configuration describes.
    """
    name, objective = spec.get("calibration"), spec["objective"]
    if not plugins.class_is_calibrated(plugins.objective_class(objective)):
        if name is not None:
            raise ConfigurationError(
                f"{where}.calibration: a model with the objective {objective!r} reads none; leave it out"
            )
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
    """Check the models that a method or a model, the `user`, names: exactly the roles it needs, with fitting
    objectives.
    """
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
        definitions.files_behind(plugins.class_of(kind))
    _check_roles(where, spec["models"], needs, f"a method of the kind {kind!r}", resolved["models"])
    spec |= settle_options(where, spec, options)
    if plugins.is_own(kind):
        with _name_checked(f"{where}.kind"):
            plugin_checks.check_class(kind, "method", "sns_core.methods.base.Method", ("start", "step", "build"))
    leads = resolved["metrics"]["ensemble"]["leads"]
    for lead in spec.get("leads", []):
        if lead not in leads:
            raise ConfigurationError(
                f"{where}.leads: {lead} is not among {', '.join(map(str, leads))} of metrics.ensemble.leads; "
                "name only steps that stand there"
            )
    block = resolved["rollout"]["block_steps"]
    for key in ("steps", "segment_steps"):
        value = spec.get(key, resolved["rollout"][key])
        if value % block:
            place = where if key in spec else "rollout"
            raise ConfigurationError(
                f"{place}.{key}: {value} is not a multiple of rollout.block_steps {block}; take a multiple of it"
            )
