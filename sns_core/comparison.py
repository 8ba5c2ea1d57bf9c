"""Two finished runs beside each other: `python -m sns_core compare results/a results/b`.

The comparison reads the records, tables and pictures of the runs, and computes nothing anew. It tells what differs in the
configuration, the code, the data and the machine, which scores lie apart, and shows the pictures side by side.
"""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sns_core.errors import UserError
from sns_core.files import digest, read_json, whole_file
from sns_core.metrics.scorecard import SCORES, read_scorecard
from sns_core.pages import inline, render_page
from sns_core.record import RUN, check_current, read_run, records_below
from sns_core.wording import count_of, digits, interval

TEMPLATE = "comparison.html.j2"
NAMES_OF_RUNS = ("run", "results", "reuse")  # keys of the configuration that differ between any two runs
ON_THE_CLOCK = ("seconds_per_step",)  # scores that depend on the machine and on what else it does
COPIES = ("take_result", "link_result")  # stages that make no result of their own
PLACE = ["score", "layer", "lead"]
ABSENT = "–"


@dataclass(frozen=True)
class Run:
    """A finished run. `record`: that of `record_provenance`; `records`: name of a result -> its record."""

    folder: Path
    record: dict
    records: dict[str, dict]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read the records of a run. Raises UserError for a folder without a finished run, and for one made again in part."""
        folder = Path(folder)
        run = cls(folder, read_run(folder), records_below(folder))
        shown = [f"{system}/scorecard.csv" for system in run.record["systems"]]
        shown += [name for name in run.records if name.endswith(".png")]
        check_current(folder, run.record["configuration"], run.records, [RUN, *shown])
        return run

    @property
    def name(self) -> str:
        """The folder as it was given, which tells two runs of one name apart."""
        return str(self.folder)

    @property
    def configuration(self) -> dict:
        """The part of the configuration that this run uses, as dotted key -> value."""
        use = self.record["configuration"].get("use", {})
        unused = {
            f"{room}.{name}."
            for room in ("systems", "methods")
            for name in self.record["configuration"].get(room, {})
            if name not in use.get(room, [name])
        }
        keys = flatten({k: v for k, v in self.record["configuration"].items() if k not in NAMES_OF_RUNS})
        return {key: value for key, value in keys.items() if not key.startswith(tuple(unused))}

    @property
    def data(self) -> dict:
        """Short checksums of the data of each split and of each model, by system."""
        checksums = {}
        for system, entry in self.record["systems"].items():
            for split, shards in read_json(self.folder / system / "shards/manifest.json")["splits"].items():
                checksums[f"{system}: data of {split}"] = digest([shard["sha256"] for shard in shards])
            checksums |= {f"{system}: model {name}": model["sha256"][:12] for name, model in entry["models"].items()}
        return checksums

    @property
    def machine(self) -> dict:
        """Commit, versions of packages, host and device."""
        host = {f"host {key}": value for key, value in self.record["host"].items()}
        commits = ", ".join(
            code["commit"][:12] + " with uncommitted changes" * bool(code["dirty"])
            for code in self.record["code_of_results"]
        )
        return {"commit": commits, "device": self.record["device"], **host, **self.record["versions"]}

    def label(self, method: str) -> str:
        """The label of a method in this run, or its name."""
        return self.record["configuration"]["methods"].get(method, {}).get("label", method)


def flatten(value: dict, above: str = "") -> dict:
    """Return nested dicts as one dict with dotted keys. Lists stay as they are."""
    flat = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{above}{key}.") if isinstance(inner, dict) and inner else {f"{above}{key}": inner}
    return flat


def differences(left: dict, right: dict) -> list[dict]:
    """Return {"key", "left", "right"} per key with unequal values, as text; a key that one side lacks has a dash."""

    def text(values: dict, key: str) -> str:
        value = values.get(key, ABSENT)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    keys = [*left, *(key for key in right if key not in left)]
    unequal = [key for key in keys if left.get(key, ABSENT) != right.get(key, ABSENT)]
    return [{"key": key, "left": text(left, key), "right": text(right, key)} for key in unequal]


def compare_code(left: Run, right: Run) -> list[dict]:
    """Return {"stage", "count", "of"} per stage: how many of the results that both runs made were made by other code.

    A folder of the gallery has no records of results, so nothing is known of the code of each. A result that one run
    copied from the gallery, or linked to another run of a sweep, is not counted: its record tells of the copy.
    """
    pairs = [(left.records[name], right.records[name]) for name in left.records if name in right.records]
    common = [(mine, yours) for mine, yours in pairs if mine["stage"] == yours["stage"] and mine["stage"] not in COPIES]
    total = Counter(mine["stage"] for mine, _ in common)
    changed = Counter(mine["stage"] for mine, yours in common if mine["fingerprint"] != yours["fingerprint"])
    return [{"stage": stage, "count": changed[stage], "of": count} for stage, count in total.items()]


def lie_apart(left: dict, right: dict) -> bool:
    """Return whether two scores {"value", "low", "high"} have intervals that do not overlap.

    A score without an interval is the interval of its value alone. A score that is not finite lies apart from any other.
    """
    (low, high), (other_low, other_high) = map(_ends, (left, right))
    if not all(map(math.isfinite, (low, high, other_low, other_high))):
        return not all(_equal(left[end], right[end]) for end in ("value", "low", "high"))
    return high < other_low or other_high < low


def _ends(score: dict) -> tuple[float, float]:
    value = score["value"]
    return tuple(value if math.isnan(score[end]) else score[end] for end in ("low", "high"))


def _equal(left: float, right: float) -> bool:
    return left == right or (math.isnan(left) and math.isnan(right))


def whole_titles() -> dict[str, str]:
    """Return score -> title. A title such as "… its variance" gets the quantity of the row above, to be read alone."""
    titles, quantity = {}, ""
    for score, (title, *_) in SCORES.items():
        if title.startswith("… "):
            title = f"{quantity}{', ' if title.startswith('… its') else ' '}{title.removeprefix('… ')}"
        else:
            quantity = re.split(r", | / | \(", title)[0]
        titles[score] = title
    return titles


def compare_scores(left: pd.DataFrame, right: pd.DataFrame) -> dict[str, list[dict]]:
    """Return method -> one row per score, layer and lead of two scorecards, methods and scores in the order of the left.

    A row is {"title", "left", "right", "apart"}. A score that one scorecard lacks is None there and does not count as
    apart, and neither does a wall time.
    """
    tables = [table.assign(lead=table["lead"].fillna(-1)).set_index(["method", *PLACE]) for table in (left, right)]
    index = tables[0].index.append(tables[1].index.difference(tables[0].index, sort=False))
    several_layers = index.get_level_values("layer").nunique() > 2  # besides "", of scores without layers
    methods: dict[str, list[dict]] = {}
    titles = whole_titles()
    for method, score, layer, lead in index:
        place = (method, score, layer, lead)
        mine, yours = (
            table.loc[place, ["value", "low", "high"]].to_dict() if place in table.index else None for table in tables
        )
        title = titles.get(score, score)
        title += f", {layer}" if layer and several_layers else ""
        title += f", after {count_of(lead, 'step')}" if lead > 0 else ""
        counts = mine and yours and score not in ON_THE_CLOCK
        row = {"title": title, "left": mine, "right": yours, "apart": bool(counts) and lie_apart(mine, yours)}
        methods.setdefault(method, []).append(row)
    return methods


def compare_pictures(left: Path, right: Path) -> list[dict]:
    """Return {"name", "left", "right"} per picture of two folders: addresses that hold the pictures, or None.

    Where both pictures have the same bytes, "right" is "equal".
    """
    files = [{path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))} for folder in (left, right)]
    pictures = []
    for name in files[0] | files[1]:
        mine, yours = (inline(side[name], "image/png") if name in side else None for side in files)
        pictures.append({"name": name, "left": mine, "right": "equal" if mine == yours else yours})
    return pictures


def compare_runs(left: Run, right: Run) -> dict:
    """Return all that a comparison shows; a part without a difference is empty, or counts none."""
    systems = [name for name in left.record["systems"] if name in right.record["systems"]]
    if not systems:
        raise UserError(
            f"{left.folder} and {right.folder}: have no system in common ({', '.join(left.record['systems'])}; "
            f"{', '.join(right.record['systems'])})"
        )
    return {
        "left": left,
        "right": right,
        "configuration": differences(left.configuration, right.configuration),
        "code": compare_code(left, right),
        "data": differences(left.data, right.data),
        "machine": differences(left.machine, right.machine),
        "systems": [
            {
                "name": system,
                "scores": compare_scores(
                    *(read_scorecard(run.folder / system / "scorecard.csv") for run in (left, right))
                ),
                "pictures": compare_pictures(*(run.folder / system / "figures" for run in (left, right))),
            }
            for system in systems
        ],
    }


def headline(comparison: dict) -> str:
    """Return one sentence: how much differs, and how many scores lie apart."""
    rows = [row for system in comparison["systems"] for rows in system["scores"].values() for row in rows]
    both = [row for row in rows if row["left"] and row["right"]]
    apart = sum(row["apart"] for row in both)
    made, changed = (sum(row[key] for row in comparison["code"]) for key in ("of", "count"))
    parts = [
        count_of(len(comparison["configuration"]), "setting") + _differ(len(comparison["configuration"])),
        f"other code made {changed} of {count_of(made, 'common result')}",
        f"{count_of(len(comparison['data']), 'checksum')} of data and models" + _differ(len(comparison["data"])),
    ]
    return f"{', '.join(parts)}; {apart} of {count_of(len(both), 'score')} {'lies' if apart == 1 else 'lie'} apart."


def _differ(count: int) -> str:
    return " differs" if count == 1 else " differ"


def as_text(comparison: dict) -> str:
    """Return a comparison as text for a terminal: the headline, what differs, and the scores that lie apart."""
    left, right = comparison["left"].name, comparison["right"].name
    lines = [f"{left} beside {right}: {headline(comparison)}"]
    for part in ("configuration", "data", "machine"):
        lines += [f"\n{part}"] * bool(comparison[part])
        lines += [f"  {row['key']}: {row['left']} | {row['right']}" for row in comparison[part]]
    changed = [row for row in comparison["code"] if row["count"]]
    lines += ["\nresults of other code"] * bool(changed)
    lines += [f"  {row['stage']}: {row['count']} of {row['of']}" for row in changed]
    for system in comparison["systems"]:
        for method, rows in system["scores"].items():
            apart = [row for row in rows if row["apart"]]
            lines += [f"\n{system['name']}, {method}: scores that lie apart"] * bool(apart)
            lines += [f"  {row['title']}: {_words(row['left'])} | {_words(row['right'])}" for row in apart]
    return "\n".join(lines)


def _words(score: dict) -> str:
    return f"{digits(score['value'])} {interval(score['low'], score['high'], score['value'])}".strip()


def compare(left: Path, right: Path, *, output: Path | None = None) -> str:
    """Compare two finished runs: what differs, and what follows from it.

    Returns the comparison as text, and writes it with all scores and the pictures into one HTML page. Raises UserError for a folder
    without a finished run, for a run that was made again in part, and for runs without a common system.

    `left`, `right`: folders of runs, or of the gallery.
    `output`: the page; without it, LEFT_and_RIGHT.html beside the left run.
    """
    runs = Run.read(left), Run.read(right)
    comparison = compare_runs(*runs)
    output = output or left.resolve().parent / f"{left.resolve().name}_and_{right.resolve().name}.html"
    with whole_file(output) as temporary:
        temporary.write_text(render_page(TEMPLATE, headline=headline(comparison), **comparison), encoding="utf-8")
    return f"{as_text(comparison)}\n\npage: {output}"
