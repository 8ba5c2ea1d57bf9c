"""Sweeps: one run for each point of a grid of configuration values (`sweep` in a configuration; workflow/sweep.smk).

    sweep:
      seed: [0, 1, 2]                                           # a key of the configuration, and its values
      systems.kolmogorov.solver.viscosity: [1.0e-3, 5.0e-4]
      training:                                                 # or a name of your own: overlays, by names of your own
        short: {models: {sns_residual: {training: {steps: 3000}}}}
        long: {models: {sns_residual: {training: {steps: 6000}}}}

Each point is a run of its own in the folder of the sweep. Of all points whose settings for a file are equal, one makes
the file, and the others link to it: data, the reference ensemble, models, calibrations, rollouts. It is the one that
has made the file already, so that a value may be put first or taken away, and otherwise the first. A point that was
taken away is known by its provenance.json, which the sweep makes of each point.
"""

import copy
import functools
import itertools
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sns_core.catalogue import WITHOUT_NETWORKS
from sns_core.files import digest
from sns_core.plugins import is_calibrated
from sns_core.record import RUN
from sns_workflow import configuration
from sns_workflow.config_files import ConfigFiles, refuse_repeated_options
from sns_workflow.config_schema import DEFAULT
from sns_workflow.config_values import ConfigurationError, merge, plain

SEEDS = {"seed": [0, 1, 2]}  # the sweep of a configuration that names none
LONGEST_NAME = 48
# Columns of the sweep's table, which no axis of the grid may be called.
COLUMNS = (
    "system", "method", "score", "layer", "lead", "value", "runs", "mean", "deviation", "least", "greatest", "low", "high",
    "floor_low", "floor_high", "inside", "members_lost", "members",
)  # fmt: skip
MOST_POINTS = 1000


@dataclass(frozen=True)
class Point:
    """A run of a sweep. `place`: axis -> value; `linked`: pattern of names below the run's folder -> folder of another
    point, which makes the files of these names."""

    name: str
    place: dict
    whole: dict
    linked: dict[str, str]

    @property
    def folder(self) -> str:
        """The folder of the run."""
        return f"{self.whole['results']}/{self.whole['run']}"

    @property
    def rule_prefix(self) -> str:
        """The beginning of the names of this run's rules."""
        return _rule_prefix(self.name)


@dataclass(frozen=True)
class Sweep:
    """A grid of runs. `folder`: of the sweep; `grid`: as a configuration states it; `axes`: names of the columns of its
    table; `points`: in the grid's order; `former`: points that have left the grid, and whose files the others link to;
    `notes`: lines about values that were fitted to points, each once."""

    folder: str
    grid: dict
    axes: tuple[str, ...]
    points: tuple[Point, ...]
    former: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()


def read(config: dict, files: ConfigFiles | None = None) -> Sweep:
    """Return the sweep of a configuration, with every point checked.

    Raises ConfigurationError, one line, for the first mistake in the grid or in a point.
    """
    base = plain(config)
    grid = _checked_grid(base.pop("sweep", None) or SEEDS)
    run, results = str(base.get("run")), str(base.get("results"))
    points: list[Point] = []
    needs: list[dict] = []  # of each point: what its files depend on
    names: dict[str, str] = {}  # prefix of a point's rules -> its name
    notes: dict[str, None] = {}
    for place, overlay in _places(grid):
        name = _name_of(place)
        first = names.get(_rule_prefix(name))
        if first == name:
            raise ConfigurationError(f"sweep: two points have the name {name!r}; give their values names of your own")
        if first is not None:
            raise ConfigurationError(
                f"sweep: the names of the points {first!r} and {name!r} differ in signs alone; give their values names of your own"
            )
        names[_rule_prefix(name)] = name
        merged = merge(copy.deepcopy(base), {**overlay, "run": name, "results": f"{results}/{run}-sweep"})
        try:
            checked = configuration.read(merged, files)
        except ConfigurationError as error:
            raise ConfigurationError(f"sweep, point {name}: {error}", error.key) from None
        needs.append(dependencies(checked))
        notes |= dict.fromkeys(checked.notes)
        points.append(Point(name, place, checked.whole, {}))
    folder = f"{results}/{run}-sweep"
    count = len(points)
    for checked in _former(folder, points):
        needs.append(dependencies(checked))
        points.append(Point(checked.whole["run"], {}, checked.whole, {}))
    links = _links([point.folder for point in points], needs)
    points = [replace(point, linked=linked) for point, linked in zip(points, links, strict=True)]
    used = {maker for linked in links[:count] for maker in linked.values()}
    former = [point for point in points[count:] if point.folder in used]
    return Sweep(folder, grid, tuple(_short_names(grid)), tuple(points[:count]), tuple(former), tuple(notes))


def described_runs(config: dict) -> list[dict]:
    """Return the whole configuration of each run that a configuration describes: its own, or those of its `sweep`.

    Points that have left a sweep, and whose files its points link to, are among them.
    """
    if "sweep" not in config:
        return [config]
    described = read(config)
    return [point.whole for point in (*described.points, *described.former)]


def _links(folders: list[str], needs: list[dict]) -> list[dict[str, str]]:
    """Return the links of each point: pattern of names -> folder of the other point that makes these files.

    `needs`: of each point, pattern -> settings. The maker is the point that holds most such files and no links, the
    first of these: a point may keep files of settings that it had before, such as those from which a rollout goes on.
    """
    equal = defaultdict(list)
    for index, patterns in enumerate(needs):
        for pattern, settings in patterns.items():
            equal[pattern, json.dumps(settings, sort_keys=True)].append(index)
    links: list[dict[str, str]] = [{} for _ in folders]
    made = functools.cache(lambda folder: [name for name, target in _files(folder) if target is None])
    for (pattern, _), points in equal.items():
        if len(points) > 1:
            maker = max(points, key=lambda i: sum(bool(re.fullmatch(pattern, name)) for name in made(folders[i])))
            for index in points:
                if index != maker:
                    links[index][pattern] = folders[maker]
    return links


def _former(folder: str, points: list[Point]) -> Iterator[configuration.Configuration]:
    """Yield the configurations of finished runs that have left a sweep, but to whose files its points link."""
    targets = {target for point in points for _, target in _files(point.folder) if target is not None}
    inside = [
        target.relative_to(Path(folder).resolve())
        for target in targets
        if target.is_relative_to(Path(folder).resolve())
    ]
    for name in sorted({target.parts[0] for target in inside} - {point.name for point in points}):
        try:
            whole = json.loads(Path(folder, name, RUN).read_text())["configuration"]
            if (whole["results"], whole["run"]) == (folder, name):
                yield configuration.read(whole)
        except (OSError, ValueError, KeyError, TypeError, ConfigurationError):
            continue  # such a run is not finished, or of another version: its files are made anew


def _files(folder: str) -> Iterator[tuple[str, Path | None]]:
    """Yield (name below a run's folder, file to which it leads if it is a link) of the results that a run holds.

    The records beside them are left out: a link has a record, too.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in ("provenance", "logs") and not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            yield path.relative_to(folder).as_posix(), path.resolve() if path.is_symlink() else None


def read_or_stop(config: dict, workflow) -> Sweep:
    """Read the sweep of a Snakefile; a mistake ends the process with one line on standard error."""
    try:
        if workflow.is_main_process:
            refuse_repeated_options(sys.argv[1:])
        swept = read(config, ConfigFiles(workflow.overwrite_configfiles, DEFAULT, workflow.config_settings.config))
    except ConfigurationError as error:
        print(f"Configuration: {error}", file=sys.stderr)
        sys.exit(1)
    for note in swept.notes if workflow.is_main_process else ():  # every job reads the configuration again
        print(f"Configuration: {note}", file=sys.stderr)
    return swept


def dependencies(checked: configuration.Configuration) -> dict[str, dict]:
    """Return pattern of names below a run's folder -> all settings on which the files of these names depend."""
    hardware = checked.whole["hardware"]
    needs: dict[str, dict] = {}
    for name, resolved in checked.systems.items():
        system, rollout = re.escape(name), resolved["rollout"]
        data = {
            "seed": checked.whole["seed"],
            "reuse": checked.whole["reuse"],
            "device": hardware["device"],
            **{key: resolved.get(key) for key in ("system", "source", "emulator", "data")},
        }
        needs[rf"{system}/(data/(?!continued\.nc)|shards/)[^/]+"] = data
        lengths = {key: rollout[key] for key in ("lags", "block_steps", "segment_steps")}
        # The frames that stand for the solver's rollout are as many as whole blocks hold.
        needs[rf"{system}/data/continued\.nc"] = {**data, **lengths}
        needs[f"{system}/reference/.+"] = {**data, **lengths}
        computed = {**data, "precision": hardware["precision"], "compile": hardware["compile"]}
        for method, spec in resolved["methods"].items():
            names = configuration.with_teachers(spec["models"].values(), resolved["models"])
            models = {model: resolved["models"][model] for model in names}
            for model in models:
                files = rf"{system}/models/{re.escape(model)}\.(safetensors|json|csv)"
                learnt = configuration.with_teachers([model], resolved["models"])
                followed = [resolved["models"][name].get("calibration") for name in learnt]
                needs[files] = {
                    **computed,
                    "models": {name: resolved["models"][name] for name in learnt},
                    "calibrations": {name: resolved["methods"][name] for name in followed if name},
                }
            if spec["kind"] == "external":
                continue
            run = {**(data if spec["kind"] in WITHOUT_NETWORKS else computed), "method": spec, "models": models}
            if is_calibrated(spec["kind"]):
                needs[rf"{system}/calibrations/{re.escape(method)}\.json"] = run
            run |= {"rollout": rollout, "ensemble": resolved["metrics"]["ensemble"]}
            needs[rf"{system}/(rollouts/{re.escape(method)}/.+|ensembles/{re.escape(method)}\.nc)"] = run
    return needs


def maker_of(name: str, linked: dict[str, str]) -> str:
    """Return the file to which a linked file leads; `name`: of the file below the run's folder."""
    return next(f"{folder}/{name}" for pattern, folder in linked.items() if re.fullmatch(pattern, name))


def _checked_grid(sweep) -> dict[str, list | dict]:
    """Return a grid, axis -> values. Raises ConfigurationError for an axis without values, for one that names the folders
    of the points or is called like a column of the sweep's table, and for too many points.
    """
    if not isinstance(sweep, dict):
        raise ConfigurationError("sweep: must map each key to the list of its values")
    count = 1
    for key, values in sweep.items():
        if not isinstance(values, list | dict) or not values:
            raise ConfigurationError(f"sweep.{key}: must be a list of values, or overlays by their names")
        if key in ("run", "results"):
            raise ConfigurationError(f"sweep.{key}: each point has a folder of its own, so this key can be no axis")
        if key in COLUMNS:
            raise ConfigurationError(f"sweep.{key}: is the name of a column of the sweep's table; choose another name")
        for label, overlay in values.items() if isinstance(values, dict) else ():
            if not isinstance(overlay, dict):
                raise ConfigurationError(f"sweep.{key}.{label}: must be an overlay, a mapping of keys to values")
        count *= len(values)
    if count > MOST_POINTS:
        raise ConfigurationError(f"sweep: {count} points, and at most {MOST_POINTS} are allowed")
    return sweep


def _short_names(grid: dict) -> dict[str, str]:
    """Return short name -> key of each axis: the last part of the key.

    It is the whole key where two last parts are equal, or where the last part is a column of the sweep's table.
    """
    last = [key.rpartition(".")[2] for key in grid]
    whole = {part for part in last if last.count(part) > 1 or part in COLUMNS}
    return {key if part in whole else part: key for part, key in zip(last, grid, strict=True)}


def _places(grid: dict) -> Iterator[tuple[dict, dict]]:
    """Yield (place, overlay) of each point; the last axis runs fastest."""
    choices = []
    for short, key in _short_names(grid).items():
        values = grid[key]
        if isinstance(values, dict):
            choices.append([(short, label, overlay) for label, overlay in values.items()])
        else:
            choices.append([(short, _label(v, i), _nested(key, v)) for i, v in enumerate(values)])
    for chosen in itertools.product(*choices):
        overlay: dict = {}
        for _, _, part in chosen:
            merge(overlay, copy.deepcopy(part))
        yield {short: label for short, label, _ in chosen}, overlay


def _label(value, index: int):
    """Return the value itself if it is a number or a text, true, false and null as text, and otherwise its position."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return value if isinstance(value, int | float | str) else index


def _nested(key: str, value) -> dict:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _rule_prefix(name: str) -> str:
    """Return the beginning of the names of a point's rules, which hold letters, digits and underscores alone."""
    return re.sub(r"\W", "_", name) + "_"


def _name_of(place: dict) -> str:
    """Return the name of a point's run, such as seed0-viscosity0.001; a long one is cut, and ends in a digest."""
    parts = (f"{axis}{value:g}" if isinstance(value, float) else f"{axis}{value}" for axis, value in place.items())
    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in parts)
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{digest(place)[:6]}"
