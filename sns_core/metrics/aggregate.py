"""Tables of all methods for reading and for figures: one of members, one of windows."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sns_core.files import whole_file
from sns_core.metrics.distances import (
    correlation_pairs,
    decorrelation_time,
    estimated_levels,
    spectrum_error,
    weighted_correlation,
)
from sns_core.metrics.floor_table import bands_of, inside, read_floors
from sns_core.metrics.lost import NOT_LOST, is_out_of_range
from sns_core.plugins import short_name


def _member_rows(
    path: Path, ensemble: xr.Dataset, system: str, shells: tuple[int, int], user_metrics: list[str]
) -> list[dict]:
    result = xr.open_dataset(path)
    rows, half = [], result.sizes["block"] // 2
    truth = ensemble["energy_spectrum"].mean("member").values
    outside = is_out_of_range(result, ensemble)
    for number in result["member"].values:
        member = result.sel(member=number)
        levels = estimated_levels(member["levels"])
        shared = {
            "steps": result.sizes["step"], "lost_step": int(member["lost_step"]), **_range(outside, number),
            "calls_per_step": float(member["calls"].mean()), "seconds_per_step": result.attrs["seconds_per_step"],
            "decorrelation_time": _decorrelation_time(member, slice(None)),
            "decorrelation_time_late": _decorrelation_time(member, slice(half, None)),
            "rate_of_change": float(member["rate_of_change"].mean()),
            "relative_change": float(member["relative_change"].mean()),
            "level_prev": float(levels.isel(frame=0).mean()), "level_next": float(levels.isel(frame=1).mean()),
        }  # fmt: skip
        for layer, label in enumerate(ensemble["layer"].values):
            row = {"system": system, "method": result.attrs["method"], "member": int(number), "layer": label, **shared}
            spectrum = member["energy_spectrum"].isel(layer=layer).astype(float)  # for a sum over many blocks
            for name, part in (
                ("member_spectrum_error", slice(None)),
                ("member_spectrum_error_late", slice(half, None)),
            ):
                row[name] = float(spectrum_error(spectrum.isel(block=part).mean("block").values, truth[layer], shells))
            for name in ("kinetic_energy", "enstrophy", *map(short_name, user_metrics)):
                row[name] = float(member[name].isel(layer=layer).mean())
                row[f"{name}_solver"] = float(ensemble[name].isel(layer=layer).mean())
            rows.append(row)
    return rows


def _decorrelation_time(member: xr.Dataset, part: slice) -> float:
    """Return the time at which C(tau) of a member falls to one half, over the blocks `part`, weighted by pairs of frames."""
    pairs = correlation_pairs(member["block"].values, member["lag"].values)
    correlation = weighted_correlation(member["correlation"].transpose("block", "lag").values[part], pairs[part])
    return decorrelation_time(member["lag"].values, correlation)


def _range(outside: xr.DataArray | None, number: int) -> dict:
    """Return the first step at which a member is out of the solver's range, -1 for none, and the share of such steps."""
    if outside is None:
        return {}
    steps = outside["step"].values[outside.sel(member=number).values]
    first = int(steps[0]) if len(steps) else NOT_LOST
    return {"out_of_range_step": first, "out_of_range_share": len(steps) / outside.sizes["step"]}


def _with_floor(table: pd.DataFrame, column: str, floors: pd.DataFrame, members: int, steps: pd.Series) -> pd.DataFrame:
    """Return a table with the floor of one of its columns, a spectrum error, as three columns after it.

    members, steps: the size of the run that each row (steps: per row) describes.
    """
    bands = {count: bands_of(floors, members, count).set_index(["score", "layer"]) for count in steps.unique()}
    ends = {"floor_low": [], "floor_high": []}
    for layer, count in zip(table["layer"], steps, strict=True):
        for name, values in ends.items():
            values.append(bands[count][name].get(("spectrum_error", str(layer)), np.nan))
    place = max(table.columns.get_loc(name) for name in table.columns if name.startswith(column)) + 1
    table = table.assign(**ends)
    table["inside"] = inside(table, column, True)
    names = [name for name in table.columns if name not in (*ends, "inside")]
    return table[[*names[:place], *ends, "inside", *names[place:]]]


def aggregate_metrics(
    *,
    metrics: list[Path],
    windows: list[Path],
    reference: Path,
    floors: Path,
    system: str,
    shells: list,
    output: Path,
    output_windows: Path,
    user_metrics: list[str],
) -> None:
    """Join the results of all methods into one table of members and one table of windows.

    The row of a member covers all of its steps until it holds NaN. `member_spectrum_error` is the spectrum error of the
    mean spectrum of that one member, and `late` is over the second half of the steps. Columns without a layer
    (decorrelation times, changes, levels, calls, seconds, the solver's range) repeat in the rows of all layers. Levels are means over the
    steps at which the method estimated them. `floor_low`, `floor_high` and `inside` are the floor of `member_spectrum_error`
    and of `window_spectrum_error`: of solver runs of one member, and of one window of all members.

    `metrics`, `windows`: results of `compute_metrics`, one per method.
    `reference`: result of `compute_reference`.
    `floors`: result of `draw_floors`.
    `system`: the name of the system.
    `shells`: first and last shell of the spectrum error.
    `user_metrics`: the user's own metrics, as module.function.
    `output`: the CSV file with one row per method, member and layer.
    `output_windows`: the CSV file with one row per method, window and layer.
    """
    ensemble, floors = xr.open_dataset(reference).load(), read_floors(floors)
    rows = [row for path in metrics for row in _member_rows(path, ensemble, system, tuple(shells), user_metrics)]
    rows = pd.DataFrame(rows)
    rows = _with_floor(rows, "member_spectrum_error", floors, 1, rows["steps"])
    with whole_file(output) as temporary:
        rows.to_csv(temporary, index=False)
    joined = pd.concat([pd.read_csv(path, dtype={"layer": str}) for path in windows], ignore_index=True)
    steps = joined["last_step"] - joined["first_step"] + 1
    joined = _with_floor(joined, "window_spectrum_error", floors, rows["member"].nunique(), steps)
    columns = ["method", *[c for c in joined.columns if c != "method"]]
    with whole_file(output_windows) as temporary:
        joined[columns].to_csv(temporary, index=False)
