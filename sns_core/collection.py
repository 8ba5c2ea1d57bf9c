"""Keep a finished run with the code in a small folder, from which other runs can take its results (`sns_core.gallery`).

A gallery folder holds the tables and figures of a run, its configuration as an overlay, and the results that take long
to make, under their paths in the run's folder: models, statistics and initial states of the data, the reference
ensemble, scores and rollout of the solver, the diagnosis of denoisers. `given.json` has the checksum of each file, and the
configuration and provenance of the run that made them.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sns_core.data.frames import field_of, open_frames
from sns_core.errors import UserError
from sns_core.files import hold, read_json, record_path, sha256, whole_file, write_json
from sns_core.gallery import check_model, copy_whole
from sns_core.grids import grid_text
from sns_core.metrics.scorecard import SCORES
from sns_core.record import GALLERY, RUN, RUN_FORMAT, check_current, records_below
from sns_core.wording import count_of, digits, interval

FORMAT = "sns-given-1"
TIME_UNITS = {"1": "time units", "d": "days"}  # units -> words
DAY = 86400.0  # seconds
TABLES = ("metrics.csv", "windows.csv", "scorecard.csv", "cost.csv")
# Results of each system that the folder keeps, by kind. The rollout of the solver is the largest: it is left out first.
KINDS = {
    "data": (
        "shards/manifest.json",
        "data/*.nc",
        "data/stationarity.csv",
        "metrics/reference.nc",
        "reference/*/segment_*.nc",
    ),
    "models": ("models/*.safetensors", "models/*.json", "models/*.csv"),
    "calibrations": ("calibrations/*.json",),
    "diagnostics": ("diagnostics/*.nc",),
    "solver": ("rollouts/solver/*/segment_*.nc", "ensembles/solver.nc"),
}
# Results that a run may lack.
OPTIONAL = ("data/stationarity.csv", "reference/*/segment_*.nc", "calibrations/*.json", "diagnostics/*.nc")


def _results(run: Path, system: str, models: dict) -> dict[str, str]:
    """Return name below the run's folder -> kind, of all files of a system that the folder keeps."""
    kinds = {}
    for kind, patterns in KINDS.items():
        for pattern in patterns:
            paths = sorted((run / system).glob(pattern))
            if not paths and pattern not in OPTIONAL:
                raise UserError(f"{run / system}: holds no {pattern}; run `snakemake` to its end, then collect the run")
            kinds |= {str(path.relative_to(run)): kind for path in paths if kind != "models" or path.stem in models}
    return kinds


def _without_frames(source: Path, target: Path, states: bool) -> None:
    """Copy a trajectory file without its frames: energies, attributes and, with `states`, the solver's final states."""
    with open_frames(source) as dataset:
        content = dataset.drop_vars([field_of(dataset), *([] if states else ["final_state"])]).load()
    packed = {name: {"zlib": True, "complevel": 4, "shuffle": True} for name in content.data_vars}
    with whole_file(target) as temporary:
        content.to_netcdf(temporary, engine="netcdf4", encoding={**packed, "layer": {"dtype": "S1"}})


def collect_run(*, run: Path, output: Path, megabytes: float = 20.0) -> None:
    """Collect a finished run into a folder from which other runs can take its results.

    If the solver's rollout does not fit into `megabytes`, it is left out, and a run that uses the folder makes it anew.
    Raises UserError for a listing of another name, for a folder that holds results of a run, for a run that is not
    finished or was made again in part, that itself used such a folder, whose models do not fit its data, or whose results
    pass the limit without the solver's rollout, and DamagedFile for a file that is not what its record says.

    `run`: the folder of the run.
    `output`: the listing `given.json` in the new folder.
    `megabytes`: limit of the results for further use.
    """
    run, folder = Path(run), Path(output).parent
    if Path(output).name != GALLERY:
        raise UserError(f"{output}: the listing of a folder is called {GALLERY}; give {folder / GALLERY}")
    record = _record_of(run)
    configuration = record.pop("configuration")
    kinds = {}
    for system, described in record["systems"].items():
        hold([run / system / "shards/manifest.json"])
        manifest = read_json(run / system / "shards/manifest.json")
        for model in described["models"]:
            check_model(run / system / "models" / f"{model}.safetensors", manifest)
        kinds |= _results(run, system, described["models"])
    hold(run / name for name in kinds)
    shown = {
        system: [
            *(run / system / name for name in TABLES if (run / system / name).exists()),
            *sorted((run / system / "figures").glob("*.png")),
        ]
        for system in record["systems"]
    }
    hold(path for paths in shown.values() for path in paths)
    of_pages = [str(path.relative_to(run)) for paths in shown.values() for path in paths]
    check_current(run, configuration, records_below(run), [RUN, *kinds, *of_pages])
    for name in kinds:
        if record_path(folder / name).exists():
            raise UserError(f"{folder / name}: is a result of a run, which would be replaced; name a folder of its own")
    folder.mkdir(parents=True, exist_ok=True)
    # A call that is refused leaves a run that was collected here before as it is.
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
        for name in kinds:
            if "/data/" in name and name.endswith(".nc"):
                _without_frames(run / name, Path(part, name), states=Path(name).stem.startswith("test"))
            else:
                copy_whole(run / name, Path(part, name))
        sizes = _fit(Path(part), folder, kinds, 1e6 * megabytes)
        _remove_collected(folder)
        for name in sizes:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Path(part, name).replace(folder / name)
    files = {
        name: {"kind": kinds[name], "bytes": size, "sha256": sha256(folder / name)} for name, size in sizes.items()
    }
    for paths in shown.values():
        for path in paths:
            copy_whole(path, folder / path.relative_to(run))
    reuse = {"folder": str(folder), "solver": any(kinds[name] == "solver" for name in files)}
    overlay = {**configuration, "run": f"gallery-{configuration['run']}", "reuse": reuse}
    write_json(folder / "config.json", overlay)
    with whole_file(folder / "README.md") as temporary:
        temporary.write_text(_page(configuration, record, folder))
    write_json(output, {"format": FORMAT, "configuration": configuration, "files": files, "provenance": record})


def _record_of(run: Path) -> dict:
    """Return the record of a finished run that trained its own models. Raise UserError for any other."""
    path = run / "provenance.json"
    hold([path])
    record = read_json(path)
    if record.get("format") != RUN_FORMAT:
        raise UserError(
            f"{path}: no record of a run (its format is not {RUN_FORMAT!r}); give the folder of a finished run"
        )
    if reuse := record["configuration"].get("reuse"):
        raise UserError(f"{run}: took its models from {reuse['folder']}; collect the run that made them")
    return record


def _remove_collected(folder: Path) -> None:
    """Remove what a former call collected into a folder: results, tables and pictures, which the new run may lack."""
    listing = folder / GALLERY
    if listing.exists():
        former = read_json(listing)
        for name in former["files"]:
            (folder / name).unlink(missing_ok=True)
        for system in former["provenance"]["systems"]:
            for path in [*(folder / system / name for name in TABLES), *(folder / system / "figures").glob("*.png")]:
                path.unlink(missing_ok=True)
        listing.unlink()


def _fit(part: Path, folder: Path, kinds: dict[str, str], limit: float) -> dict[str, int]:
    """Delete the solver's rollout from `part` where it exceeds `limit` bytes, and return name -> bytes of what stays.

    `part`: a folder with the results; `folder`: where they will lie, for the message; `kinds`: name -> kind of each
    result. Raises UserError where the rest exceeds the limit, too.
    """
    sizes = {name: (part / name).stat().st_size for name in kinds}
    if sum(sizes.values()) <= limit:
        return sizes
    for name in [name for name in sizes if kinds[name] == "solver"]:
        (part / name).unlink()
        del sizes[name]
    if sum(sizes.values()) > limit:
        raise UserError(
            f"{folder}: {sum(sizes.values()) / 1e6:.1f} MB without the solver's rollout, of {limit / 1e6:g} allowed; "
            "raise --megabytes"
        )
    return sizes


def _page(configuration: dict, record: dict, folder: Path) -> str:
    """Return README.md of a gallery folder: the scale of the run, its scores, its figures."""
    commits = ", ".join(
        dict.fromkeys(
            code["commit"][:12] + " (with uncommitted changes)" * code["dirty"] for code in record["code_of_results"]
        )
    )
    lines = [
        f"# The run `{configuration['run']}`",
        "",
        f"Made on {record['device']} of {record['host']['machine']} with {record['host']['cores']} cores, "
        f"code of commit {commits}, seed {record['seed']}. `given.json` holds the configuration, the checksums and the "
        "provenance; each model has a note of its own. This call makes the figures again from these models, without training:",
        "",
        "```",
        f"snakemake --cores all --configfile {folder / 'config.json'}",
        "```",
        "",
    ]
    for system, described in record["systems"].items():
        manifest = read_json(folder / system / "shards/manifest.json")
        lines += [
            f"## {system}",
            "",
            _origin(configuration["systems"][system], manifest, _time_units(folder / system)),
            "",
        ]
        hours = pd.DataFrame(described["wall_seconds"])
        lines += ["| stage | of | hours |", "|---|---|---|"]
        lines += [f"| {row.stage} | {row.item} | {row.seconds / 3600:.2f} |" for row in hours.itertuples()]
        lines += ["", *_scores(folder / system / "scorecard.csv"), ""]
        lines += [
            f"![{path.stem}]({system}/figures/{path.name})"
            for path in sorted((folder / system / "figures").glob("*.png"))
        ]
    return "\n".join(lines) + "\n"


def _time_units(folder: Path) -> str:
    """Return the units of time of a system's results."""
    with xr.open_dataset(folder / "metrics/reference.nc") as reference:
        return reference["lag"].attrs.get("units", "1")


def _time_in_words(time: float, units: str) -> str:
    """Return a time with its units; one of more than some hours in days."""
    if units == "s" and time >= 0.1 * DAY:
        return count_of(time / DAY, "day")
    return f"{time:g} {TIME_UNITS.get(units, units)}"


def _origin(settings: dict, manifest: dict, units: str) -> str:
    """Return one line about the data of a system: its solver or its files, and its frames.

    `settings`: of the system in the configuration, where a system whose data come from files has no solver. `units`: of
    time.
    """
    emulator = manifest["emulator"]
    frames = f"frames of {grid_text(emulator['resolution'])} every {_time_in_words(emulator['step'], units)}."
    if "solver" not in settings:
        return f"Data from files, with {frames}"
    solver, data = settings["solver"], settings["data"]
    parameters = ", ".join(f"{name} {value}" for name, value in solver.items() if name not in ("class", "resolution"))
    splits = ", ".join(f"{name} {s['members']} x {s['frames']}" for name, s in data["splits"].items())
    return (
        f"{solver['class']} on {grid_text(solver['resolution'])} ({parameters}), with {frames} "
        f"Members x frames: {splits}, after a spin-up of {_time_in_words(data['spin_up'], units)}."
    )


def _scores(path: Path) -> list[str]:
    """Return the scorecard as lines of a table, one row per score and one column per method."""
    table = pd.read_csv(path)
    methods = list(dict.fromkeys(table["method"]))
    lines = [f"| score | {' | '.join(methods)} | floor of the solver's rollout |", "|---" * (len(methods) + 2) + "|"]
    for place, rows in table.groupby(["score", "layer", "lead"], dropna=False, sort=False):
        by_method = rows.set_index("method")
        score, layer, lead = place
        title = SCORES[score][0] + (f", {layer}" if layer == layer and layer != "flow" else "")
        title += f", lead {lead:g}" if lead == lead else ""

        def cell(method, by_method=by_method):
            if method not in by_method.index or pd.isna(by_method.loc[method, "value"]):
                return "–"
            value, low, high = (by_method.loc[method, end] for end in ("value", "low", "high"))
            return f"{digits(value)} {interval(low, high, value)}".strip()

        ends = rows[rows["method"] == "solver"][["floor_low", "floor_high"]].iloc[:1].to_numpy(dtype=float).ravel()
        floor = " to ".join(map(digits, ends)) if np.isfinite(ends).any() else "–"
        lines.append(f"| {title} | {' | '.join(map(cell, methods))} | {floor} |")
    return lines
