"""The model card of a method: what it emulates, what it was trained on, how well it did in its run, and where it ends.

A card is text in Markdown, with the lines at its top that model hubs read.
"""

import json
from collections.abc import Iterable

import pandas as pd

from sns_core.library import Emulator
from sns_core.metrics.scorecard import SCORES, read_scorecard
from sns_core.version import __version__
from sns_core.wording import digits, whole

USE = "\n\n## Use\n"


def card_of(emulator: Emulator, use: list[str]) -> str:
    """Return the card of an emulator, with lines of Python that show its use. A method that was exported before keeps its card."""
    described = emulator.card.partition(USE)[0] if emulator.card else _description(emulator)
    return "\n".join([described + USE, "```python", *use, "```", ""])


def _description(emulator: Emulator) -> str:
    origin, system = emulator.origin, emulator.system
    channels, height, width = emulator.grid
    step = f"{emulator.step:g}" + ("" if emulator.time_units == "1" else f" {emulator.time_units}")
    facts = {
        "system": f"{emulator.emulation.system_name} {json.dumps(emulator.emulation.system_parameters)}",
        "frames": f"{channels} x {height} x {width} (channel, y, x): {', '.join(system.layers)}; {system.variable} in {system.units}",
        "time between frames": step,
        "data": f"{_sizes(emulator.emulation.splits)}; identity {emulator.emulation.identity[:12]}",
        "sns_core": __version__,
    }
    return "\n".join(
        [
            "---",
            "library_name: sns-core",
            "tags: [surrogate-model, fluid-dynamics, diffusion]",
            "---",
            f"# {emulator.options.get('label', emulator.method)} of {origin.path.name}",
            "",
            f"The method `{emulator.method}` of the kind `{emulator.options['kind']}` maps a frame of a simulated flow to the next one.",
            "",
            *_table(["", ""], facts.items()),
            "",
            "## Networks",
            "",
            *_table(["role", "model", "objective", "parameters", "training steps"], _networks(emulator)),
            *_scores(emulator),
            "",
            "## Limits",
            "",
            "The method belongs to this system, this grid, this time between frames and these data. Its scores say how well a rollout "
            "keeps the statistics of the flow; after a few decorrelation times no member follows the trajectory of a solver. It "
            "forecasts nothing real.",
        ]
    )


def _table(head: list[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _sizes(splits: dict[str, list[dict]]) -> str:
    """Return the trajectories and frames of each split, from the shards in a manifest."""
    shapes = {split: [shard["shape"] for shard in shards] for split, shards in splits.items() if shards}
    return ", ".join(f"{split} {sum(s[0] for s in each)} x {each[0][1]} frames" for split, each in shapes.items())


def _networks(emulator: Emulator) -> Iterable[list[str]]:
    for role, (tensors, note) in emulator.portable("").models.items():
        yield [
            role,
            note.get("name", ""),
            note["spec"]["objective"],
            whole(sum(tensor.numel() for tensor in tensors.values())),
            str(note["spec"].get("training", {}).get("steps", "")),
        ]


def _scores(emulator: Emulator) -> list[str]:
    """Return a table of the method's scores in its run, beside those of solver runs of the same size; nothing without a scorecard."""
    path = emulator.origin.path / "scorecard.csv"
    if not path.exists():
        return []
    table = read_scorecard(path)
    table = table[(table["method"] == emulator.method) & table["value"].notna()]
    rows = (
        [
            SCORES[row.score][0].replace("…", "  …") + (f", step {row.lead:.0f}" if pd.notna(row.lead) else ""),
            row.layer,
            digits(row.value),
            f"{digits(row.floor_low)} to {digits(row.floor_high)}" if pd.notna(row.floor_high) else "",
            "" if pd.isna(row.ideal) else f"{row.ideal:g}",
        ]
        for row in table.itertuples()
    )
    lost = (
        f"{int(table['members_lost'].max())} of {int(table['members'].max())} members were lost." if len(table) else ""
    )
    return ["", "## Scores in its run", "", lost, "", *_table(["score", "channel", "value", "floor", "ideal"], rows)]
