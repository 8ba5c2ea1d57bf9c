"""The one place where a configuration is read, checked and resolved for each system: `read`.

Imports no torch: every job of a workflow parses the Snakefile again. Every mistake is one line that names the file, the key,
the value and the way out. The steps: what the files say (config_files.py), what a value means (config_values.py), the schema,
and what values say of each other (config_checks.py).
"""

import contextlib
import copy
import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from sns_core import plugins
from sns_workflow import config_checks
from sns_workflow.config_checks import movie_methods, nearest
from sns_workflow.config_files import LOADER, ConfigFiles
from sns_workflow.config_values import ConfigurationError, conform, join, merge, plain, shown

__all__ = ["ConfigFiles", "Configuration", "ConfigurationError", "movie_methods", "read", "resolve"]

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

# Sections whose entries have names of the user's own. All other keys have their defaults in config/config.yaml.
NAMED = ("systems", "models", "methods")


@dataclass(frozen=True)
class Configuration:
    """A configuration that has passed all checks.

    `whole`: the mapping with types settled and defaults filled in; `systems`: name -> what holds for this system (see
    `resolve`); `reused`: name of a file below the run's folder -> kind, for results that are copied from another run.
    """

    whole: dict
    systems: dict[str, dict]
    reused: dict[str, str]


def read(config: dict, files: ConfigFiles | None = None, files_must_exist: bool = False) -> Configuration:
    """Check a configuration as Snakemake has merged it, and return what the rules use.

    `files`: where it was read from, for messages that name file and line; `files_must_exist`: refuse an external rollout
    that is not there. Raises ConfigurationError, one line, for the first mistake.
    """
    files = files or ConfigFiles()
    try:
        files.check()
        whole = complete(plain(config))
        _check_schema(whole)
        config_checks.check_names(whole)
        systems = {}
        for system in whole["use"]["systems"]:
            systems[system] = _check_system(system, whole, files_must_exist)
        if whole["reuse"] is not None:
            _check_reuse(whole)
        return Configuration(whole, systems, reused_results(whole))
    except ConfigurationError as error:
        raise ConfigurationError(f"{files.locate(error.key) if error.key else ''}{error}", error.key) from None


def read_or_stop(config: dict, workflow, files_must_exist: bool = False) -> Configuration:
    """Read the configuration of a Snakefile; a mistake ends the process with one line on standard error.

    An exception would do the same, with lines of Snakemake's around it.
    """
    files = ConfigFiles(workflow.overwrite_configfiles, DEFAULT, workflow.config_settings.config)
    try:
        return read(config, files, files_must_exist)
    except ConfigurationError as error:
        print(f"Configuration: {error}", file=sys.stderr)
        sys.exit(1)


def validate(config: dict) -> None:
    """Raise ConfigurationError for the first mistake in `config`."""
    read(config)


def complete(config: dict) -> dict:
    """Return a configuration with every default filled in, and numbers of the types that the schema asks for."""
    fixed = {key: copy.deepcopy(value) for key, value in _default().items() if key not in NAMED}
    return conform(merge(fixed, config), _schema())


@functools.cache
def _schema() -> dict:
    return yaml.load(SCHEMA.read_text(encoding="utf-8"), LOADER)


@functools.cache
def _default() -> dict:
    """Return the default configuration; nothing where this package is used without a clone of the repository."""
    if not DEFAULT.exists():
        return {}
    return plain(yaml.load(DEFAULT.read_text(encoding="utf-8"), LOADER))


def _check_schema(config: dict, prefix: str = "") -> None:
    found = Draft202012Validator(_schema()).iter_errors(config)
    errors = sorted(found, key=lambda error: [str(part) for part in error.absolute_path])
    if errors:
        message, key = _explain_first(errors)
        raise ConfigurationError(f"{prefix}{message}", prefix.removesuffix(": ") or key)


def resolve(config: dict, system: str) -> dict:
    """Return models, methods, rollout and metrics as they hold for one system, with its solver, emulator and data."""
    block = config["systems"][system]
    override = copy.deepcopy(block.get("override", {}))
    # Through JSON, so that an object that YAML aliases share becomes a copy each, and a change of one stays there.
    shared = {key: json.loads(json.dumps(config[key])) for key in ("models", "methods", "rollout", "metrics")}
    resolved = conform(merge(shared, override), _schema()) if override else shared
    resolved["methods"] = {name: resolved["methods"][name] for name in config["use"]["methods"]}
    parameters = {key: value for key, value in block["solver"].items() if key != "class"}
    return {
        **resolved,
        "system": {"name": block["solver"]["class"], "parameters": parameters},
        "emulator": block["emulator"],
        "data": block["data"],
        "devices": config["hardware"]["devices"],
    }


def _deepest(error):
    """Inside alternatives, the mistake that the user is nearest to having avoided: the deepest one, not of type null."""
    while error.context:
        error = max(error.context, key=lambda e: (len(e.absolute_path), e.validator != "type", e.validator != "const"))
    return error


def _explain_first(errors: list) -> tuple[str, str]:
    """Return one line about one of several mistakes, a key under its old name if there is one, and the key's path."""
    deepest = [_deepest(error) for error in errors]
    for error in deepest:
        if error.validator == "additionalProperties":
            for key in error.instance.keys() - error.schema.get("properties", {}).keys():
                old = ".".join(map(str, [*error.absolute_path, key]))
                if new := _name_now(old):
                    return f"{old}: was renamed to {new}", old
        if error.validator == "required":
            for key in error.instance:
                old = ".".join(map(str, [*error.absolute_path, key]))
                new = _name_now(old) or ""
                if new.rpartition(".")[2] in set(error.validator_value) - error.instance.keys():
                    return f"{old}: was renamed to {new}", old
    return _explain(deepest[0])


def _name_now(old: str) -> str | None:
    """Return the name that a key has now; None for a key that was never renamed."""
    for pattern, new in RENAMED.items():
        words, parts = pattern.split("."), old.split(".")
        if len(words) == len(parts) and all(word in ("*", part) for word, part in zip(words, parts, strict=True)):
            return ".".join(parts[i] if word == "*" else word for i, word in enumerate(new.split(".")))
    return None


def _explain(error) -> tuple[str, str]:
    """Return one line about a mistake, and the path of the key that it is about."""
    path = ".".join(str(part) for part in error.absolute_path)
    place, rule, value, limit = path or "the configuration", error.validator, error.instance, error.validator_value
    if rule == "additionalProperties":
        reference = error.schema.get("properties", {})
        unknown = next(key for key in value if key not in reference)
        return f"{place}: unknown key {shown(unknown)}{nearest(unknown, reference)}", join(path, unknown)
    if rule == "required":
        missing = next(key for key in limit if key not in value)
        return f"{place}: the key {missing!r} is missing", path
    if rule == "type":
        kinds = limit if isinstance(limit, list) else [limit]
        words = {
            "object": "a mapping", "array": "a list", "integer": "a whole number", "null": "null", "string": "text",
            "boolean": "true or false",
        }  # fmt: skip
        return (
            f"{place}: {shown(value)} is not {' or '.join(words.get(kind, f'a {kind}') for kind in kinds)}{_hint(value, kinds)}",
            path,
        )
    if rule == "enum":
        allowed = [str(v) for v in limit]
        pattern = ".".join(["methods", "*", *place.split(".")[2:]]) if place.startswith("methods.") else place
        if isinstance(value, str) and value in RENAMED_VALUES.get(pattern, {}):
            return f"{place}: {shown(value)} was renamed to {RENAMED_VALUES[pattern][value]}", path
        hint = nearest(value, allowed) if isinstance(value, str) else ""
        return f"{place}: {shown(value)} is none of {', '.join(allowed)}" + (
            hint if "did you mean" in hint else ""
        ), path
    bounds = {
        "minimum": "at least", "exclusiveMinimum": "greater than", "maximum": "at most", "exclusiveMaximum": "less than",
        "multipleOf": "a multiple of",
    }  # fmt: skip
    if rule in bounds:
        return f"{place}: {shown(value)} must be {bounds[rule]} {limit:g}", path
    if rule == "pattern":
        return f"{place}: {shown(value)} is not allowed; use {error.schema.get('description', limit)}", path
    if rule in ("minItems", "maxItems"):
        return (
            f"{place}: {shown(value)} must hold {'at least' if rule == 'minItems' else 'at most'} {limit} values",
            path,
        )
    if rule == "uniqueItems":
        twice = next((item for index, item in enumerate(value) if item in value[:index]), value)
        return f"{place}: {shown(twice)} stands twice", path
    if rule in ("minLength", "maxLength"):
        return (
            f"{place}: {shown(value)} must have {'at least' if rule == 'minLength' else 'at most'} {limit} characters",
            path,
        )
    return f"{place}: {' '.join(error.message.split())[:200]}", path


def _hint(value, kinds: list[str]) -> str:
    """Return the likely reason why a value has another type than it should have."""
    if isinstance(value, str) and {"number", "integer"} & set(kinds):
        try:
            float(value)
        except ValueError:
            return ""
        if "e" in value.lower():
            return " (YAML reads 1e-3 and 1.0e6 as text; write 1.0e-3 and 1.0e+6)"
        return (
            " (it is text: leave out the quotes; --config passes all values inside mappings as text, a file does not)"
        )
    if "string" in kinds and isinstance(value, bool):
        return " (YAML reads yes, no, on and off as true and false; put the word in quotes)"
    if "string" in kinds and isinstance(value, int | float):
        return "; put it in quotes" if kinds == ["string"] else ""
    return ""


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
        listing = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigurationError(
            f"reuse.folder: there is no {path}; `python -m sns_core collect_run` makes such a folder of a finished run"
        ) from None
    except ValueError:
        raise ConfigurationError(f"reuse.folder: {path} is damaged: it is no JSON") from None
    if not isinstance(listing, dict) or not {"configuration", "files"} <= listing.keys():
        raise ConfigurationError(f"reuse.folder: {path} is no list of a collected run")
    return listing


def _configuration_of(listing: dict) -> dict:
    """Return the configuration of a collected run in the words of today: renamed keys have their new names, and keys
    that were added later have their default values."""
    return conform(merge(copy.deepcopy(_default()), with_new_names(plain(listing["configuration"]))), _schema())


def with_new_names(config: dict) -> dict:
    """Rename, in place, every key of a configuration that has its old name (see RENAMED)."""
    for method in (config.get("methods") or {}).values():
        readout = method.get("readout", {})
        if readout.get("kind") != "quantile" and "quantile" in readout:
            share = readout.pop("quantile")  # only a calibrated read-out used it
            readout |= {"refine_share": share} if readout.get("kind") == "calibrated" else {}
    for old, new in RENAMED.items():
        if not old.endswith("readout.quantile"):
            _rename(config, old.split("."), new.split("."))
    for method in (config.get("methods") or {}).values():
        if "kind" in method:
            method["kind"] = RENAMED_VALUES["methods.*.kind"].get(method["kind"], method["kind"])
    for system in (config.get("systems") or {}).values():
        with_new_names(system.get("override") or {})
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


def _multiple(whole: float, part: float) -> bool:
    ratio = whole / part
    return ratio <= 1e12 and round(ratio) >= 1 and abs(ratio - round(ratio)) < 1e-9 * ratio


def _check_system(name: str, config: dict, files_must_exist: bool) -> dict:
    """Check values of one system against each other, and return what holds for it."""
    resolved = resolve(config, name)
    if config["systems"][name]["override"]:
        sections = {key: resolved[key] for key in ("models", "rollout", "metrics")}
        methods = {**config["methods"], **resolved["methods"]}
        _check_schema({**config, **sections, "methods": methods}, f"systems.{name}.override: ")
    solver, emulator = resolved["system"]["parameters"], resolved["emulator"]
    where = f"systems.{name}"
    config_checks.check_work(where, resolved)
    if not _multiple(emulator["step"], solver["dt"]):
        closest = max(1, round(min(emulator["step"] / solver["dt"], 1e12))) * solver["dt"]
        raise ConfigurationError(
            f"{where}.emulator.step: {emulator['step']:g} is not a multiple of solver.dt {solver['dt']:g}; nearest: {closest:g}"
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
    _check_measures(resolved["metrics"]["user"])
    config_checks.check_labels("methods", resolved["methods"])
    config_checks.check_lengths(where, resolved, config["figures"])
    config_checks.check_scales(where, resolved)
    config_checks.check_companions(resolved, config["reuse"] is not None, files_must_exist)
    return resolved


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
            raise ConfigurationError(f"{where}: {name} takes no {key!r}{nearest(key, known)}")
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
            raise ConfigurationError(f"{where}.models.{role}: no model {model!r}{nearest(model, resolved['models'])}")
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
