"""The schema of the configuration: defaults, old names of keys, what holds for one system, and mistakes in plain words.

Where defaults live: keys with fixed names have theirs in config/config.yaml, keys below a name of the user's own (systems, models,
methods) in the schema itself.
"""

import copy
import functools
import json
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from sns_workflow.config_checks import nearest
from sns_workflow.config_files import LOADER
from sns_workflow.config_models import settle_diffusion
from sns_workflow.config_source import cut_to_blocks, described_source, fit_to_files
from sns_workflow.config_values import ConfigurationError, conform, join, merge, plain, shown

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


# Sections whose entries have names of the user's own. All other keys have their defaults in config/config.yaml.
NAMED = ("systems", "models", "methods")


def complete(config: dict) -> dict:
    """Return a configuration with every default filled in, and numbers of the types that the schema asks for."""
    fixed = {key: copy.deepcopy(value) for key, value in default().items() if key not in NAMED}
    return conform(merge(fixed, config), schema())


@functools.cache
def schema() -> dict:
    """Return the schema."""
    return yaml.load(SCHEMA.read_text(encoding="utf-8"), LOADER)


@functools.cache
def default() -> dict:
    """Return the default configuration; nothing where this package is used without a clone of the repository."""
    if not DEFAULT.exists():
        return {}
    return plain(yaml.load(DEFAULT.read_text(encoding="utf-8"), LOADER))


def check_schema(config: dict, prefix: str = "") -> None:
    """Raise ConfigurationError for the first mistake that the schema finds; `prefix` begins its message."""
    mistakes = Draft202012Validator(schema()).iter_errors(config)
    errors = sorted(mistakes, key=lambda error: [str(part) for part in error.absolute_path])
    if errors:
        message, key = _explain_first(errors)
        raise ConfigurationError(f"{prefix}{message}", prefix.removesuffix(": ") or key)


def resolve(config: dict, system: str) -> dict:
    """Return models, methods, rollout and metrics as they hold for one system, with its solver, emulator and data.

    A system whose data come from files also has its "source" (see `described_source`), and "notes", lines about defaults that
    were fitted to the files.
    """
    block = config["systems"][system]
    override = copy.deepcopy(block.get("override", {}))
    # Through JSON, so that an object that YAML aliases share becomes a copy each, and a change of one stays there.
    shared = {key: json.loads(json.dumps(config[key])) for key in ("models", "methods", "rollout", "metrics")}
    resolved = conform(merge(shared, override), schema()) if override else shared
    resolved["methods"] = {name: resolved["methods"][name] for name in config["use"]["methods"]}
    resolved["devices"] = config["hardware"]["devices"]
    if "source" in block:
        resolved |= described_source(system, config)
        resolved["notes"] = fit_to_files(system, resolved)
        # The solver's place among the methods is taken by the trajectories themselves.
        recorded = cut_to_blocks(
            f"systems.{system}", resolved.pop("recorded"), resolved["rollout"], resolved["source"]["start"]
        )
        settle_diffusion(resolved["models"])
        return {**resolved, "methods": {**resolved["methods"], "solver": recorded}}
    settle_diffusion(resolved["models"])
    parameters = {key: value for key, value in block["solver"].items() if key != "class"}
    return {
        **resolved,
        "system": {"name": block["solver"]["class"], "parameters": parameters},
        "emulator": block["emulator"],
        "data": block["data"],
    }


def _deepest(error):
    """Inside alternatives, the mistake that the user is nearest to having avoided: the deepest one, not of type null."""
    if not error.context:
        return error
    inside = map(_deepest, error.context)
    return max(inside, key=lambda e: (len(e.absolute_path), e.validator != "type", e.validator != "const"))


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
        hint = nearest(value, allowed) if isinstance(value, str) else ""
        return f"{place}: {shown(value)} is none of {', '.join(allowed)}" + (
            hint if "did you mean" in hint else ""
        ), path
    bounds = {
        "minimum": "at least", "exclusiveMinimum": "greater than", "maximum": "at most", "exclusiveMaximum": "less than",
        "multipleOf": "a multiple of", "const": "exactly",
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
    if value == "null" and "null" in kinds:
        return " (it is text: --config passes null as text; write it in a file, without quotes, and name that after --configfile)"
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
