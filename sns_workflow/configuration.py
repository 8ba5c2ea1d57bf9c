"""The one place where a configuration is read, checked and resolved for each system: `read`.

Imports no torch: every job of a workflow parses the Snakefile again. Every mistake is one line that names the file, the
key, the value and the way out. The steps: what the files say (config_files.py), what a value means (config_values.py),
the schema, and what values say of each other: of a whole configuration (config_checks.py) and of each system
(config_system.py).
"""

import copy
import json
import sys
from dataclasses import dataclass, field

from sns_core.grids import longer_side
from sns_workflow import config_checks
from sns_workflow.config_checks import movie_methods
from sns_workflow.config_files import ConfigFiles, refuse_repeated_options
from sns_workflow.config_methods import METHOD_KEYS
from sns_workflow.config_models import teachers_of, used_models, with_teachers
from sns_workflow.config_renamed import RENAMED, with_new_names
from sns_workflow.config_reuse import check_reuse, reused_results
from sns_workflow.config_schema import DEFAULT, SCHEMA, check_schema, complete, resolve, schema
from sns_workflow.config_system import check_system
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

    `files`: where it was read from, for messages that name file and line; `files_must_exist`: refuse an external
    rollout that is not there. Raises ConfigurationError, one line, for the first mistake.
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
            systems[system] = check_system(system, whole, files_must_exist)
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
    """Give the methods or models of the whole configuration the settled options that hold for all systems.

    The whole configuration is what a run records.
    """
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
        if workflow.is_main_process:
            refuse_repeated_options(sys.argv[1:])
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
    """Refuse the `prefix` of a module, which moves the files of rules but not the names of files in their settings."""
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
