"""Validation and resolution of the configuration: what the Snakefile knows about `config`.

Imports no torch: every job of a workflow parses the Snakefile again. Every mistake is one line that names the key,
what is allowed and, for a misspelt key, the nearest known one.
"""

import contextlib
import copy
import difflib
import json
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from sns_core import plugins

SCHEMA = Path(__file__).with_name("config.schema.yaml")
DEFAULT = Path(__file__).parents[1] / "config" / "config.yaml"

# Old name of a key -> its name now; `*` stands for any name. Tested against docs/configuration-keys.md.
RENAMED = {
    "device": "hardware.device",
    "devices": "hardware.devices",
    "precision": "hardware.precision",
    "compile": "hardware.compile",
    "given": "reuse",
    "models.*.training.low_condition": "models.*.training.low_condition_share",
    "methods.*.stepper": "methods.*.kind",
    "methods.*.readout.quantile": "methods.*.readout.refine_share",  # where the read-out is calibrated
    "methods.*.joint": "methods.*.shared_level",
    "methods.*.fixed": "methods.*.blind",
    "methods.*.every": "methods.*.refine_every",
    "methods.*.threshold": "methods.*.min_level",
    "methods.*.begin": "methods.*.start_from",
    "methods.*.anchor": "methods.*.anchor_frame",
    "rollout.block": "rollout.block_steps",
    "metrics.extra": "metrics.user",
    "metrics.cost.finest": "metrics.cost.finest_forecast",
    "metrics.diagnose.grid": "metrics.diagnose.levels",
    "theory.marks": "theory.training_steps",
}
RENAMED_VALUES = {"methods.*.kind": {"foreign": "external"}}


# Keys of a method that are no options of its class.
METHOD_KEYS = ("label", "kind", "models", "steps", "segment_steps", "leads")


class ConfigurationError(Exception):
    """A configuration that cannot be run; the message is one line."""


def validate(config: dict) -> None:
    """Raise ConfigurationError for the first mistake in `config`."""
    schema = yaml.safe_load(SCHEMA.read_text())
    errors = sorted(Draft202012Validator(schema).iter_errors(config), key=lambda e: [str(p) for p in e.absolute_path])
    if errors:
        raise ConfigurationError(_explain_first(errors))
    known = set(config["systems"]), set(config["methods"])
    for kind, names in zip(("systems", "methods"), known, strict=True):
        for name in config["use"][kind]:
            if name not in names:
                raise ConfigurationError(f"use.{kind}: {name!r} is not described under {kind}{_nearest(name, names)}")
    _check_movie(config["figures"]["movie"]["methods"], config["use"]["methods"], known[1])
    for system in config["use"]["systems"]:
        resolved = resolve(config, system)
        again = {**copy.deepcopy(config), **{k: resolved[k] for k in ("models", "methods", "rollout", "metrics")}}
        errors = list(Draft202012Validator(schema).iter_errors(again))
        if errors:
            raise ConfigurationError(f"systems.{system}.override: {_explain_first(errors)}")
        _check_system(system, resolved)
        member, members = config["figures"]["fields"]["member"], resolved["rollout"]["members"]
        if member >= members:
            raise ConfigurationError(
                f"figures.fields.member: {member} is not among the {members} of rollout.members, counted from 0"
            )
        stride = resolved["rollout"]["frame_stride"]
        for step in config["figures"]["fields"]["steps"]:
            if step % stride:
                raise ConfigurationError(
                    f"figures.fields.steps: {step} is not stored; use multiples of rollout.frame_stride {stride}"
                )
    if config["reuse"] is not None:
        _check_reuse(config)


def resolve(config: dict, system: str) -> dict:
    """Models, methods, rollout and metrics as they hold for one system, beside its solver, emulator and data."""
    block = config["systems"][system]
    # Through JSON, so that what YAML aliases made one object becomes a copy each, and a change of one stays there.
    shared = {key: json.loads(json.dumps(config[key])) for key in ("models", "methods", "rollout", "metrics")}
    resolved = _merge(shared, block["override"])
    resolved["methods"] = {name: resolved["methods"][name] for name in config["use"]["methods"]}
    parameters = {key: value for key, value in block["solver"].items() if key != "class"}
    return {
        **resolved,
        "system": {"name": block["solver"]["class"], "parameters": parameters},
        "emulator": block["emulator"],
        "data": block["data"],
        "devices": config["hardware"]["devices"],
    }


def _merge(base: dict, changes: dict) -> dict:
    for key, value in changes.items():
        base[key] = _merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return base


def _deepest(error):
    """Inside alternatives, the mistake that the user is nearest to having avoided."""
    while error.context:
        error = max(error.context, key=lambda e: len(e.absolute_path))
    return error


def _nearest(name: str, known) -> str:
    close = difflib.get_close_matches(name, sorted(known), 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _explain_first(errors: list) -> str:
    """Return one line about one of several mistakes: about a key under its old name, if there is one."""
    deepest = [_deepest(error) for error in errors]
    for error in deepest:
        if error.validator == "additionalProperties":
            for key in error.instance.keys() - error.schema.get("properties", {}).keys():
                old = ".".join(map(str, [*error.absolute_path, key]))
                if new := _name_now(old):
                    return f"{old}: was renamed to {new}"
    return _explain(deepest[0])


def _name_now(old: str) -> str | None:
    """Return the name that a key has now; None for a key that was never renamed."""
    for pattern, new in RENAMED.items():
        words, parts = pattern.split("."), old.split(".")
        if len(words) == len(parts) and all(word in ("*", part) for word, part in zip(words, parts, strict=True)):
            return ".".join(parts[i] if word == "*" else word for i, word in enumerate(new.split(".")))
    return None


def _explain(error) -> str:
    place = ".".join(str(part) for part in error.absolute_path) or "the configuration"
    rule, value = error.validator, error.instance
    shown = json.dumps(value) if not isinstance(value, dict) else "a mapping"
    if rule == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = next(key for key in value if key not in known)
        return f"{place}: unknown key {unknown!r}{_nearest(unknown, known)}"
    if rule == "required":
        missing = next(key for key in error.validator_value if key not in value)
        return f"{place}: the key {missing!r} is missing"
    if rule == "type":
        kinds = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        words = {"object": "a mapping", "array": "a list", "integer": "a whole number", "null": "null"}
        hint = (
            " (YAML reads 1e-3 and 1.0e6 as text; write 1.0e-3 and 1.0e+6)"
            if isinstance(value, str) and "number" in kinds
            else ""
        )
        return f"{place}: {shown} is not {' or '.join(words.get(kind, f'a {kind}') for kind in kinds)}{hint}"
    if rule == "enum":
        allowed = [str(v) for v in error.validator_value]
        pattern = ".".join(["methods", "*", *place.split(".")[2:]]) if place.startswith("methods.") else place
        if isinstance(value, str) and value in RENAMED_VALUES.get(pattern, {}):
            return f"{place}: {shown} was renamed to {RENAMED_VALUES[pattern][value]}"
        return f"{place}: {shown} is none of {', '.join(allowed)}" + (
            _nearest(value, allowed)
            if isinstance(value, str) and difflib.get_close_matches(value, allowed, 1, 0.5)
            else ""
        )
    bounds = {
        "minimum": "at least", "exclusiveMinimum": "greater than", "maximum": "at most", "exclusiveMaximum": "less than",
        "multipleOf": "a multiple of",
    }  # fmt: skip
    if rule in bounds:
        return f"{place}: {shown} must be {bounds[rule]} {error.validator_value}"
    if rule == "pattern":
        return f"{place}: {shown} is not allowed; use {error.schema.get('description', error.validator_value)}"
    return f"{place}: {' '.join(error.message.split())[:200]}"


def reused_results(config: dict) -> dict[str, str]:
    """Return name below a run's folder -> kind, for the results that this run copies from `reuse.folder`.

    The solver's rollout is copied if `reuse.solver` is true; the diagnosis of a denoiser, if every setting on which it
    depends has the same value in both runs.
    """
    if config["reuse"] is None:
        return {}
    listing = _listing(config["reuse"]["folder"])
    before = _configuration_of(listing)
    found = {}
    for name, entry in listing["files"].items():
        system, kind = Path(name).parts[0], entry["kind"]
        if system not in config["use"]["systems"]:
            continue
        if kind == "diagnostics":
            one, other = (_examined(resolve(c, system), Path(name).stem) for c in (config, before))
            wanted = one is not None and one == other
        else:
            wanted = kind != "solver" or config["reuse"]["solver"]
        if wanted:
            found[name] = kind
    return found


def _listing(folder: str) -> dict:
    path = Path(folder, "given.json")
    try:
        return json.loads(path.read_text())
    except OSError:
        raise ConfigurationError(
            f"reuse.folder: there is no {path}; `python -m sns_core collect_run` makes such a folder of a finished run"
        ) from None


def _configuration_of(listing: dict) -> dict:
    """Return the configuration of a collected run in the words of today: renamed keys have their new names, and keys
    that were added later have their default values."""
    return _merge(yaml.safe_load(DEFAULT.read_text()), with_new_names(copy.deepcopy(listing["configuration"])))


def with_new_names(config: dict) -> dict:
    """Rename, in place, every key of a configuration that has its old name (see RENAMED)."""
    for old, new in RENAMED.items():
        if not old.startswith("methods."):
            _rename(config, old.split("."), new.split("."))
    return config


def _rename(config: dict, old: list[str], new: list[str]) -> None:
    """Move the value at the path `old` to the path `new`; the two agree in all names before a `*`."""
    if not isinstance(config, dict):
        return
    if "*" in old:
        star = old.index("*")
        for name in old[:star]:
            config = config.get(name) or {}
        for inner in config.values():
            _rename(inner, old[star + 1 :], new[star + 1 :])
        return
    holder = config
    for name in old[:-1]:
        holder = holder.get(name)
        if not isinstance(holder, dict):
            return
    if old[-1] in holder:
        value = holder.pop(old[-1])
        for name in new[:-1]:
            config = config.setdefault(name, {})
        config.setdefault(new[-1], value)


def _examined(resolved: dict, method: str) -> dict | None:
    """What the diagnosis of a method depends on."""
    methods = {name: _unlabelled(spec) for name, spec in resolved["methods"].items()}
    if method not in methods:
        return None
    surrogate = methods[method]["models"].get("surrogate")
    alone = [m for m in methods.values() if m["kind"] == "pointwise" and m["models"].get("surrogate") == surrogate]
    return {
        "method": methods[method],
        "alone": alone[:1],
        "rollout": resolved["rollout"],
        "of": resolved["metrics"]["diagnose"],
    }


def _unlabelled(method: dict) -> dict:
    return {key: value for key, value in method.items() if key != "label"}


def _of_data(config: dict, system: str, models: list[str]) -> dict:
    """What data, models and the solver's scores depend on."""
    resolved = resolve(config, system)
    return {
        "seed": config["seed"],
        "systems": {system: {key: config["systems"][system][key] for key in ("solver", "emulator", "data")}},
        "models": {model: resolved["models"].get(model) for model in models},
        "rollout": {key: resolved["rollout"][key] for key in ("lags", "frame_stride")},
        "metrics": {key: resolved["metrics"][key] for key in ("map_lags", "user")},
    }


def _of_solver(config: dict, system: str) -> dict:
    """What the solver's rollout and its ensembles depend on beside that."""
    resolved = resolve(config, system)
    return {
        "rollout": resolved["rollout"],
        "metrics": {"ensemble": resolved["metrics"]["ensemble"]},
        "methods": {"solver": _unlabelled(resolved["methods"]["solver"])},
    }


def _check_reuse(config: dict) -> None:
    """Check that every setting on which the reused results depend has the value that it had in their run."""
    folder, listing = config["reuse"]["folder"], _listing(config["reuse"]["folder"])
    before, names = _configuration_of(listing), listing["files"]
    for system in config["use"]["systems"]:
        if not any(Path(name).parts[0] == system for name in names):
            raise ConfigurationError(f"reuse.folder: {folder} holds nothing of the system {system!r}")
        methods = resolve(config, system)["methods"]
        used = sorted({model for method in methods.values() for model in method["models"].values()})
        for model in used:
            if f"{system}/models/{model}.safetensors" not in names:
                raise ConfigurationError(
                    f"models.{model}: {folder} holds no such model, and what one would be trained on is not there"
                )
        for name, method in methods.items():
            if method.get("anchor") == "resampled":
                raise ConfigurationError(
                    f"methods.{name}.anchor: 'resampled' draws from training frames, which {folder} has not"
                )
        _same(folder, _of_data(config, system, used), _of_data(before, system, used))
        if config["reuse"]["solver"]:
            if not any(entry["kind"] == "solver" for entry in names.values()):
                raise ConfigurationError(
                    f"reuse.solver: {folder} holds no rollout of the solver; with false it is run here"
                )
            _same(
                folder,
                _of_solver(config, system),
                _of_solver(before, system),
                "; with reuse.solver false the solver is run here",
            )


def _same(folder: str, wanted, there, way_out: str = "") -> None:
    """That what is wanted and what is there agree; the first key in which they do not is told."""
    place = []
    while isinstance(wanted, dict) and isinstance(there, dict):
        key = next((k for k in sorted({*wanted, *there}) if wanted.get(k) != there.get(k)), None)
        if key is None:
            return
        place.append(key)
        wanted, there = wanted.get(key), there.get(key)
    here, theirs = (json.dumps(value)[:60] for value in (wanted, there))
    raise ConfigurationError(f"reuse: {'.'.join(place)} is {here} here, {theirs} in {folder}{way_out}")


def _check_movie(methods: list[str], used: list[str], known: set[str]) -> None:
    for name in methods:
        if name not in known:
            raise ConfigurationError(
                f"figures.movie.methods: {name!r} is not described under methods{_nearest(name, known)}"
            )
    if not set(methods) & set(used):
        raise ConfigurationError(f"figures.movie.methods: holds none of use.methods, {', '.join(used)}")


def _multiple(whole: float, part: float) -> bool:
    ratio = whole / part
    return round(ratio) >= 1 and abs(ratio - round(ratio)) < 1e-9 * ratio


def _check_system(name: str, resolved: dict) -> None:
    """Checks that span several keys."""
    solver, emulator = resolved["system"]["parameters"], resolved["emulator"]
    where = f"systems.{name}"
    if not _multiple(emulator["step"], solver["dt"]):
        nearest = max(1, round(emulator["step"] / solver["dt"])) * solver["dt"]
        raise ConfigurationError(
            f"{where}.emulator.step: {emulator['step']:g} is not a multiple of solver.dt {solver['dt']:g}; nearest: {nearest:g}"
        )
    if emulator["resolution"] > solver["resolution"]:
        raise ConfigurationError(
            f"{where}.emulator.resolution: {emulator['resolution']} is finer than solver.resolution {solver['resolution']}"
        )
    if plugins.is_own(resolved["system"]["name"]):
        _check_own_system(f"{where}.solver", resolved["system"]["name"], solver)
    if resolved["system"]["name"] == "TwoLayerQG" and solver["resolution"] % emulator["resolution"]:
        raise ConfigurationError(
            f"{where}.emulator.resolution: {emulator['resolution']} does not divide solver.resolution "
            f"{solver['resolution']}, of which block means are taken"
        )
    wavenumber = solver.get("forcing_wavenumber", 0)
    if wavenumber >= solver["resolution"] // 3:
        raise ConfigurationError(
            f"{where}.solver.forcing_wavenumber: {wavenumber} is not resolved by {solver['resolution']} points; "
            f"at most {solver['resolution'] // 3 - 1}"
        )
    used = {model for method in resolved["methods"].values() for model in method["models"].values()}
    for model, spec in resolved["models"].items():
        if model in used and spec["training"]["batch"] % resolved["devices"]:
            raise ConfigurationError(
                f"models.{model}.training.batch: {spec['training']['batch']} does not divide among the "
                f"{resolved['devices']} of hardware.devices"
            )
        if model in used:
            _check_model(f"models.{model}", spec, emulator["resolution"], resolved["data"]["splits"])
    for method, spec in resolved["methods"].items():
        _check_method(f"methods.{method}", spec, resolved)
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
    if not starts <= test or test < 2:
        raise ConfigurationError(
            f"metrics.ensemble.starts: {starts} states from the {test} members of {where}.data.splits.test, of which there must "
            "be as many, and two"
        )
    frames = resolved["data"]["splits"]["test"]["frames"]
    if frames <= max(rollout["lags"], rollout["frame_stride"] * resolved["metrics"]["map_lags"]):
        raise ConfigurationError(
            f"{where}.data.splits.test.frames: {frames} are too few for rollout.lags and metrics.map_lags"
        )
    _check_measures(resolved["metrics"]["user"])
    if "solver" not in resolved["methods"]:
        raise ConfigurationError("use.methods: must hold 'solver', to which every method is compared")


def solver_grids(resolved: dict) -> list[int]:
    """Points a side of the grids on which the solver is timed, the coarsest first: its own, and those multiples of it in
    metrics.cost.grids that the system can be computed on and seen on as the emulator sees it."""
    solver, side = resolved["system"]["parameters"], resolved["emulator"]["resolution"]
    own, least = solver["resolution"], max(side, 3 * (solver.get("forcing_wavenumber", 0) + 1))
    unit = side if resolved["system"]["name"] == "TwoLayerQG" else 2  # block means, or truncation
    found = {factor * own for factor in resolved["metrics"]["cost"]["grids"]}
    return sorted({own, *(int(points) for points in found if points >= least and points % unit == 0)})


@contextlib.contextmanager
def _telling(where: str):
    """What is wrong with a name of the user's own, told with its key."""
    try:
        yield
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _check_own_system(where: str, name: str, solver: dict) -> None:
    with _telling(f"{where}.class"):
        taken = plugins.parameters(name)
    if taken is None:
        return
    known, required = taken
    for key in solver:
        if key not in known:
            raise ConfigurationError(f"{where}: {name} takes no {key!r}{_nearest(key, known)}")
    for key in required:
        if key not in solver and key not in ("dtype", "device"):
            raise ConfigurationError(f"{where}: the key {key!r} is missing, which {name} takes")


def _check_measures(names: list[str]) -> None:
    short = [name.rpartition(".")[2] for name in names]
    for name in names:
        with _telling("metrics.user"):
            plugins.definition(name)
        if short.count(name.rpartition(".")[2]) > 1:
            raise ConfigurationError(f"metrics.user: two measures share the name {name.rpartition('.')[2]!r}")


def _check_model(where: str, spec: dict, resolution: int, splits: dict) -> None:
    network, training = spec["network"], spec["training"]
    divisor = network["patch"] * 2 ** (len(network["multipliers"]) - 1)
    if resolution % divisor:
        raise ConfigurationError(
            f"{where}.network: cannot halve {resolution} points {len(network['multipliers']) - 1} times after patches of "
            f"{network['patch']}; emulator.resolution must divide by {divisor}"
        )
    if training["steps"] % training["log_every"]:
        raise ConfigurationError(
            f"{where}.training.steps: {training['steps']} is not a multiple of log_every {training['log_every']}"
        )
    needed = training["unroll"] + 1
    if "diffusion" in spec and spec["diffusion"]["anchor"]:
        needed = 2 * spec["diffusion"]["anchor_gap"] + 2
    for key, there in {"trajectories": splits["train"]["members"], "frames": splits["train"]["frames"]}.items():
        if (training[key] or 0) > there:
            raise ConfigurationError(f"{where}.training.{key}: {training[key]} exceeds the {there} of the train split")
    for split in ("train", "validation"):
        frames = (training["frames"] if split == "train" else None) or splits[split]["frames"]
        if frames < needed:
            raise ConfigurationError(
                f"{where}: needs {needed} frames per trajectory, the split {split!r} gives {frames}"
            )


def _check_method(where: str, spec: dict, resolved: dict) -> None:
    """Check a method against its class: the models that it needs, and the options that its `build` takes."""
    kind, models = spec["kind"], spec["models"]
    with _telling(f"{where}.kind"):
        needs, options = plugins.needs_of(kind), plugins.options_of(kind)
    for role, objectives in needs.items():
        if role not in models:
            raise ConfigurationError(
                f"{where}.models: a method of the kind {kind!r} needs a {role}; name a model as {role}: …"
            )
        model = models[role]
        if model not in resolved["models"]:
            raise ConfigurationError(f"{where}.models.{role}: no model {model!r}{_nearest(model, resolved['models'])}")
        objective = resolved["models"][model]["objective"]
        if objective not in objectives:
            raise ConfigurationError(
                f"{where}.models.{role}: {model!r} has the objective {objective!r}, the {role} of a method of the kind {kind!r} "
                f"needs {' or '.join(map(repr, objectives))}"
            )
    for role in models:
        if role not in needs:
            raise ConfigurationError(f"{where}.models: a method of the kind {kind!r} has no use for a {role}")
    for key in spec:
        if key in METHOD_KEYS:
            continue
        if key not in options:
            renamed = RENAMED.get(f"methods.*.{key}")
            hint = f" (it is called {renamed.rpartition('.')[2]!r} now)" if renamed else ""
            raise ConfigurationError(
                f"{where}.{key}: a method of the kind {kind!r} has no such option{hint}; it takes {', '.join(options) or 'none'}"
            )
        try:
            spec[key] = plugins.check_option(kind, key, spec[key], f"{where}.{key}")
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
    for name, option in options.items():
        if option.required and name not in spec:
            raise ConfigurationError(f"{where}: the key {name!r} is missing; a method of the kind {kind!r} needs it")
    known = resolved["metrics"]["ensemble"]["leads"]
    for lead in spec.get("leads", []):
        if lead not in known:
            raise ConfigurationError(
                f"{where}.leads: {lead} is not among {', '.join(map(str, known))} of metrics.ensemble.leads"
            )
    block = resolved["rollout"]["block_steps"]
    for key in ("steps", "segment_steps"):
        value = spec.get(key, resolved["rollout"][key])
        if value % block:
            place = where if key in spec else "rollout"
            raise ConfigurationError(f"{place}.{key}: {value} is not a multiple of rollout.block_steps {block}")


def segments(method: dict, rollout: dict) -> list[tuple[int, int]]:
    """(first step, steps) of each segment of a method's rollout."""
    total = method.get("steps", rollout["steps"])
    length = method.get("segment_steps", rollout["segment_steps"])
    return [(start, min(length, total - start)) for start in range(0, total, length)]


def member_groups(of: dict) -> list[str]:
    """The members of a rollout or split in groups of `group_members`, each a job's: "0-3", "4-7", …"""
    size, members = of["group_members"] or of["members"], of["members"]
    return [f"{first}-{min(first + size, members) - 1}" for first in range(0, members, size)]


def members_of(group: str) -> list[int]:
    """Members of a group "first-last"."""
    first, last = map(int, group.split("-"))
    return list(range(first, last + 1))


def as_parameter(value) -> str:
    """JSON with sorted keys: the same configuration slice is the same parameter, whatever the order it was written in."""
    return json.dumps(value, sort_keys=True)
