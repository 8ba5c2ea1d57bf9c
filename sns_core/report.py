"""Write the page that tells the results of a run: the last stage of the workflow.

The page is one file: it contains its styles and pictures and loads nothing. Its words follow from the numbers in the
tables by the thresholds below.
"""

import io
import itertools
import json
import math
import os
from pathlib import Path

import av
import numpy as np
import pandas as pd
import xarray as xr

from sns_core.errors import DamagedFile
from sns_core.figures.inputs import SHOWN_UNITS, read, step_size, time_units
from sns_core.figures.style import css_colours, method_styles
from sns_core.files import FileTree, read_json, whole_file
from sns_core.metrics.cost import read_cost
from sns_core.metrics.distances import worst_window
from sns_core.metrics.floor_table import read_floors, reasons
from sns_core.metrics.lost import is_lost
from sns_core.metrics.scorecard import SCORES, read_scorecard
from sns_core.metrics.stationarity import drift, is_drifting, way_out
from sns_core.metrics.zonal import NO_VELOCITY
from sns_core.pages import inline, render_page
from sns_core.wording import count_of, listed, short

TEMPLATE = "report.html.j2"
DRIFT = 0.25  # decades: a window with a larger spectrum error has left the solver's statistics
ENERGY = 1.5  # a larger factor of the solver's kinetic energy, up or down, is called a change of the mean energy
LOW_CALLS = 0.5  # denoiser calls per step: with fewer calls most steps are the surrogate's own
TIME_UNITS = {"1": "time units", "d": "days"}  # units of the figures -> words
AFTER_LOSS = 0.02  # share of the movie between the first loss and the picture that stands for the movie


# The methods


def summarise(metrics: pd.DataFrame, windows: pd.DataFrame, card: pd.DataFrame, methods: list[dict]) -> list[dict]:
    """Return one row per method and layer: its scores, and a verdict in words.

    `metrics`: one row per method, member and layer; `windows`: one row per method, layer and window; `card`: the
    scorecard; `methods`: name, label and kind of each method, in order. Means are over the members that were not lost;
    windows count all members, and calls are those of the scorecard, of all members before they were lost. "floor": ends
    of the floor of the worst window, NaN without one; "inside": whether the worst window is inside.
    """
    layers = [str(layer) for layer in windows["layer"].unique()]
    worst = card[card["score"] == "worst_window_spectrum_error"].set_index(["method", "layer"])
    calls = card[card["score"] == "calls_per_step"].set_index("method")["value"]
    rows = []
    for method in methods:
        for layer in layers:
            place = method["name"], layer
            ends = worst.loc[place, ["floor_low", "floor_high"]] if place in worst.index else (math.nan, math.nan)
            row = _row(
                metrics, windows, method, layer, float(calls.get(method["name"], math.nan)), tuple(map(float, ends))
            )
            rows.append(row)
    return rows


def _errors(windows: pd.DataFrame, method: str, layer: str) -> np.ndarray:
    """Return the spectrum errors of a method's windows in order, with infinity for NaN."""
    rows = windows[(windows["method"] == method) & (windows["layer"].astype(str) == layer)]
    return rows["window_spectrum_error"].fillna(math.inf).to_numpy(dtype=float)


def _row(metrics, windows, method: dict, layer: str, calls: float, floor: tuple[float, float]) -> dict:
    name = method["name"]
    members = metrics[(metrics["method"] == name) & (metrics["layer"] == layer)]
    method_windows = windows[(windows["method"] == name) & (windows["layer"].astype(str) == layer)]
    gone = is_lost(members["lost_step"])
    alive, lost = members[~gone], members["lost_step"][gone]
    errors = _errors(windows, name, layer)
    energy = method_windows["kinetic_energy"] / method_windows["kinetic_energy_solver"]
    energy = energy.fillna(math.inf).to_numpy(dtype=float)

    def mean(column, relative_to=None):
        values = alive[column] / (alive[relative_to] if relative_to else 1.0)
        return float(values.mean(skipna=False)) if len(values) else math.nan

    row = {
        "name": name,
        "label": method["label"],
        "kind": method["kind"],
        "layer": layer,
        "steps": int(members["steps"].max()),
        "members": len(members),
        "lost": len(lost),
        "first_lost": int(lost.min()) if len(lost) else None,
        "error": mean("member_spectrum_error"),
        "error_late": mean("member_spectrum_error_late"),
        "error_first": errors[0],
        "error_last": errors[-1],
        "error_worst": float(worst_window(errors)),
        "windows": len(errors),
        "energy_worst": energy[np.argmax(np.abs(np.log(np.maximum(energy, 1e-30))))],
        "energy": mean("kinetic_energy", "kinetic_energy_solver"),
        "enstrophy": mean("enstrophy", "enstrophy_solver"),
        "change": mean("relative_change") / method_windows["relative_change_solver"].mean(),
        "decorrelation": mean("decorrelation_time"),
        "decorrelation_late": mean("decorrelation_time_late"),
        "calls": calls,
        "milliseconds": 1000 * float(members["seconds_per_step"].mean()),
        "window_rows": method_windows.to_dict("records"),
        "floor": floor,
        "inside": bool(worst_window(errors) <= floor[1]),
    }
    return {**row, **dict(zip(("tone", "verdict"), judge(row), strict=True)), "note": _note(row)}


def judge(row: dict) -> tuple[str, str]:
    """Return (tone, sentence) for a row; the tone is "bad", "fair" or "good"."""
    worst, last, first = row["error_worst"], row["error_last"], row["error_first"]
    if row["lost"]:
        return "bad", f"Loses {_lost_members(row)}, the first at step {row['first_lost']}."
    if last > DRIFT >= first:
        return "bad", f"Keeps all members and drifts: its spectrum error grows from {short(first)} to {short(last)}."
    if worst > DRIFT:
        return "bad", f"Keeps all members; its spectrum is off by up to {short(worst)} decades."
    if not 1 / ENERGY <= row["energy_worst"] <= ENERGY:
        return "fair", f"Keeps all members; kinetic energy reaches {short(row['energy_worst'])} times the solver's."
    if row["inside"]:
        return "good", "Keeps all members; by its windows it cannot be told from a run of the solver of the same size."
    beyond = "" if math.isnan(row["floor"][1]) else ", more than sampling explains"
    return "fair", f"Keeps all members; its spectrum is off by up to {short(worst)} decades{beyond}."


def _lost_members(row: dict) -> str:
    if row["lost"] == row["members"]:
        return "every member" if row["members"] > 1 else "its one member"
    return f"{row['lost']} of {row['members']} members"


def _note(row: dict) -> str:
    if row["kind"] == "refinement" and row["calls"] < LOW_CALLS:
        return f"Fewer than {LOW_CALLS:g} denoiser calls per step: most steps are the surrogate's own."
    return ""


# The first screen


def headline(rows: list[dict], prices: dict | None, truth: str = "solver") -> dict | None:
    """Return the result in {"sentence", "numbers"}: the best method beside the surrogate alone and the solver.

    `rows`: of `summarise`; `prices`: of `tabulate_prices`, None without a solver that could be paid; `truth`: the word for
    the reference of all methods. The best methods lose the fewest members. Among these, all whose worst window is inside
    the floor are equal; if there is none, the best one has the least spectrum error there. Methods with shorter rollouts
    than others do not compete. A method that was not timed, such as one of another program, has no price. None without a
    method besides the solver.
    """
    methods = _worst_layers(row for row in rows if row["kind"] != "solver")
    if not methods:
        return None
    solver = _worst_layers(row for row in rows if row["kind"] == "solver")
    longest = max(row["steps"] for row in methods)
    contenders = [row for row in methods if row["steps"] == longest]
    fewest = min(row["lost"] for row in contenders)
    contenders = [row for row in contenders if row["lost"] == fewest]
    equal = [row for row in contenders if row["inside"]] or [min(contenders, key=lambda row: row["error_worst"])]
    best = equal[0]
    alone = next((row for row in methods if row["kind"] == "pointwise"), None)
    # A surrogate that keeps its members over fewer steps says nothing about the others.
    is_short = alone is not None and not alone["lost"] and alone["steps"] < longest
    alone = None if alone in equal or is_short else alone
    numbers = _numbers(equal, alone, solver, truth)
    if prices is not None:
        priced = (row["speed_up_configured"] for row in prices["rows"] if row["name"] == best["name"])
        if math.isfinite(speed_up := next(priced, math.nan)):
            numbers.append(_price_number(speed_up, best["label"] if len(equal) > 1 else "", prices["unit"]))
    return {"sentence": _sentence(equal, alone, truth), "numbers": numbers, **best}


def _worst_layers(rows) -> list[dict]:
    """Return one row per method, of the layer with the largest spectrum error; inside the floor if all layers are."""
    worst = {}
    for row in rows:
        before = worst.setdefault(row["name"], row)
        larger = row if row["error_worst"] > before["error_worst"] else before
        worst[row["name"]] = {**larger, "inside": row["inside"] and before["inside"]}
    return list(worst.values())


def _sentence(equal: list[dict], alone: dict | None, truth: str) -> str:
    best = equal[0]
    if best["lost"]:
        beginning = (
            f"No method keeps all members over {best['steps']} steps: {best['label']} loses {_lost_members(best)}"
        )
        beginning += f", the first at step {best['first_lost']}"
    else:
        members = "its one member" if best["members"] == 1 else f"all {best['members']} members"
        if best["inside"]:
            names = listed([row["label"] for row in equal])
            keeps = "it keeps" if len(equal) == 1 else "they keep"
            beginning = f"{names} cannot be told from the {truth} by the spectrum of any window: {keeps} {members}"
        else:
            beginning = f"{best['label']} stays nearest to the {truth}: it keeps {members}"
        beginning += f" over {best['steps']} steps"
    if alone is None:
        return f"{beginning}."
    if alone["lost"]:
        loss = f"{alone['label']} alone loses {_lost_members(alone)}, the first at step {alone['first_lost']}"
        return f"{beginning}, while {loss}."
    if best["inside"]:
        return f"{beginning}. {alone['label']} alone keeps its members, too."
    return f"{beginning}, and so does {alone['label']} alone." if not best["lost"] else f"{beginning}."


def _numbers(equal: list[dict], alone: dict | None, solver: list[dict], truth: str) -> list[dict]:
    """Return the first two numbers of the first screen: {"value", "title", "beside"}."""
    best, (low, high) = equal[0], equal[0]["floor"]
    members = [f"{row['members'] - row['lost']} of {row['members']}" for row in (best, alone) if row]
    if math.isnan(high):
        errors = [f"{row['label']} itself: {short(row['error_worst'])}" for row in solver]
    else:
        errors = [f"{truth} runs of this size: {short(low)} to {short(high)}"]
    if alone:
        errors.append(f"{alone['label']}: {short(alone['error_worst'])}" if math.isfinite(alone["error_worst"]) else "")
    return [
        {
            "value": members[0],
            "title": f"members kept over {best['steps']} steps",
            "beside": f"{alone['label']}: {members[1]}" if alone else "",
        },
        {
            "value": f"≤ {short(high)}" if best["inside"] else short(best["error_worst"]),
            "title": "decades: spectrum error of the worst window" + (", inside the floor" if best["inside"] else ""),
            "beside": "; ".join(filter(None, errors)),
        },
    ]


def _price_number(speed_up: float, label: str, unit: str) -> dict:
    """Return the third number of the first screen: how much cheaper or dearer the best method is than the solver.

    `label`: of that method, "" where it is the only best one; `unit`: of time.
    """
    cheaper = speed_up >= 1
    return {
        "value": "–" if math.isnan(speed_up) else f"{short(speed_up if cheaper else 1 / speed_up)} ×",
        "title": f"{'cheaper' if cheaper else 'dearer'} than the solver as configured",
        "beside": (f"{label}: " if label else "") + f"wall seconds per {unit}; coarser grids: see Cost",
    }


# The drift of the reference


DRIFTS = {"kinetic_energy": "kinetic energy", "enstrophy": "enstrophy", "spectrum": "spectrum"}


def drift_notes(reference: xr.Dataset) -> list[dict]:
    """Return {"text", "drifts"} per quantity and layer: the last third of the reference's frames less the first third.

    `reference`: result of `compute_reference`. The list is empty for a result of an older version, and for a single
    member, whose drift has no standard error.
    """
    if reference.sizes["member"] == 1:
        return []
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


def _unsettled(path: Path | None) -> str:
    """Return a line about splits that are not stationary, and the way out; nothing where all are, or nothing is known."""
    table = pd.read_csv(path) if path else pd.DataFrame({"drifts": []})
    return way_out(table) if table["drifts"].any() else ""


# The scorecard


def scorecard(table: pd.DataFrame, methods: list[dict], steps: dict[str, int]) -> list[dict]:
    """Return one row per score, layer and lead of a table of `score_methods`: {"title", "floor", "cells"}.

    `steps`: method -> steps of its rollout. There is one cell per method, in order: {"value", "low", "high", "within",
    "lost"}, or None if a method has no such score. "within": the value is inside the floor of the method's own size;
    "lost": members were lost. "floor": (low, high) of the longest runs that have one.
    """
    rows = []
    layers = table["layer"][table["layer"] != ""].nunique()
    for (score, layer, lead), part in table.groupby(["score", "layer", "lead"], sort=False, dropna=False):
        title = SCORES[score][0]
        title += f", {layer}" if layer and layers > 1 else ""
        title += f", after {count_of(lead, 'step')}" if np.isfinite(lead) else ""
        by_method = part.set_index("method")
        cells = [_cell(by_method.loc[m["name"]]) if m["name"] in by_method.index else None for m in methods]
        lengths = part["method"].map(steps).where(part["floor_high"].notna(), 0)
        floor = tuple(part.loc[lengths.idxmax(), ["floor_low", "floor_high"]].astype(float))
        rows.append({"title": title, "rank": list(SCORES).index(score), "lead": lead, "floor": floor, "cells": cells})
    return sorted(rows, key=lambda row: row["rank"])


def _cell(row: pd.Series) -> dict | None:
    if not np.isfinite(row["value"]):
        return None
    within = not pd.isna(row["inside"]) and bool(row["inside"])
    return {**row[["value", "low", "high"]], "within": within, "lost": bool(row["members_lost"])}


# Cost


def tabulate_prices(table: pd.DataFrame, methods: list[dict]) -> dict:
    """Return the parts of a table of `tabulate_cost`: "unit", "machine", "members", "columns", "rows" and "verdicts".

    "columns": the titles of the scores. "rows": one per contender, the methods in order and then the solver's grids,
    with its costs per "unit" and one cell per score. A cell has "error" and, if it is a method's, "speed_up",
    "verdict", "beaten_by", "at_most" and "break_even". "verdicts": (name, tone, label, sentence) of each method beside
    the solver.
    """
    units, factor = SHOWN_UNITS.get(table["time_units"].iloc[0], ("time unit", 1.0))
    kinds = list(table[["score", "lead"]].drop_duplicates().itertuples(index=False, name=None))
    kinds.sort(key=lambda kind: (kind[0] != "crps", kind[1]))
    labels = {method["name"]: method["label"] for method in methods}
    order = [name for name in labels if name in set(table["contender"])]
    order += sorted((name for name in table["contender"].unique() if name not in labels), key=int)
    of_solver = table[table["points"] != ""]
    grids = dict(zip(of_solver["contender"], of_solver["points"], strict=True)) | {"solver": "the solver"}
    rows = [_price(name, table[table["contender"] == name], labels.get(name), kinds, factor, grids) for name in order]
    titles = [
        SCORES[score][0] + (f", after {count_of(lead, 'step')}" if score == "crps" else "") for score, lead in kinds
    ]
    rivals = [row for row in rows if row["kind"] == "method" and row["name"] != "solver"]
    return {
        "unit": {"d": "day"}.get(units, units),
        "machine": table["machine"].iloc[0],
        "members": int(table["members"].iloc[0]),
        "columns": titles,
        "rows": rows,
        "verdicts": [(row["name"], *_worth(row, titles)) for row in rivals],
    }


def _price(
    name: str, table: pd.DataFrame, label: str | None, kinds: list[tuple], factor: float, grids: dict[str, str]
) -> dict:
    """Return the row of a contender.

    `kinds`: (score, lead) of the columns; `factor`: of the units of time shown; `grids`: contender -> its grid in words.
    """
    first = table.iloc[0]
    cells = {(row["score"], row["lead"] if row["score"] == "crps" else None): row for row in table.to_dict("records")}
    for cell in cells.values():
        cell["beaten_by"] = grids.get(cell["beaten_by"], "")
    costs = {key: first[key] / factor for key in ("seconds", "seconds_low", "seconds_high", "calls", "joules")}
    costs |= {key: first[key] for key in ("memory_mb", "preparation", "speed_up_configured", "kind")}
    return {
        "name": name,
        "label": label or f"Solver on {first['points']}, step {first['dt'] * factor:.3g}",
        **costs,
        "break_even_configured": first["break_even_configured"] * factor,
        "cells": [cells.get((score, lead if score == "crps" else None)) for score, lead in kinds],
    }


def _worth(row: dict, titles: list[str]) -> tuple[str, str, str]:
    """Return (tone, label, sentence): whether a method is worth its price beside the solver on some grid."""
    compared = [(title, cell) for title, cell in zip(titles, row["cells"], strict=True) if cell and cell["verdict"]]
    if not compared:
        return "fair", row["label"], "cannot be compared: it shares no score with the solver."
    gains = [title for title, cell in compared if cell["verdict"] == "gains"]
    beaten = [title for title, cell in compared if cell["beaten_by"]]
    price = price_words(*(extreme(cell["speed_up"] for _, cell in compared) for extreme in (min, max)))
    if gains:
        sentence = f"gains by {len(gains)} of {count_of(len(compared), 'score')}: {price}"
        tone = "good" if len(gains) == len(compared) else "fair"
    else:
        sentence, tone = f"loses by every score: {price}", "bad"
    if beaten:
        sentence += f"; some grid of the solver is both cheaper and better by {len(beaten)} of {len(compared)}"
    if any(cell["members_lost"] for _, cell in compared):
        sentence += "; it loses members, and has no spectrum in the long run"
    return tone, row["label"], f"{sentence}."


def price_words(least: float, most: float) -> str:
    """Return the price of a method in words, from its least and its largest speed-up over the solver."""

    def span(low: float, high: float) -> str:
        return short(low) if short(low) == short(high) else f"{short(low)} to {short(high)}"

    if most < 1:
        return f"at equal accuracy it costs {span(1 / most, 1 / least)} times as much as the solver"
    if least >= 1:
        return f"at equal accuracy the solver costs {span(least, most)} times as much"
    return (
        f"at equal accuracy it costs between {short(1 / least)} times as much as the solver "
        f"and 1/{short(most)} of it, by the score"
    )


# The page


def write_report(*, systems: FileTree, captions: dict, provenance: Path, output: Path) -> None:
    """Write the page of a run.

    `systems`: system -> {"figures": {name: PNG}, "metrics", "windows", "scorecard", "floors" and, of a solver, "cost":
    tables, "reference": result of `compute_reference`, "stationarity": result of `check_stationarity` (may be left out),
    "methods": [{"name", "label", "kind"}], "movie": MP4, "explorer": page, "truth": "data" where trajectories of files
    stand in the solver's place (may be left out)}, with the figures in the order shown and the first one at the top;
    `captions`: name of a figure, or "movie" -> text whose first paragraph is the title; `provenance`: the file of
    `record_provenance`. Raises DamagedFile for a movie that
    cannot be read.
    """
    record = read_json(provenance)
    texts = {name: _caption(text) for name, text in captions.items()}
    sections = [_section(name, files, record, texts, Path(output).parent) for name, files in systems.items()]
    page = render_page(
        TEMPLATE,
        sections=sections,
        record=record,
        run=record["configuration"].get("run", ""),
        configuration=json.dumps(record["configuration"], indent=2),
        thresholds={"drift": DRIFT, "energy": ENERGY},
    )
    with whole_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _section(system: str, files: dict, record: dict, texts: dict, folder: Path) -> dict:
    """Return all that the page shows of one system."""
    methods, metrics = files["methods"], pd.read_csv(files["metrics"], dtype={"layer": str})
    styles = method_styles({method["name"]: method["label"] for method in methods})
    colours = {name: css_colours(look["color"]) for name, look in styles.items()}
    card, reference = read_scorecard(files["scorecard"]), read(files["reference"])
    step = step_size(reference)  # in the units shown
    with xr.open_dataset(files["reference"]) as stored:
        times = ["decorrelation_time", "decorrelation_time_late"]
        metrics[times] *= step / step_size(stored)
    rows = summarise(metrics, pd.read_csv(files["windows"], dtype={"layer": str}), card, methods)
    prices = tabulate_prices(read_cost(files["cost"]), methods) if "cost" in files else None
    shares, truth = _shares_of_losses(metrics, record["configuration"], methods), files.get("truth", "solver")
    return {
        "name": system,
        "headline": headline(rows, prices, truth),
        "recorded": next((m["label"] for m in methods if m["name"] == "solver"), "") if truth == "data" else "",
        "velocity": reference.attrs.get("velocity") != NO_VELOCITY,
        "colours": colours,
        "rows": rows,
        "layers": len({row["layer"] for row in rows}),
        "methods": methods,
        "scorecard": scorecard(card, methods, {row["name"]: row["steps"] for row in rows}),
        "source": reference.attrs.get("ensemble", "test split"),
        "without_floor": reasons(read_floors(files["floors"]), rows[0]["members"]),
        "cost": prices,
        "drift": drift_notes(reference),
        "unsettled": _unsettled(files.get("stationarity")),
        "figures": [{"name": name, "image": _inline(path), **texts[name]} for name, path in files["figures"].items()],
        "movie": {
            "name": "movie",
            "film": _inline(files["movie"], "video/mp4"),
            "poster": _poster(files["movie"], shares),
            **texts["movie"],
        },
        "explorer": os.path.relpath(files["explorer"], folder),
        "members": rows[0]["members"],
        "steps": max(row["steps"] for row in rows),
        "duration": max(row["steps"] for row in rows) * step,
        "time_units": TIME_UNITS.get(units := time_units({system: reference}), units),
        "made": record["systems"].get(system, {}),
    }


def _shares_of_losses(metrics: pd.DataFrame, configuration: dict, methods: list[dict]) -> list[float]:
    """Return the losses in the movie as shares of its length."""
    figures = configuration.get("figures", {})
    # Without names of its own, the movie shows the first six methods of the run.
    shown = figures.get("movie", {}).get("methods") or [method["name"] for method in methods[:6]]
    member = figures.get("fields", {}).get("member", 0)
    rows = metrics[metrics["method"].isin(shown) & (metrics["member"] == member)]
    return [row.lost_step / rows["steps"].max() for row in rows.itertuples() if is_lost(row.lost_step)]


def _poster(path: Path, losses: list[float]) -> str:
    """Return the picture that stands for a movie: the one shortly after the first loss, or the last one without a loss.

    Raises DamagedFile if the movie cannot be read.
    """
    place = min(losses) + AFTER_LOSS if losses else 1.0
    try:
        with av.open(str(path)) as movie:
            last = movie.streams.video[0].frames - 1
            wanted = min(last, math.ceil(place * last))
            picture = next(itertools.islice(movie.decode(video=0), wanted, None)).to_image()
    except (av.FFmpegError, OSError, IndexError, StopIteration) as error:
        raise DamagedFile(path, f"not readable as a movie ({error})") from None
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=80)
    return inline(content.getvalue(), "image/jpeg")


def _caption(text: str) -> dict:
    title, *paragraphs = text.strip().split("\n\n")
    return {"title": " ".join(title.split()), "paragraphs": [" ".join(p.split()) for p in paragraphs]}


def _inline(path, kind: str = "image/png") -> str:
    return inline(Path(path).read_bytes(), kind)
