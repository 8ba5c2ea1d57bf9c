"""The table and the picture of docs/comparison.md.

    python benchmarks/rivals.py                                                  the picture alone
    python benchmarks/rivals.py results/rivals10/kolmogorov results/rivals11/kolmogorov    the table of these runs, too

The runs have one configuration and differ in the seed. Each folder holds the scorecard.csv and the cost.csv of a system. The
table stands between the marks of the page; a number is the mean over the runs and its standard deviation. The picture shows
another table of the page, that of the seeds that nobody had looked at: the ranges of spectrum error and CRPS over the seeds
beside the calls per step, and which methods no other one beats at as few calls.
"""

import argparse
import re
from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.errors import UserError
from sns_core.figures.style import INK, MUTED, page
from sns_core.metrics.cost import frontier, read_cost
from sns_core.metrics.scorecard import read_scorecard

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"(?<=<!-- rivals -->\n).*?(?=<!-- end of rivals -->)", re.S)
UNSEEN = re.compile(r"(?<=<!-- unseen seeds -->\n).*?(?=<!-- end of unseen seeds -->)", re.S)
# Columns of the table of unseen seeds that the picture shows -> label and scale of their axis.
DRAWN = {"spectrum error": ("spectrum error (decades)", "log"), "10 steps": ("CRPS after 10 steps", "linear")}
OURS, RIVAL, TRUTH = "#0072b2", "#d55e00", "#7f7f7f"  # SNS, the others, and the solver


def read_runs(folders: list[Path]) -> pd.DataFrame:
    """Return one row per run and method, with the columns of the table; runs and methods in their order.

    Scores of several layers are averaged. Raises UserError where a run scores other methods than the first one.
    """
    rows = [row for number, folder in enumerate(folders) for row in _rows_of_run(number, Path(folder))]
    table = pd.DataFrame(rows)
    methods = [list(part["method"]) for _, part in table.groupby("run", sort=False)]
    for folder, names in zip(folders, methods, strict=True):
        if names != methods[0]:
            raise UserError(f"{folder}: scores other methods than {folders[0]}; make both with one configuration")
    return table


def _rows_of_run(number: int, folder: Path) -> list[dict]:
    card, cost = read_scorecard(folder / "scorecard.csv"), read_cost(folder / "cost.csv")
    timed = cost[cost["kind"] == "method"].drop_duplicates("contender").set_index("contender")
    rows = []
    for method, part in card.groupby("method", sort=False):

        def score(name: str, lead: int | None = None, part=part) -> float:
            chosen = part[(part["score"] == name) & (part["lead"].isna() if lead is None else part["lead"] == lead)]
            return chosen["value"].mean()  # NaN where the method has no such score

        rows.append(
            {
                "run": number,
                "method": method,
                "lost": part["members_lost"].iloc[0],
                "members": part["members"].iloc[0],
                "spectrum error": score("spectrum_error"),
                "kinetic energy": score("kinetic_energy"),
                "CRPS, 1 step": score("crps", 1),
                "CRPS, 20 steps": score("crps", 20),
                "spread / skill, 5 steps": score("spread_skill", 5),
                "seconds": timed["seconds"].get(method, np.nan),
                "seconds of preparation": timed["preparation"].get(method, np.nan),
            }
        )
    return rows


def markdown(table: pd.DataFrame) -> str:
    """Return the table as Markdown, one row per method."""
    numbers = [name for name in table.columns if name not in ("run", "method", "lost", "members")]
    lines = ["| " + " | ".join(["method", "members lost", *numbers]) + " |", "|---" * (len(numbers) + 2) + "|"]
    for method, part in table.groupby("method", sort=False):
        cells = [f"`{method}`", f"{part['lost'].sum():.0f} of {part['members'].sum():.0f}"]
        lines.append("| " + " | ".join(cells + [_cell(part[name]) for name in numbers]) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: pd.Series) -> str:
    """Return the mean of several runs and its standard deviation, with three digits; one run's value by itself."""
    if not np.isfinite(values).all():
        return "lost" if np.isfinite(values).any() else "–"
    text = f"{values.mean():.3g}"
    return text if len(values) == 1 else f"{text} ± {values.std(ddof=1):.1g}"


def read_unseen(text: str) -> pd.DataFrame:
    """Return one row per method of the page's table of unseen seeds, sorted by the calls per step, then by the spectrum error.

    Columns: method, seeds (their number), lost (members), calls, and `low` and `high` of each column in DRAWN, NaN where it is
    empty.
    """
    head, _, *lines = UNSEEN.search(text).group().strip().splitlines()
    names = [cell.strip() for cell in head.strip("|").split("|")]
    rows = []
    for line in lines:
        cells = dict(zip(names, (cell.strip(" *") for cell in line.strip("|").split("|")), strict=True))
        seeds = cells["seeds"].split(" to ")
        count = int(seeds[1]) - int(seeds[0]) + 1 if len(seeds) == 2 else cells["seeds"].count(",") + 1
        lost, calls = int(cells["lost"].split(" of ")[0]), float(cells["network calls"])
        row = {"method": cells["method"], "seeds": count, "lost": lost, "calls": calls}
        for name in DRAWN:
            ends = [float(end) for end in cells[name].split(" to ") if end] or [np.nan]
            row |= {f"{name}, low": ends[0], f"{name}, high": ends[-1]}
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["calls", "spectrum error, high"], ignore_index=True)


def unbeaten(table: pd.DataFrame, name: str) -> set[str]:
    """Return the methods that keep all members and whose worst score no such method with as few calls falls below."""
    whole = table[(table["lost"] == 0) & (table["calls"] > 0) & table[f"{name}, high"].notna()]
    points = list(zip(whole["calls"], whole[f"{name}, high"], strict=True))
    front = set(frontier(points))
    return {method for method, point in zip(whole["method"], points, strict=True) if point in front}


def draw(table: pd.DataFrame, output: Path) -> None:
    """Draw the ranges of each column in DRAWN, a line per method: a hollow mark where members were lost, a star for the front."""
    places = -np.arange(len(table))
    with page(output, 130, 9.0, 0.215 * len(table) + 0.9, layout="constrained") as figure:
        axes = figure.subplots(1, len(DRAWN), sharey=True)
        for axis, (name, (label, scale)) in zip(axes, DRAWN.items(), strict=True):
            front = unbeaten(table, name)
            for place, row in zip(places, table.to_dict("records"), strict=True):
                low, high = row[f"{name}, low"], row[f"{name}, high"]
                colour = TRUTH if row["calls"] == 0 else OURS if row["method"].startswith("SNS") else RIVAL
                face = "white" if row["lost"] else colour
                axis.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
                axis.plot([low, high], [place, place], "o", color=colour, markerfacecolor=face, markersize=4.5)
                if row["method"] in front:
                    axis.annotate("★", (high, place), (6, 0), textcoords="offset points", va="center", fontsize=7)
                if row["calls"] == 0:
                    axis.axvspan(low, high, color=TRUTH, alpha=0.2, linewidth=0)
            for place in places[1:][np.diff(table["calls"]) > 0]:
                axis.axhline(place + 0.5, color=MUTED, linewidth=0.5)
            axis.set(xscale=scale, xlabel=label, ylim=(places[-1] - 0.7, 0.7))
        words = [f"{row.method}   {row.calls:.3g} / {row.seeds}" for row in table.itertuples()]
        axes[0].set_yticks(places, words, fontsize=7)
        axes[0].set_title("calls per step / seeds   ", loc="left", x=0, ha="right", fontsize=7, color=INK)


def main() -> None:
    """Read the arguments, write the table into the page and draw the picture beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="<results>/<run>/<system> of each run")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "comparison.md", help="holds the marks")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "rivals.png", help="is drawn anew")
    arguments = parser.parse_args()
    text = arguments.page.read_text()
    for marks, name in ((MARKED, "rivals"), (UNSEEN, "unseen seeds")):
        if not marks.search(text):
            parser.error(f"{arguments.page}: lacks the lines <!-- {name} --> and <!-- end of {name} -->")
    if arguments.folders:
        try:
            table = markdown(read_runs(arguments.folders))
        except UserError as error:
            parser.error(str(error))
        arguments.page.write_text(MARKED.sub(lambda _: table, text))
    draw(read_unseen(text), arguments.picture)
    arguments.picture.with_suffix(".pdf").unlink()  # the page shows the picture alone


if __name__ == "__main__":
    main()
