"""The last stage: the page that tells what came out of a run.

The page is one file: styles and pictures stand in it, nothing is loaded. Its words follow from the numbers in the
tables by the thresholds below; none of them is fixed.
"""

import base64
import json
import math
import os
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import xarray as xr

from sns_core.figures.inputs import SHOWN_UNITS, read
from sns_core.figures.style import looks, short
from sns_core.files import read_json, whole_file
from sns_core.metrics.cost import read_cost
from sns_core.metrics.lost import is_lost
from sns_core.metrics.scorecard import SCORES, read_scorecard
from sns_core.metrics.stationarity import drift, is_drifting

TEMPLATE = "report.html.j2"
DRIFT = 0.25  # decades: a window whose spectrum error is larger has left the solver's statistics
FLOOR = 2.0  # a method whose worst window is within this many times the solver's own worst cannot be told from it
ENERGY = 1.5  # factor of the solver's kinetic energy, up or down, that is called a change of the mean energy
FEW_CALLS = 0.5  # calls of the denoiser a step: below, most steps are the surrogate's own


# What the tables say


def summarise(metrics: pd.DataFrame, windows: pd.DataFrame, methods: list[dict]) -> list[dict]:
    """A row a method and layer: its scores, and what they amount to in words.

    `metrics`: one row per method, member and layer; `windows`: a row a method, layer and window; `methods`: name, label and
    stepper of each, in order. Means are over the members that were not lost; windows count all members.
    """
    layers = [str(layer) for layer in windows["layer"].unique()]
    scatter = {layer: _errors(windows, "solver", layer).max() for layer in layers}
    return [_row(metrics, windows, method, layer, scatter[layer]) for method in methods for layer in layers]


def _errors(windows: pd.DataFrame, method: str, layer: str) -> np.ndarray:
    """Spectrum errors of a method's windows, in order; NaN becomes infinite."""
    rows = windows[(windows["method"] == method) & (windows["layer"].astype(str) == layer)]
    return rows["window_spectrum_error"].fillna(math.inf).to_numpy(dtype=float)


def _row(metrics, windows, method: dict, layer: str, scatter: float) -> dict:
    name = method["name"]
    mine = metrics[(metrics["method"] == name) & (metrics["layer"].astype(str) == layer)]
    own = windows[(windows["method"] == name) & (windows["layer"].astype(str) == layer)]
    kept, lost = mine[~is_lost(mine["lost_step"])], mine["lost_step"][is_lost(mine["lost_step"])]
    errors = _errors(windows, name, layer)
    energy = (own["kinetic_energy"] / own["kinetic_energy_solver"]).fillna(math.inf).to_numpy(dtype=float)
    change = own["relative_change_solver"].mean()

    def mean(column, by=None):
        values = kept[column] / (kept[by] if by else 1.0)
        return float(values.mean(skipna=False)) if len(values) else math.nan

    row = {
        "name": name, "label": method["label"], "stepper": method["stepper"], "layer": layer,
        "steps": int(mine["steps"].max()), "members": len(mine), "lost": len(lost),
        "first_lost": int(lost.min()) if len(lost) else None,
        "error": mean("member_spectrum_error"), "error_late": mean("member_spectrum_error_late"),
        "error_first": errors[0], "error_last": errors[-1], "error_worst": errors.max(), "windows": len(errors),
        "energy_worst": energy[np.argmax(np.abs(np.log(np.maximum(energy, 1e-30))))],
        "energy": mean("kinetic_energy", "kinetic_energy_solver"),
        "enstrophy": mean("enstrophy", "enstrophy_solver"),
        "change": mean("relative_change") / change,
        "decorrelation": mean("decorrelation_time"), "decorrelation_late": mean("decorrelation_time_late"),
        "calls": float(mine["calls_per_step"].mean()), "milliseconds": 1000 * float(mine["seconds_per_step"].mean()),
        "window_rows": own.to_dict("records"), "scatter": scatter,
    }  # fmt: skip
    return {**row, **dict(zip(("tone", "verdict"), judge(row), strict=True)), "note": _note(row)}


def judge(row: dict) -> tuple[str, str]:
    """(tone, sentence) for a row: tone is "bad", "fair" or "good"."""
    worst, last, first = row["error_worst"], row["error_last"], row["error_first"]
    if row["lost"]:
        count = "every member" if row["lost"] == row["members"] else f"{row['lost']} of {row['members']} members"
        return "bad", f"Loses {count}, the first at step {row['first_lost']}."
    if last > DRIFT >= first:
        return "bad", f"Keeps all members and drifts: its spectrum error grows from {short(first)} to {short(last)}."
    if worst > DRIFT:
        return "bad", f"Keeps all members; its spectrum is off by up to {short(worst)} decades."
    if not 1 / ENERGY <= row["energy_worst"] <= ENERGY:
        return "fair", f"Keeps all members; kinetic energy reaches {short(row['energy_worst'])} times the solver's."
    if worst <= FLOOR * row["scatter"]:
        return "good", f"Keeps all members; its windows lie within {FLOOR:g} times the solver's own scatter."
    return (
        "fair",
        f"Keeps all members; its spectrum is off by up to {short(worst)} decades, more than sampling explains.",
    )


def _note(row: dict) -> str:
    if row["stepper"] == "refinement" and row["calls"] < FEW_CALLS:
        return f"Fewer than {FEW_CALLS:g} denoiser calls a step: most steps are the surrogate's own."
    return ""


# Whether the reference is stationary

DRIFTS = {"kinetic_energy": "kinetic energy", "enstrophy": "enstrophy", "spectrum": "spectrum"}


def drift_notes(reference: xr.Dataset) -> list[dict]:
    """Return {"text", "drifts"} for each quantity and layer: the last third of the reference's frames against the first third.

    `reference`: result of `compute_reference`. Empty for one that an older version measured.
    """
    notes, layers = [], [str(layer) for layer in reference["layer"].values]
    for name, title in DRIFTS.items():
        if f"{name}_drift" not in reference:
            continue
        differences = reference[f"{name}_drift"].transpose("member", "layer").values
        mean, error = drift(differences)
        for layer, label in enumerate(layers):
            whole = 1.0 if name == "spectrum" else float(reference[name].isel(layer=layer).mean()) / 100
            unit = "decades" if name == "spectrum" else "%"
            place = f" ({label})" if len(layers) > 1 else ""
            text = f"{title}{place} {mean[layer] / whole:+.2g} ± {error[layer] / whole:.2g} {unit}"
            notes.append({"text": text, "drifts": bool(is_drifting(differences)[layer])})
    return notes


# The scorecard


def scorecard(table: pd.DataFrame, methods: list[dict]) -> list[dict]:
    """A row a score, layer and lead, of a table of `score_methods`: {"title", "floor", "cells"}, a cell a method in order.

    A cell is {"value", "low", "high", "within", "lost"}, or None where a method has no such score; "within" where its interval
    overlaps the floor's, "lost" where members were.
    """
    rows = []
    for (score, layer, lead), part in table.groupby(["score", "layer", "lead"], sort=False, dropna=False):
        title, layers = SCORES[score][0], table["layer"][table["layer"] != ""].nunique()
        title += f", {layer}" if layer and layers > 1 else ""
        title += f", after {lead:g} steps" if np.isfinite(lead) else ""
        mine = part.set_index("method")
        cells = [_cell(mine.loc[m["name"]]) if m["name"] in mine.index else None for m in methods]
        first = part.iloc[0]
        floor = {"value": first["floor"], "low": first["floor_low"], "high": first["floor_high"]}
        rows.append({"title": title, "rank": list(SCORES).index(score), "lead": lead, "floor": floor, "cells": cells})
    return sorted(rows, key=lambda row: row["rank"])


def _cell(row: pd.Series) -> dict | None:
    if not np.isfinite(row["value"]):
        return None
    within = row["low"] <= row["floor_high"] and row["floor_low"] <= row["high"]
    return {**row[["value", "low", "high"]], "within": bool(within), "lost": bool(row["members_lost"])}


# Cost


def cost(table: pd.DataFrame, methods: list[dict]) -> dict:
    """Of a table of `tabulate_cost`: {"unit", "machine", "members", "columns": titles of the scores, "rows", "verdicts"}.

    A row a contender, the methods in order and then the solver's grids: what it costs in `unit`, and a cell a score with
    "error" and, of a method, "speed_up", "verdict", "beaten_by", "at_most" and "break_even". A verdict is (tone, label,
    sentence), of each method beside the solver.
    """
    units, factor = SHOWN_UNITS.get(table["time_units"].iloc[0], ("time unit", 1.0))
    kinds = list(table[["score", "lead"]].drop_duplicates().itertuples(index=False, name=None))
    kinds.sort(key=lambda kind: (kind[0] != "crps", kind[1]))
    labels = {method["name"]: method["label"] for method in methods}
    order = [name for name in labels if name in set(table["contender"])]
    order += [name for name in table["contender"].unique() if name not in labels]
    rows = []
    for name in order:
        mine = table[table["contender"] == name]
        first = mine.iloc[0]
        cells = {
            (row["score"], row["lead"] if row["score"] == "crps" else None): row for row in mine.to_dict("records")
        }
        label = labels.get(name) or f"Solver, {name} × {name}, step {first['dt'] * factor:.3g}"
        costs = {key: first[key] / factor for key in ("seconds", "seconds_low", "seconds_high", "calls", "joules")}
        costs |= {key: first[key] for key in ("memory_mb", "preparation", "speed_up_configured", "kind")}
        later = first["break_even_configured"] * factor
        rows.append({"name": name, "label": label, **costs, "break_even_configured": later, "cells": [
            cells.get((score, lead if score == "crps" else None)) for score, lead in kinds
        ]})  # fmt: skip
    titles = [SCORES[score][0] + (f", after {lead:g} steps" if score == "crps" else "") for score, lead in kinds]
    return {
        "unit": {"d": "day"}.get(units, units), "machine": table["machine"].iloc[0], "members": int(table["members"].iloc[0]),
        "columns": titles, "rows": rows,
        "verdicts": [(row["name"], *_worth(row, titles)) for row in rows if row["kind"] == "method" and row["name"] != "solver"],
    }  # fmt: skip


def _worth(row: dict, titles: list[str]) -> tuple[str, str, str]:
    """(tone, label, sentence): whether a method is worth its price beside the solver on some grid."""
    known = [(title, cell) for title, cell in zip(titles, row["cells"], strict=True) if cell and cell["verdict"]]
    if not known:
        return "fair", row["label"], "nothing to compare it by."
    gains = [title for title, cell in known if cell["verdict"] == "gains"]
    beaten = [title for title, cell in known if cell["beaten_by"]]
    least, most = (extreme(cell["speed_up"] for _, cell in known) for extreme in (min, max))
    factors = f"at equal accuracy the solver takes {digits(least)} to {digits(most)} times as long"
    if not gains:
        told = f"loses by every score: {factors}"
        tone = "bad"
    else:
        told = f"gains by {len(gains)} of {len(known)} scores: {factors}"
        tone = "good" if len(gains) == len(known) else "fair"
    if beaten:
        told += f"; some grid of the solver is both cheaper and better by {len(beaten)} of {len(known)}"
    if any(cell["members_lost"] for _, cell in known):
        told += "; it loses members, and has no spectrum in the long run"
    return tone, row["label"], told + "."


# The page


def write_report(*, systems: dict, captions: list[Path], provenance: Path, output: Path) -> None:
    """Write the page of a run.

    `systems`: system -> {"figures": {name: PNG}, "metrics", "windows", "scorecard" and "cost": tables, "reference": result
    of `compute_reference`, where there is one, "methods": [{"name", "label",
    "stepper"}], "movie": MP4, "explorer": page}, figures in the order shown, the first one at the top; `captions`: a text
    file a figure, named after it, its first paragraph the title, and one for the movie; `provenance`: file of
    `record_provenance`.
    """
    record = read_json(provenance)
    texts = {Path(path).stem: _caption(path) for path in captions}
    sections = []
    for system, files in systems.items():
        colours = looks({method["name"]: method["label"] for method in files["methods"]})
        rows = summarise(pd.read_csv(files["metrics"]), pd.read_csv(files["windows"]), files["methods"])
        figures = [{"name": name, "image": _inline(path), **texts[name]} for name, path in files["figures"].items()]
        settings = record["configuration"]["systems"].get(system, {})
        sections.append(
            {
                "name": system,
                "rows": [{**row, "colour": colours[row["name"]]["color"]} for row in rows],
                "layers": len({row["layer"] for row in rows}),
                "methods": files["methods"],
                "drift": drift_notes(read(files["reference"])) if "reference" in files else [],
                "scorecard": scorecard(read_scorecard(files["scorecard"]), files["methods"]),
                "cost": cost(read_cost(files["cost"]), files["methods"]),
                "figures": figures,
                "movie": {"name": "movie", "film": _inline(files["movie"], "video/mp4"), **texts["movie"]},
                "explorer": os.path.relpath(files["explorer"], Path(output).parent),
                "members": rows[0]["members"],
                "steps": max(row["steps"] for row in rows),
                "step_size": settings.get("emulator", {}).get("step"),
                "made": record["systems"].get(system, {}),
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "digits": digits,
        "percent": percent,
        "duration": duration,
        "repaid": repaid,
    }
    page = environment.get_template(TEMPLATE).render(
        sections=sections,
        record=record,
        run=record["configuration"].get("run", ""),
        configuration=json.dumps(record["configuration"], indent=2),
        thresholds={"drift": DRIFT, "floor": FLOOR, "energy": ENERGY},
    )
    with whole_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _caption(path) -> dict:
    title, *paragraphs = Path(path).read_text(encoding="utf-8").strip().split("\n\n")
    return {"title": " ".join(title.split()), "paragraphs": [" ".join(p.split()) for p in paragraphs]}


def _inline(path, kind: str = "image/png") -> str:
    return f"data:{kind};base64," + base64.b64encode(Path(path).read_bytes()).decode("ascii")


def number(value, digits: int = 2) -> str:
    """A number for a table cell: a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not math.isfinite(value):
        return "∞"
    return f"{value:.{digits}f}" if abs(value) < 1000 else short(float(value))


def digits(value: float) -> str:
    """A score in about three digits: 0.0142, 1.07, 327; a dash where there is none."""
    if not math.isfinite(value):
        return number(value)
    return f"{value:.3g}" if 1e-4 <= abs(value) < 1e5 or value == 0 else short(value)


def percent(value) -> str:
    return "–" if not math.isfinite(value) else f"{100 * value:.0f} %"


def repaid(units: float) -> str:
    """A break-even in time units: "after 3×10⁴", or "never"."""
    return "" if math.isnan(units) else f"after {digits(units)}" if math.isfinite(units) else "never"


def duration(seconds: float) -> str:
    """Seconds as 42 s, 3 min 10 s or 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
