"""Cost against accuracy: every method beside the solver on its own and other grids, and the speed-up at equal accuracy.

The solver's curve runs through all points at which it was timed and scored: as configured, and in its fastest form on its
own and other grids with the longest time step that each allows. For the error of a method, the curve tells the seconds of a
solver with the same error: between two points in proportion on logarithmic axes, beyond the coarse end at most those of the
coarsest grid, beyond the fine end those of the most accurate. The ratio is the speed-up at equal accuracy, and the seconds
saved pay back data and training, or never do.

A spectrum error inside the floor, the upper end of what runs of the solver of the same size score, is noise. Such errors
all count as equal: a method inside its floor is as good as any grid that is inside its own.
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sns_core.files import FileTree, missing, read_json, whole_file
from sns_core.grids import grid_text, with_longer_side
from sns_core.metrics.bootstrap import distance_interval, interval, pooled
from sns_core.metrics.distances import log_ratio
from sns_core.metrics.floor_table import bands_of, read_floors
from sns_core.metrics.scorecard import forecast_scores, read_scorecard, solver_members

SOLVER = "solver"  # name of the method that is the solver as configured
EVEN = 0.05  # a speed-up this near to 1 is neither a gain nor a loss
COLUMNS = (
    "system", "contender", "kind", "grid", "points", "dt", "members", "seconds", "seconds_low", "seconds_high", "calls", "memory_mb",
    "joules", "score", "lead", "error", "error_low", "error_high", "floor", "members_lost", "solver_seconds", "at_most", "speed_up",
    "beaten_by", "verdict", "speed_up_configured", "preparation", "break_even", "break_even_configured", "time_units", "machine",
)  # fmt: skip


def read_cost(path: Path) -> pd.DataFrame:
    """Return the table of `tabulate_cost`, with empty text where there is none. Raises UserError where it is missing."""
    if not Path(path).exists():
        raise missing(Path(path))
    text = ("contender", "kind", "points", "beaten_by", "verdict", "score", "time_units", "machine")
    table = pd.read_csv(path, dtype=dict.fromkeys(text, str))
    if "points" not in table:  # of an earlier version
        table["points"] = ""
    return table.assign(**{name: table[name].fillna("") for name in text})


def frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (seconds, error) whose error no cheaper point undercuts, the cheapest first."""
    front = []
    for seconds, error in sorted(point for point in points if np.isfinite(point).all()):
        if not front or error < front[-1][1]:
            front.append((seconds, error))
    return front


def seconds_at(error: float, front: list[tuple[float, float]]) -> tuple[float, bool]:
    """Return the seconds of a solver with this `frontier` and such an error, and True where they are an upper bound."""
    if not front or math.isnan(error):
        return math.nan, False
    if error >= front[0][1]:
        return front[0][0], error > front[0][1]
    if error <= front[-1][1]:
        return front[-1][0], False
    after = next(i for i, (_, finer) in enumerate(front) if finer < error)
    (cheap, coarse), (dear, fine) = front[after - 1], front[after]
    share = math.log(coarse / error) / math.log(coarse / fine) if fine > 0 else (coarse - error) / (coarse - fine)
    return cheap * (dear / cheap) ** share, False


def break_even(preparation: float, seconds: float, instead_of: float) -> float:
    """Return the time units after which the savings have paid for the preparation; infinite where nothing is saved."""
    return preparation / (instead_of - seconds) if instead_of > seconds else math.inf


def tabulate_cost(
    *, measured: Path, grids: Path, ensemble: Path, scorecard: Path, reference: Path, floors: Path, data: list[Path],
    notes: FileTree, models: dict, system: str, shells: list, resolution: list, output: Path,
) -> None:  # fmt: skip
    """Write the table of cost and accuracy, one row per contender and score.

    Scores are the CRPS of ensemble forecasts after each lead, and the spectrum error of long runs; both are means over
    layers. Seconds, joules (of all members together) and network calls (of one member) are those of one time unit, and
    break-even is counted in time units.

    `measured`: result of `measure_cost`.
    `grids`: result of `rollout_grids`.
    `ensemble`: the solver's own forecasts, with the truth.
    `scorecard`: the system's scorecard, which holds the errors of methods.
    `reference`: result of `compute_reference`.
    `floors`: result of `draw_floors`.
    `data`: the trajectory files of the training data, whose records say what they cost.
    `notes`: model -> JSON beside the model file, whose record says what the training cost.
    `models`: method -> names of its models; the rows follow the order of its methods.
    `system`: the name of the system.
    `shells`: first and last shell of the spectrum error.
    `resolution`: points (y, x) of the solver's own grid.
    """
    timed, solver_ensemble = read_json(measured), xr.open_dataset(reference).load()
    step, card = timed["step"], read_scorecard(scorecard)
    errors = {name: _of_method(card, name) for name in models}
    with xr.open_dataset(grids) as opened, xr.open_dataset(ensemble) as solver:
        errors |= _of_grids(opened.load(), solver["truth"].load(), solver_ensemble, tuple(shells))
        solver_grid, grid_run = int(opened.attrs["own"]), opened.attrs
    costs = [_cost(name, "method", timed["methods"][name], step) for name in models]
    costs += [_cost(name, "grid", spec, step) for name, spec in timed["grids"].items()]
    generation = sum(json.loads(_attributes(path)["provenance"])["wall_seconds"] for path in data)
    training = {model: read_json(path)["provenance"]["wall_seconds"] for model, path in notes.items()}
    for cost in costs:
        needed = models[cost["contender"]] if cost["kind"] == "method" else []
        cost["preparation"] = generation + sum(training[model] for model in needed) if needed else 0.0
    table = pd.DataFrame([{**cost, **error} for cost in costs for error in errors[cost["contender"]]])
    table = table.assign(system=system, members=timed["members"], time_units=timed["time_units"])
    table["machine"] = _in_words(timed["machine"])
    of_grids = bands_of(read_floors(floors), int(grid_run["rolled"]), int(grid_run["counted_steps"]))
    ends = {name: _floor(card[card["method"] == name]) for name in models}
    ends |= dict.fromkeys(timed["grids"], _floor(of_grids))
    table["floor"] = table["contender"].map(ends).where(table["score"] == "spectrum_error", 0.0)
    solvers = (table["kind"] == "grid") | (table["contender"] == SOLVER)
    table.loc[table["contender"] == SOLVER, "grid"] = solver_grid
    table["points"] = [_points_in_words(resolution, side) for side in table["grid"]]
    _compare(table, solvers)
    with whole_file(output) as temporary:
        table.reindex(columns=list(COLUMNS)).to_csv(temporary, index=False)


def _points_in_words(resolution: list, side: float) -> str:
    """Return the points of a grid of the shape of `resolution` whose longer side has `side` points; empty without a side."""
    if math.isnan(side):
        return ""
    grid = with_longer_side(resolution, int(side))
    return f"{grid}²" if isinstance(grid, int) else grid_text(grid)


def _attributes(path: Path) -> dict:
    with xr.open_dataset(path) as dataset:
        return dict(dataset.attrs)


def _floor(table: pd.DataFrame) -> float:
    """Return the upper end of the floor of the spectrum error in a table with bands, mean over layers; 0 without a band."""
    return float(np.nan_to_num(table.loc[table["score"] == "spectrum_error", "floor_high"].mean()))


def _in_words(machine: dict) -> str:
    """Return machine and precisions in words, without the machine's name, which says nothing to a reader."""
    threads = f"{machine['threads']} thread" + "s" * (machine["threads"] > 1)
    precision = f"networks in {machine['precision']}, solver in float32" if "precision" in machine else ""
    return ", ".join(filter(None, (machine["gpu"], machine["processor"], threads, precision)))


def _cost(name: str, kind: str, spec: dict, step: float) -> dict:
    """Return a result of `measure_cost` per time unit instead of per step."""
    seconds = {"seconds": spec["seconds"], "seconds_low": spec["low"], "seconds_high": spec["high"]}
    per_unit = {key: value / step for key, value in {**seconds, "calls": spec["calls"]}.items()}
    joules = None if spec["joules"] is None else spec["joules"] / step
    grid = {"grid": int(name), "dt": spec["dt"]} if kind == "grid" else {}
    memory = spec.get("gpu_memory_mb", spec["memory_mb"])
    return {"contender": name, "kind": kind, **per_unit, **grid, "joules": joules, "memory_mb": memory}


def _of_method(scorecard: pd.DataFrame, name: str) -> list[dict]:
    """Return the scores of a method from the scorecard, means over layers."""
    rows = scorecard[(scorecard["method"] == name) & scorecard["score"].isin(("crps", "spectrum_error"))]
    means = rows.groupby(["score", "lead"], sort=True, dropna=False)[["value", "low", "high", "members_lost"]]
    return [
        {"score": score, "lead": lead, "error": row["value"], "error_low": row["low"], "error_high": row["high"],
         "members_lost": int(row["members_lost"]) if score == "spectrum_error" else 0}
        for (score, lead), row in means.mean(numeric_only=True).iterrows()
    ]  # fmt: skip


def _of_grids(
    grids: xr.Dataset, truth: xr.DataArray, solver_ensemble: xr.Dataset, shells: tuple[int, int]
) -> dict[str, list[dict]]:
    """Return the same scores of the solver on other grids: contender -> scores."""
    solver, by_grid = pooled(solver_members(solver_ensemble), seed=1), {}
    for points in grids["grid"].values:
        mine, rows = grids.sel(grid=points), []
        scores = forecast_scores(mine, truth)["crps"].mean("layer") if "forecast" in mine else None
        for lead in truth["lead"].values:
            ends = None if scores is None else interval(scores.sel(lead=lead).values, "positive")
            rows.append({"score": "crps", "lead": lead, **_triple(ends)})
        ends = None
        if "energy_spectrum" in mine and np.isfinite(mine["energy_spectrum"]).all():
            means = pooled(mine[["energy_spectrum"]].assign(size=("unit", np.ones(mine.sizes["unit"]))))
            curves = [
                source["energy_spectrum"].transpose("resample", "layer", "wavenumber").values
                for source in (means, solver)
            ]
            ends = distance_interval(log_ratio(*curves, shells).reshape(len(curves[0]), -1))  # the mean over layers
        rows.append({"score": "spectrum_error", "lead": math.nan, **_triple(ends)})
        by_grid[str(points)] = [{**row, "members_lost": 0} for row in rows]
    return by_grid


def _triple(ends: tuple | None) -> dict:
    """Return error and interval by the names of their columns; NaN without a score."""
    values = [math.nan] * 3 if ends is None else [float(end) for end in ends]
    return dict(zip(("error", "error_low", "error_high"), values, strict=True))


def _compare(table: pd.DataFrame, solvers: pd.Series) -> None:
    """Fill in, in place, how each method's cost and error compare with those of the solver."""
    configured = table.loc[table["contender"] == SOLVER, "seconds"].iloc[0]
    table["speed_up_configured"] = configured / table["seconds"]
    for column, value in {"solver_seconds": math.nan, "at_most": False, "speed_up": math.nan, "beaten_by": "", "verdict": "",
                          "break_even": math.nan, "break_even_configured": math.nan}.items():  # fmt: skip
        table[column] = value
    for index, row in table[~solvers].iterrows():
        alike = (table["lead"] == row["lead"]) | (table["lead"].isna() & math.isnan(row["lead"]))
        rivals = table[solvers & alike & (table["score"] == row["score"])]
        # A method that loses members has no spectrum in the long run, so every solver that stays is better.
        error = math.inf if row["members_lost"] else max(row["error"], row["floor"])
        # A grid whose error is inside its own floor is exact, as far as a run of its length can tell: it is as good as any
        # method, also as one whose run is too long for a floor.
        exact = rivals["error"] <= rivals["floor"]
        equal = rivals["error"].clip(upper=row["floor"] or row["error"])
        errors = rivals["error"].mask(exact, equal).clip(lower=row["floor"])
        seconds, at_most = seconds_at(error, frontier(list(zip(rivals["seconds"], errors, strict=True))))
        better = rivals[(rivals["seconds"] <= row["seconds"]) & (errors <= error)].sort_values("seconds")
        speed_up = seconds / row["seconds"]
        table.loc[index, ["solver_seconds", "at_most", "speed_up", "beaten_by", "verdict"]] = (
            seconds, at_most, speed_up, better["contender"].iloc[0] if len(better) else "", _verdict(speed_up, row["members_lost"]),
        )  # fmt: skip
        table.loc[index, "break_even"] = break_even(row["preparation"], row["seconds"], seconds)
        table.loc[index, "break_even_configured"] = break_even(row["preparation"], row["seconds"], configured)


def _verdict(speed_up: float, members_lost: float) -> str:
    """Return the outcome of a method beside the solver by one score: lost, gains, even, loses, or "" without a speed-up."""
    if members_lost:
        return "lost"
    if math.isnan(speed_up):
        return ""
    if abs(speed_up - 1) <= EVEN:
        return "even"
    return "gains" if speed_up > 1 else "loses"
