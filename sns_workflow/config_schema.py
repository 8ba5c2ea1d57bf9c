"""The schema of the configuration: which keys there are, their defaults, and what holds for one system.

Where defaults live: keys with fixed names have theirs in config/config.yaml, keys below a name of the user's own
(systems, models, methods) in the schema itself.
"""

import copy
import functools
import json
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from sns_workflow.config_files import LOADER
from sns_workflow.config_mistakes import explain_first
from sns_workflow.config_models import settle_diffusion
from sns_workflow.config_source import cut_to_blocks, described_source, fit_to_files
from sns_workflow.config_values import ConfigurationError, conform, merge, plain

SCHEMA = Path(__file__).with_name("config.schema.yaml")
DEFAULT = Path(__file__).parents[1] / "config" / "config.yaml"
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
        message, key = explain_first(errors)
        raise ConfigurationError(f"{prefix}{message}", prefix.removesuffix(": ") or key)


def resolve(config: dict, system: str) -> dict:
    """Return models, methods, rollout and metrics as they hold for one system, with its solver, emulator and data.

    A system whose data come from files also has its "source" (see `described_source`), and "notes", lines about
    defaults that were fitted to the files.
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
