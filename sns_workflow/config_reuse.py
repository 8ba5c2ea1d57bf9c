"""Results that a run copies from a collected run instead of making them (`reuse` in the configuration)."""

import json
from pathlib import Path

from sns_core.catalogue import ALONE
from sns_core.plugins import is_calibrated
from sns_workflow.config_methods import METHOD_KEYS, model_settings, settings_of
from sns_workflow.config_models import used_models
from sns_workflow.config_renamed import with_new_names
from sns_workflow.config_schema import complete, resolve
from sns_workflow.config_values import ConfigurationError, plain


def reused_results(config: dict) -> dict[str, str]:
    """Return name below a run's folder -> kind, for the results that this run copies from `reuse.folder`.

    The solver's rollout is copied if `reuse.solver` is true; the diagnosis of a denoiser and the calibration of a
    method, if every setting on which they depend has the same value in both runs.
    """
    if config["reuse"] is None:
        return {}
    listing = _listing(config["reuse"]["folder"])
    before = _configuration_of(listing)
    results = {}
    for name, entry in listing["files"].items():
        system, kind = Path(name).parts[0], entry["kind"]
        if system not in config["use"]["systems"]:
            continue
        if kind in DEPENDENT:
            now, then = (DEPENDENT[kind](resolve(c, system), Path(name).stem) for c in (config, before))
            wanted = now is not None and now == then
        else:
            wanted = kind != "solver" or config["reuse"]["solver"]
        if wanted:
            results[name] = kind
    return results


def _listing(folder: str) -> dict:
    path = Path(folder, "given.json")
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigurationError(
            f"reuse.folder: there is no {path}; `python -m sns_core collect_run` makes such a folder of a finished run"
        ) from None
    except ValueError:
        raise ConfigurationError(
            f"reuse.folder: {path} is damaged: it is no JSON; check the folder out again"
        ) from None
    if not isinstance(listing, dict) or not {"configuration", "files"} <= listing.keys():
        raise ConfigurationError(
            f"reuse.folder: {path} is no list of a collected run; make one with `python -m sns_core collect_run`"
        )
    return listing


def _configuration_of(listing: dict) -> dict:
    """Return the configuration of a collected run in the words of today: renamed keys have their new names, and keys
    that were added later have their default values; below names of the user's own, those of the schema."""
    configuration = with_new_names(plain(listing["configuration"]))
    for model in configuration.get("models", {}).values():
        # Networks of older runs lack this key and are not centred.
        model.get("network", {}).setdefault("centred", False)
    return complete(configuration)


def _diagnosis_settings(resolved: dict, method: str) -> dict | None:
    """Return the settings on which the diagnosis of a method's denoiser depends; None for a method that is not used."""
    methods = {name: settings_of(spec) for name, spec in resolved["methods"].items()}
    if method not in methods:
        return None
    surrogate = methods[method]["models"].get("surrogate")
    alone = [m for m in methods.values() if m["kind"] in ALONE and m["models"].get("surrogate") == surrogate]
    return {
        "method": methods[method],
        "alone": alone[:1],
        "rollout": resolved["rollout"],
        "diagnose": resolved["metrics"]["diagnose"],
    }


def _calibration_settings(resolved: dict, method: str) -> dict | None:
    """Return the settings on which the calibration of a method depends; None for a method that is not used."""
    spec = resolved["methods"].get(method)
    lengths = {*METHOD_KEYS} - {"kind", "models"}
    return spec and {key: value for key, value in settings_of(spec).items() if key not in lengths}


# Kind of a result -> the settings on which it depends, besides those of data and models; they may differ between the
# runs.
DEPENDENT = {"diagnostics": _diagnosis_settings, "calibrations": _calibration_settings}


def _data_settings(config: dict, system: str, models: list[str]) -> dict:
    """Return the settings on which data, models and the solver's scores depend."""
    resolved = resolve(config, system)
    return {
        "seed": config["seed"],
        "systems": {
            system: {
                key: value
                for key, value in config["systems"][system].items()
                if key in ("solver", "source", "emulator", "data")
            }
        },
        "models": {model: model_settings(resolved["models"].get(model)) for model in models},
        "rollout": {key: resolved["rollout"][key] for key in ("lags", "frame_stride")},
        "metrics": {key: resolved["metrics"][key] for key in ("map_lags", "user")},
    }


def _solver_settings(config: dict, system: str) -> dict:
    """Return the further settings on which the solver's rollout and its ensembles depend."""
    resolved = resolve(config, system)
    return {
        "rollout": resolved["rollout"],
        "metrics": {"ensemble": resolved["metrics"]["ensemble"]},
        "methods": {"solver": settings_of(resolved["methods"]["solver"])},
    }


def check_reuse(config: dict) -> None:
    """Check that every setting on which the reused results depend has the value that it had in their run."""
    folder, listing = config["reuse"]["folder"], _listing(config["reuse"]["folder"])
    before, names, reused = _configuration_of(listing), listing["files"], reused_results(config)
    for system in config["use"]["systems"]:
        if not any(Path(name).parts[0] == system for name in names):
            raise ConfigurationError(
                f"reuse.folder: {folder} holds nothing of the system {system!r}; name another folder, or leave the system out"
            )
        resolved = resolve(config, system)
        methods, used = resolved["methods"], sorted(used_models(resolved))
        for model in used:
            if f"{system}/models/{model}.safetensors" not in names:
                raise ConfigurationError(
                    f"models.{model}: {folder} holds no such model, and what one would be trained on is not there; "
                    "use a method whose models it holds"
                )
        for name, method in methods.items():
            if method.get("anchor_frame") == "resampled":
                raise ConfigurationError(
                    f"methods.{name}.anchor_frame: 'resampled' draws from training frames, which {folder} has not; use initial"
                )
            if is_calibrated(method["kind"]) and f"{system}/calibrations/{name}.json" not in reused:
                raise ConfigurationError(
                    f"methods.{name}: {folder} holds no calibration of this method with these options, nor the frames to measure "
                    "one on; use the options of the config.json there"
                )
        _check_equal(folder, _data_settings(config, system, used), _data_settings(before, system, used))
        if config["reuse"]["solver"]:
            if not any(entry["kind"] == "solver" for entry in names.values()):
                raise ConfigurationError(
                    f"reuse.solver: {folder} holds no rollout of the solver; with false it is run here"
                )
            _check_equal(
                folder,
                _solver_settings(config, system),
                _solver_settings(before, system),
                "; with reuse.solver false the solver is run here",
            )


def _check_equal(folder: str, settings, collected, way_out: str = "") -> None:
    """Raise ConfigurationError with the first key in which settings of this run and of the collected run differ."""
    place = []
    while isinstance(settings, dict) and isinstance(collected, dict):
        keys = sorted({*settings, *collected})
        key = next((key for key in keys if settings.get(key) != collected.get(key)), None)
        if key is None:
            return
        place.append(key)
        settings, collected = settings.get(key), collected.get(key)
    key, value, before = ".".join(place), json.dumps(settings)[:60], json.dumps(collected)[:60]
    raise ConfigurationError(f"reuse: {key} is {value} here, {before} in {folder}{way_out}", key)
