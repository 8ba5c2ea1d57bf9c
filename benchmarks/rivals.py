"""The methods of finished runs in one table and one picture, for docs/comparison.md.

    python benchmarks/rivals.py results/rivals10/kolmogorov results/rivals11/kolmogorov

The runs have one configuration and differ in the seed. Each folder holds the scorecard.csv and the cost.csv of a system. The
table stands between the marks of the page; a number is the mean over the runs and its standard deviation. The picture shows
the spectrum error against the seconds of a time unit, with the front of the methods that no cheaper one beats.
"""

import argparse
import re
from pathlib import Path

import numpy as np
import pandas as pd

from sns_core.errors import UserError
from sns_core.figures.style import INK, page, plain_minor
from sns_core.metrics.cost import SOLVER, frontier, read_cost
from sns_core.metrics.scorecard import read_scorecard

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"(?<=<!-- rivals -->\n).*?(?=<!-- end of rivals -->)", re.S)
SMALL = 3e-4  # decades: an error of the spectrum below it is drawn here, because the axis is logarithmic


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


def draw(table: pd.DataFrame, output: Path) -> None:
    """Draw error against cost: a mark per run, a larger one with the name for the mean, and the front of the means."""
    means = table.groupby("method", sort=False)[["seconds", "spectrum error"]].mean()
    with page(output, 110, 6.4, 4.6, layout="constrained") as figure:
        axis = figure.subplots()
        for method, (seconds, error) in means.iterrows():
            runs, colour = table[table["method"] == method], "#0072b2" if method == SOLVER else "#d55e00"
            axis.plot(runs["seconds"], runs["spectrum error"].clip(lower=SMALL), ".", color=colour, alpha=0.4)
            axis.plot(seconds, max(error, SMALL), "o", color=colour)
            axis.annotate(method, (seconds, max(error, SMALL)), (4, 4), textcoords="offset points", fontsize=7)
        front = frontier([tuple(point) for point in means.to_numpy()])
        if front:
            axis.step(*np.array(front).clip(min=SMALL).T, where="post", color=INK, linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlabel="wall seconds per time unit", ylabel="spectrum error (decades)")
        plain_minor(axis)


def main() -> None:
    """Read the arguments, write the table into the page and draw the picture beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="<results>/<run>/<system> of each run")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "comparison.md", help="holds the marks")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "rivals.png", help="is drawn anew")
    arguments = parser.parse_args()
    try:
        table = read_runs(arguments.folders)
    except UserError as error:
        parser.error(str(error))
    text = arguments.page.read_text()
    if not MARKED.search(text):
        parser.error(f"{arguments.page}: lacks the lines <!-- rivals --> and <!-- end of rivals -->")
    arguments.page.write_text(MARKED.sub(lambda _: markdown(table), text))
    draw(table, arguments.picture)


if __name__ == "__main__":
    main()
