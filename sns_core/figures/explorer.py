"""The page to explore a run: fields that move, spectra and energies to be read, in one HTML file that loads nothing.

The page's own script and style are files of the folder `page`; here is what they are given: a description in JSON and one
compressed block of numbers.
"""

import base64
import contextlib
import zlib
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup

from sns_core.figures.fields import COLOUR_LIMIT
from sns_core.figures.frames import Rollout
from sns_core.figures.inputs import living, read, read_each, shown_shells, step_size
from sns_core.figures.style import looks
from sns_core.files import whole_file

TEMPLATES = Path(__file__).parent / "page"
# Fields are kept as so many whole numbers over a range wider than the colour scale, so that what lies between their points can be
# told near its ends, too: steps of 0.07 standard deviations.
LEVELS, RANGE = 128, 4.5
SERIES = ("kinetic_energy", "enstrophy")


def write_explorer(
    *, segments: dict, metrics: dict, reference: Path, labels: dict, methods: list, members: int, megabytes: float,
    title: str, output: Path,
) -> None:  # fmt: skip
    """Write the page of one system.

    `segments`: method -> its rollout's files; `metrics`: method -> file; `labels`: method -> label, all of which the page
    holds; `methods`: those that it shows at first; `members`: how many of the first ones it holds; `megabytes`: of the
    fields at one byte a point, before compression: frames are left out evenly until they fit; `title`: name of the run.
    """
    known, results = read(reference), read_each(metrics, labels)
    chosen = next(iter(results.values()))["member"].values[:members].tolist()
    with contextlib.ExitStack() as opened:
        rollouts = {name: opened.enter_context(Rollout(segments[name], step_size(known))) for name in labels}
        held = {name: _living_steps(rollouts[name], results[name], chosen) for name in labels}
        steps = fitting(held, known.sizes["layer"] * known.sizes["y"] ** 2, megabytes)
        told = _told(known, results, rollouts, looks(labels), chosen, steps, methods)
        block = _Block()
        for name, values in _series(known, results, chosen, steps).items():
            told["arrays"][name] = block.add(values)
        scale = np.sqrt(2 * known["enstrophy"].mean("member").values)[:, None, None]
        for method, (name, rollout) in zip(told["methods"], rollouts.items(), strict=True):
            for member in chosen:
                kept = steps[np.isin(steps, held[name][member])]
                fields = [quantised(rollout.frame(member, int(step))[1] / scale) for step in kept]
                method["frames"].append(block.add(np.array(fields, dtype=np.uint8)))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("page.html.j2").render(
        title=title, told=told, data=block.text(), **{kind: Markup(_own(f"page.{kind}")) for kind in ("css", "js")}
    )
    with whole_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def quantised(field: np.ndarray) -> np.ndarray:
    """Values in standard deviations as whole numbers: 0 stands for -RANGE or less, LEVELS - 1 for RANGE or more."""
    return np.clip(np.rint((field / RANGE + 1) / 2 * (LEVELS - 1)), 0, LEVELS - 1).astype(np.uint8)


def fitting(held: dict[str, dict[int, np.ndarray]], points: int, megabytes: float) -> np.ndarray:
    """Steps to be shown: every n-th stored one, with the least n at which all frames hold at most `megabytes`.

    `held`: method -> member -> steps that have a frame; `points` of a frame, a byte each.
    """
    of_all = [steps for each in held.values() for steps in each.values()]
    stored = np.unique(np.concatenate(of_all))
    for every in range(1, len(stored) + 1):
        steps = stored[::every]
        if sum(np.isin(steps, own).sum() for own in of_all) * points <= 1e6 * megabytes:
            break
    return steps


def _living_steps(rollout: Rollout, result, members: list[int]) -> dict[int, np.ndarray]:
    """Stored steps of each member before it was lost."""
    lost = {member: int(result["lost_step"].sel(member=member)) for member in members}
    return {m: rollout.steps[rollout.steps < lost[m]] if lost[m] >= 0 else rollout.steps for m in members}


def _own(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


class _Block:
    """Arrays one after the other, each from a multiple of four bytes, compressed as one."""

    def __init__(self):
        self.parts, self.size = [], 0

    def add(self, values: np.ndarray) -> dict:
        """Append an array; where it lies, for the script."""
        place = {"offset": self.size, "shape": list(values.shape)}
        content = values.tobytes()
        content += bytes(-len(content) % 4)
        self.parts.append(content)
        self.size += len(content)
        return place

    def text(self) -> str:
        return base64.b64encode(zlib.compress(b"".join(self.parts), 9)).decode("ascii")


def _series(known, results: dict, members: list[int], steps: np.ndarray) -> dict[str, np.ndarray]:
    """float32 of all methods, NaN where there is nothing: spectra (method, member, block, layer, shell) as in the files of
    metrics, series (method, member, step, layer) at the steps shown."""
    longest = max(results.values(), key=lambda result: result.sizes["block"])
    shells = known.isel(wavenumber=shown_shells(known["energy_spectrum"].mean(("member", "layer")).values))[
        "wavenumber"
    ]
    spectra, series = [], {name: [] for name in SERIES}
    for result in results.values():
        spectrum = living(result, "energy_spectrum").sel(member=members).reindex(block=longest["block"])
        shown = spectrum.isel(wavenumber=slice(1, 1 + len(shells)))
        spectra.append(shown.transpose("member", "block", "layer", "wavenumber").values)
        for name in SERIES:
            values = living(result, name).sel(member=members).reindex(step=steps)
            series[name].append(values.transpose("member", "step", "layer").values)
    return {"spectrum": np.array(spectra, dtype="<f4")} | {n: np.array(v, dtype="<f4") for n, v in series.items()}


def _told(known, results, rollouts, style, members, steps, methods) -> dict:
    """What the script is told in words and small numbers."""
    first, rollout = next(iter(results.values())), next(iter(rollouts.values()))
    shells = shown_shells(known["energy_spectrum"].mean(("member", "layer")).values)
    longest = max(results.values(), key=lambda result: result.sizes["block"])
    ensemble = known.isel(wavenumber=shells)

    def extent(name: str) -> dict:
        return {kind: getattr(ensemble[name], kind)("member").values.tolist() for kind in ("mean", "min", "max")}

    colours = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 256))[:, :3]
    return {
        "layers": [str(layer) for layer in known["layer"].values],
        "variable": rollout.variable.replace("_", " "),
        "time_units": rollout.time_units,
        "time_step": step_size(known),
        "wavenumber_units": ensemble["wavenumber"].attrs.get("units", "1"),
        "points": known.sizes["y"],
        "levels": LEVELS,
        "range": RANGE,
        "limit": COLOUR_LIMIT,
        "colours": np.rint(255 * colours).astype(int).ravel().tolist(),
        "members": members,
        "member_count": first.sizes["member"],
        "steps": steps.tolist(),
        "wavenumber": ensemble["wavenumber"].values.tolist(),
        "blocks": longest["block"].values.tolist(),
        "ensemble": {name: extent(name) for name in ("energy_spectrum", *SERIES)},
        "arrays": {},
        "methods": [
            {
                "name": name,
                "label": look["label"],
                "colour": look["color"],
                "dashed": look["linestyle"] != "-",
                "shown": name in methods,
                "lost": [int(results[name]["lost_step"].sel(member=member)) for member in members],
                "reached": rollouts[name].reached,
                "frames": [],
            }
            for name, look in style.items()
        ],
    }
