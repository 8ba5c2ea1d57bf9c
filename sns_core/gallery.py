"""A finished run made small enough to be kept with the code, and taken up again: `collect_run` and `take_result`.

A gallery folder holds the tables and figures of a run to look at, its configuration as an overlay, and, under the paths that
they have in a run's folder, the results which are dear to make: models, the statistics and initial states of the data,
the solver's scores and rollout, the diagnosis of denoisers. A run whose configuration names the folder (`reuse`) copies them
instead of making them, and makes the rest: every rollout of a model, its scores, the figures. `given.json` vouches for each
file and keeps the configuration and the provenance of the run that they are from.
"""

import json
import shutil
from pathlib import Path

import pandas as pd

from sns_core.data.frames import open_frames
from sns_core.errors import UserError
from sns_core.files import missing, read_json, read_tensors, sha256, whole_file, write_json
from sns_core.metrics.scorecard import SCORES
from sns_core.record import RUN_FORMAT

FORMAT = "sns-given-1"
TABLES = ("metrics.csv", "windows.csv", "scorecard.csv", "cost.csv")
# What is kept of each system, by kind; the rollout of the solver is the largest and the first to be left out.
KINDS = {
    "data": ("shards/manifest.json", "data/*.nc", "metrics/reference.nc"),
    "models": ("models/*.safetensors", "models/*.json", "models/*.csv"),
    "diagnostics": ("diagnostics/*.nc",),
    "solver": ("rollouts/solver/*/segment_*.nc", "ensembles/solver.nc"),
}


def check_model(path: Path, manifest: dict) -> None:
    """UserError naming the first thing in which a model file does not fit the data that a manifest tells of."""
    _, note = read_tensors(path)
    wanted = {
        "resolution": manifest["emulator"]["resolution"], "step": manifest["emulator"]["step"],
        "statistics": manifest["statistics"], "data": manifest["identity"],
    }  # fmt: skip
    for name, value in wanted.items():
        if note.get(name) != value:
            told = (f"{json.dumps(each)[:60]}" for each in (note.get(name), value))
            raise UserError(f"{path}: does not fit the data; its {name} is {' where theirs is '.join(told)}")


def _kept(run: Path, system: str, made: dict) -> dict[str, str]:
    """Name below the run's folder -> kind, of all files of a system that are worth keeping."""
    found = {}
    for kind, patterns in KINDS.items():
        for pattern in patterns:
            paths = sorted((run / system).glob(pattern))
            if not paths and kind != "diagnostics":
                raise missing(run / system / pattern)
            found |= {str(path.relative_to(run)): kind for path in paths if kind != "models" or path.stem in made}
    return found


def _without_frames(source: Path, target: Path, states: bool) -> None:
    """A trajectory file without its frames: energies, attributes and, with `states`, the solver's final states."""
    with open_frames(source) as dataset:
        frames = [name for name, field in dataset.data_vars.items() if {"time", "y", "x"} <= set(field.dims)]
        kept = dataset.drop_vars([*frames, *([] if states else ["final_state"])]).load()
    packed = {name: {"zlib": True, "complevel": 4, "shuffle": True} for name in kept.data_vars}
    with whole_file(target) as temporary:
        kept.to_netcdf(temporary, engine="netcdf4", encoding={**packed, "layer": {"dtype": "S1"}})


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)


def collect_run(*, run: Path, output: Path, megabytes: float = 20.0) -> None:
    """Collect the finished run in the folder `run` into that of `output`, its `given.json`.

    At most `megabytes` of results to be taken up; where the solver's rollout makes them more, it is left out, and whoever takes
    up the rest makes it. Raises UserError for a run that is not finished, that was itself given, whose models do not fit
    its data, or whose results are more than that without the solver's rollout.
    """
    run, folder = Path(run), Path(output).parent
    record = read_json(run / "provenance.json")
    if record.get("format") != RUN_FORMAT:
        raise UserError(f"{run / 'provenance.json'}: no record of a run (its format is not {RUN_FORMAT!r})")
    configuration = record.pop("configuration")
    if configuration.get("reuse"):
        raise UserError(
            f"{run}: took its models from {configuration['reuse']['folder']}; collect the run that made them"
        )
    kinds = {}
    for system, described in record["systems"].items():
        manifest = read_json(run / system / "shards/manifest.json")
        for model in described["models"]:
            check_model(run / system / "models" / f"{model}.safetensors", manifest)
        kinds |= _kept(run, system, described["models"])
    if output.exists():
        for name in read_json(output)["files"]:
            (folder / name).unlink(missing_ok=True)
    for name in kinds:
        if "/data/" in name:
            _without_frames(run / name, folder / name, states=Path(name).stem.startswith("test"))
        else:
            _copy(run / name, folder / name)
    sizes = {name: (folder / name).stat().st_size for name in kinds}
    for kind in ("solver", None):
        if sum(sizes.values()) <= 1e6 * megabytes:
            break
        if kind is None:
            raise UserError(
                f"{folder}: {sum(sizes.values()) / 1e6:.1f} MB without the solver's rollout, of {megabytes:g} allowed"
            )
        for name in [name for name in sizes if kinds[name] == kind]:
            (folder / name).unlink()
            del sizes[name]
    files = {
        name: {"kind": kinds[name], "bytes": size, "sha256": sha256(folder / name)} for name, size in sizes.items()
    }
    for system in record["systems"]:
        tables = [run / system / name for name in TABLES if (run / system / name).exists()]
        for path in [*tables, *sorted((run / system / "figures").glob("*.png"))]:
            _copy(path, folder / path.relative_to(run))
    reuse = {"folder": str(folder), "solver": any(kind == "solver" for kind in map(kinds.get, files))}
    overlay = {**configuration, "run": f"gallery-{configuration['run']}", "reuse": reuse}
    write_json(folder / "config.json", overlay)
    with whole_file(folder / "README.md") as temporary:
        temporary.write_text(_page(configuration, record, folder))
    write_json(output, {"format": FORMAT, "configuration": configuration, "files": files, "provenance": record})


def take_result(*, listing: Path, name: str, output: Path) -> None:
    """Copy the file `name` that the `given.json` at `listing` vouches for.

    Raises UserError where it is not listed, missing, not what was listed, or a model that does not fit the data given with it.
    """
    folder, files = Path(listing).parent, read_json(listing)["files"]
    if name not in files:
        raise UserError(f"{listing}: lists no {name}")
    source = folder / name
    if not source.exists():
        raise UserError(f"{source}: missing, though {listing} lists it; check it out again")
    if sha256(source) != files[name]["sha256"]:
        raise UserError(f"{source}: not the file that {listing} lists (its checksum differs); check it out again")
    if source.suffix == ".safetensors":
        check_model(source, read_json(folder / Path(name).parts[0] / "shards/manifest.json"))
    _copy(source, output)


def _page(configuration: dict, record: dict, folder: Path) -> str:
    """README.md of a gallery folder: what scale it is, the scores, the figures."""
    commits = ", ".join(
        dict.fromkeys(
            code["commit"][:12] + " (with uncommitted changes)" * code["dirty"] for code in record["code_of_results"]
        )
    )
    lines = [
        f"# The run `{configuration['run']}`", "",
        f"Made on {record['device']} of {record['host']['machine']} with {record['host']['cores']} cores, code of commit "
        f"{commits}, seed {record['seed']}. `given.json` holds the configuration, the checksums and what made them, and each "
        "model has its own note. The figures again, from these models and without training:", "",
        "```", f"snakemake --cores all --configfile {folder / 'config.json'}", "```", "",
    ]  # fmt: skip
    for system, described in record["systems"].items():
        settings = configuration["systems"][system]
        solver, emulator, data = settings["solver"], settings["emulator"], settings["data"]
        parameters = ", ".join(
            f"{name} {value}" for name, value in solver.items() if name not in ("class", "resolution")
        )
        splits = ", ".join(f"{name} {s['members']} x {s['frames']}" for name, s in data["splits"].items())
        lines += [
            f"## {system}", "",
            f"{solver['class']} on {solver['resolution']} x {solver['resolution']} ({parameters}), seen on "
            f"{emulator['resolution']} x {emulator['resolution']} every {emulator['step']:g} time units. "
            f"Members x frames: {splits}, after a spin-up of {data['spin_up']:g}.", "",
        ]  # fmt: skip
        hours = pd.DataFrame(described["wall_seconds"])
        lines += ["| stage | of | hours |", "|---|---|---|"]
        lines += [f"| {row.stage} | {row.item} | {row.seconds / 3600:.2f} |" for row in hours.itertuples()]
        lines += ["", *_scores(folder / system / "scorecard.csv"), ""]
        lines += [
            f"![{path.stem}]({system}/figures/{path.name})"
            for path in sorted((folder / system / "figures").glob("*.png"))
        ]
    return "\n".join(lines) + "\n"


def _scores(path: Path) -> list[str]:
    """The scorecard as a table, a row a score, a column a method."""
    table = pd.read_csv(path)
    methods = list(dict.fromkeys(table["method"]))
    lines = [f"| score | {' | '.join(methods)} | solver against itself |", "|---" * (len(methods) + 2) + "|"]
    for place, rows in table.groupby(["score", "layer", "lead"], dropna=False, sort=False):
        named = rows.set_index("method")
        score, layer, lead = place
        title = SCORES[score][0] + (f", {layer}" if layer == layer and layer != "flow" else "")
        title += f", lead {lead:g}" if lead == lead else ""

        def cell(method, named=named):
            if method not in named.index or pd.isna(named.loc[method, "value"]):
                return "–"
            value, low, high = (_number(named.loc[method, end]) for end in ("value", "low", "high"))
            return f"{value} [{low}, {high}]"

        floor = rows["floor"].iloc[0]
        lines.append(f"| {title} | {' | '.join(map(cell, methods))} | {'–' if pd.isna(floor) else _number(floor)} |")
    return lines


def _number(value: float) -> str:
    """Three digits, and whole numbers in full."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
