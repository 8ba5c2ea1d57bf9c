"""Sweeps: one run for each point of a grid of configuration values (`sweep` in a configuration; workflow/sweep.smk).

    sweep:
      seed: [0, 1, 2]                                           # a key of the configuration, and its values
      systems.kolmogorov.solver.viscosity: [1.0e-3, 5.0e-4]
      training:                                                 # or a name of your own: overlays, by names of your own
        short: {models: {sns_residual: {training: {steps: 3000}}}}
        long: {models: {sns_residual: {training: {steps: 6000}}}}

Each point is a run of its own in the folder of the sweep. Of all points whose settings for a file are equal, the first
makes the file, and the others link to it: data, the reference ensemble, models, calibrations, rollouts.
"""

import copy
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from sns_core.files import digest
from sns_core.plugins import is_calibrated
from sns_workflow import configuration
from sns_workflow.config_files import ConfigFiles
from sns_workflow.config_schema import DEFAULT
from sns_workflow.config_values import ConfigurationError, merge, plain

SEEDS = {"seed": [0, 1, 2]}  # the sweep of a configuration that names none
LONGEST_NAME = 48
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
        return re.sub(r"\W", "_", self.name) + "_"


@dataclass(frozen=True)
class Sweep:
    """A grid of runs. `folder`: of the sweep; `axes`: names of the columns of its table; `points`: in the grid's order."""

    folder: str
    axes: tuple[str, ...]
    points: tuple[Point, ...]


def read(config: dict, files: ConfigFiles | None = None) -> Sweep:
    """Return the sweep of a configuration, with every point checked.

    Raises ConfigurationError, one line, for the first mistake in the grid or in a point.
    """
    base = plain(config)
    axes = _checked_axes(base.pop("sweep", None) or SEEDS)
    run, results = str(base.get("run")), str(base.get("results"))
    points: list[Point] = []
    makers: list[dict] = []  # of each point so far: what its files depend on
    names: set[str] = set()
    for place, overlay in _grid(axes):
        name = _name_of(place)
        if name in names:
            raise ConfigurationError(f"sweep: two points have the name {name!r}; give their values names of your own")
        names.add(name)
        merged = merge(copy.deepcopy(base), {**overlay, "run": name, "results": f"{results}/{run}-sweep"})
        try:
            checked = configuration.read(merged, files)
        except ConfigurationError as error:
            raise ConfigurationError(f"sweep, point {name}: {error}", error.key) from None
        needs = dependencies(checked)
        linked = {}
        for pattern, settings in needs.items():
            first = next((i for i, made in enumerate(makers) if made.get(pattern) == settings), None)
            if first is not None:
                linked[pattern] = points[first].folder
        makers.append(needs)
        points.append(Point(name, place, checked.whole, linked))
    return Sweep(f"{results}/{run}-sweep", tuple(_short_names(axes)), tuple(points))


def read_or_stop(config: dict, workflow) -> Sweep:
    """Read the sweep of a Snakefile; a mistake ends the process with one line on standard error."""
    try:
        return read(config, ConfigFiles(workflow.overwrite_configfiles, DEFAULT, workflow.config_settings.config))
    except ConfigurationError as error:
        print(f"Configuration: {error}", file=sys.stderr)
        sys.exit(1)


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
        needs[f"{system}/(data|shards)/[^/]+"] = data
        lengths = {key: rollout[key] for key in ("lags", "block_steps", "segment_steps")}
        needs[f"{system}/reference/.+"] = {**data, **lengths}
        computed = {**data, "precision": hardware["precision"], "compile": hardware["compile"]}
        for method, spec in resolved["methods"].items():
            names = configuration.with_teachers(spec["models"].values(), resolved["models"])
            models = {model: resolved["models"][model] for model in names}
            for model in models:
                files = rf"{system}/models/{re.escape(model)}\.(safetensors|json|csv)"
                learnt = configuration.with_teachers([model], resolved["models"])
                read = [resolved["models"][name].get("calibration") for name in learnt]
                needs[files] = {
                    **computed,
                    "models": {name: resolved["models"][name] for name in learnt},
                    "calibrations": {name: resolved["methods"][name] for name in read if name},
                }
            if spec["kind"] == "external":
                continue
            run = {**computed, "method": spec, "models": models}
            if is_calibrated(spec["kind"]):
                needs[rf"{system}/calibrations/{re.escape(method)}\.json"] = run
            run |= {"rollout": rollout, "ensemble": resolved["metrics"]["ensemble"]}
            needs[rf"{system}/(rollouts/{re.escape(method)}/.+|ensembles/{re.escape(method)}\.nc)"] = run
    return needs


def maker_of(name: str, linked: dict[str, str]) -> str:
    """Return the file to which a linked file leads; `name`: of the file below the run's folder."""
    return next(f"{folder}/{name}" for pattern, folder in linked.items() if re.fullmatch(pattern, name))


def _checked_axes(sweep) -> dict[str, list | dict]:
    """Return the axes of a grid. Raises ConfigurationError for an axis without values, and for too many points."""
    if not isinstance(sweep, dict):
        raise ConfigurationError("sweep: must map each key to the list of its values")
    count = 1
    for key, values in sweep.items():
        if not isinstance(values, list | dict) or not values:
            raise ConfigurationError(f"sweep.{key}: must be a list of values, or overlays by their names")
        for label, overlay in values.items() if isinstance(values, dict) else ():
            if not isinstance(overlay, dict):
                raise ConfigurationError(f"sweep.{key}.{label}: must be an overlay, a mapping of keys to values")
        count *= len(values)
    if count > MOST_POINTS:
        raise ConfigurationError(f"sweep: {count} points, and at most {MOST_POINTS} are allowed")
    return sweep


def _short_names(axes: dict) -> dict[str, str]:
    """Return short name -> key of each axis: the last part of the key, or the whole key where two parts are equal."""
    last = [key.rpartition(".")[2] for key in axes]
    return {key if last.count(part) > 1 else part: key for part, key in zip(last, axes, strict=True)}


def _grid(axes: dict) -> Iterator[tuple[dict, dict]]:
    """Yield (place, overlay) of each point; the last axis runs fastest."""
    choices = []
    for short, key in _short_names(axes).items():
        values = axes[key]
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
    """Return the value itself if it is a number or a text, and otherwise its position."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else index


def _nested(key: str, value) -> dict:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _name_of(place: dict) -> str:
    """Return the name of a point's run, such as seed0-viscosity0.001; a long one is cut, and ends in a digest."""
    parts = (f"{axis}{value:g}" if isinstance(value, float) else f"{axis}{value}" for axis, value in place.items())
    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in parts)
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{digest(place)[:6]}"
