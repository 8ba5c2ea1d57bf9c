"""One table for all methods: a row a method and member, and one of windows, for reading and for figures."""

from pathlib import Path

import pandas as pd
import xarray as xr

from sns_core.files import whole_file
from sns_core.metrics.summaries import decorrelation_time, spectrum_error, told


def _member_rows(path: Path, known: xr.Dataset, system: str, shells: tuple[int, int], extra: list[str]) -> list[dict]:
    result = xr.open_dataset(path)
    rows, half = [], result.sizes["block"] // 2
    reference = known["energy_spectrum"].mean("member").values
    for member in result["member"].values:
        one = result.sel(member=member)
        levels = told(one["levels"])
        row = {
            "system": system, "method": result.attrs["method"], "member": int(member), "steps": result.sizes["step"],
            "lost_step": int(one["lost_step"]),
            "calls_per_step": float(one["calls"].mean()), "seconds_per_step": result.attrs["seconds_per_step"],
            "decorrelation_time": decorrelation_time(one["lag"].values, one["correlation"].mean("block").values),
            "decorrelation_time_late": decorrelation_time(
                one["lag"].values, one["correlation"].isel(block=slice(half, None)).mean("block").values
            ),
            "rate_of_change": float(one["rate_of_change"].mean()),
            "relative_change": float(one["relative_change"].mean()),
            "level_prev": float(levels.isel(frame=0).mean()), "level_next": float(levels.isel(frame=1).mean()),
        }  # fmt: skip
        for layer, label in enumerate(known["layer"].values):
            suffix = "" if known.sizes["layer"] == 1 else f"_{label}"
            spectrum = one["energy_spectrum"].isel(layer=layer)
            for name, part in (("spectrum_error", slice(None)), ("spectrum_error_late", slice(half, None))):
                mean = spectrum.isel(block=part).mean("block").values
                row[name + suffix] = float(spectrum_error(mean, reference[layer], shells))
            for name in ("kinetic_energy", "enstrophy", *(name.rpartition(".")[2] for name in extra)):
                row[name + suffix] = float(one[name].isel(layer=layer).mean())
                row[f"{name}_solver{suffix}"] = float(known[name].isel(layer=layer).mean())
        rows.append(row)
    return rows


def aggregate_metrics(
    *,
    metrics: list[Path],
    windows: list[Path],
    reference: Path,
    system: str,
    shells: list,
    output: Path,
    output_windows: Path,
    extra: list[str],
) -> None:
    """Join the methods' results into `output` (a row a method and member) and `output_windows` (a row a window).

    A member's row is over all of its steps until it holds NaN; levels are means over the steps that looked at the pair.

    `extra`: measures of the user's own.
    """
    known = xr.open_dataset(reference).load()
    rows = [row for path in metrics for row in _member_rows(path, known, system, tuple(shells), extra)]
    with whole_file(output) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    joined = pd.concat([pd.read_csv(path) for path in windows], ignore_index=True)
    columns = ["method", *[c for c in joined.columns if c != "method"]]
    with whole_file(output_windows) as temporary:
        joined[columns].to_csv(temporary, index=False)
