"""Write the page to explore a run, one HTML file that loads nothing.

The script and the style of the page stand beside this file. Its data are a description in JSON and one compressed block
of numbers.
"""

import base64
import contextlib
import zlib
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup

from sns_core.figures.frames import Rollout
from sns_core.figures.inputs import field_scale, layer_names, living, read, read_each, shown_shells, step_size
from sns_core.figures.style import COLOUR_LIMIT, css_colours, method_styles
from sns_core.files import FileTree, whole_file

FOLDER = Path(__file__).parent
LEVELS = 128  # values that a point of a field can have, evenly between both ends of the colour scale
SERIES = ("kinetic_energy", "enstrophy")


def write_explorer(
    *,
    segments: FileTree,
    metrics: FileTree,
    reference: Path,
    labels: dict,
    methods: list,
    members: int,
    megabytes: float,
    title: str,
    output: Path,
) -> None:
    """Write the page of one system.

    `segments`: method -> files of its rollout; `metrics`: method -> file; `labels`: method -> label, of all methods on
    the page; `methods`: the methods that the page shows at first; `members`: the page holds so many of the first
    members; `megabytes`: limit of all fields at one byte per point before compression, above which frames are left out
    evenly; `title`: name of the run.
    """
    solver, results = read(reference), read_each(metrics, labels)
    chosen = next(iter(results.values()))["member"].values[:members].tolist()
    with contextlib.ExitStack() as stack:
        rollouts = {name: stack.enter_context(Rollout(segments[name], step_size(solver))) for name in labels}
        stored = {name: _steps_before_loss(rollouts[name], results[name], chosen) for name in labels}
        height, width = next(iter(rollouts.values())).points
        steps = fitting(stored, solver.sizes["layer"] * height * width, megabytes)
        description = _describe_run(solver, results, rollouts, chosen, steps)
        block = _Block()
        for name, values in _series(solver, results, chosen, steps).items():
            description["arrays"][name] = block.add(values)
        scale = field_scale(solver)[:, None, None]
        for name, style in method_styles(labels).items():
            entry = _describe_method(name, labels[name], style, results[name], rollouts[name], chosen)
            for member in chosen:
                shown = steps[np.isin(steps, stored[name][member])]
                fields = [
                    quantised(rollouts[name].shown(rollouts[name].frame(member, int(step))[1]) / scale)
                    for step in shown
                ]
                entry["frames"].append(block.add(np.array(fields, dtype=np.uint8)))
            description["methods"].append({**entry, "shown": name in methods})
    with whole_file(output) as temporary:
        temporary.write_text(_render(title, description, block.text()), encoding="utf-8")


def quantised(field: np.ndarray) -> np.ndarray:
    """Return values in standard deviations as whole numbers, 0 at the lower end of the colour scale or below it.

    LEVELS - 1 stands for the upper end of the scale and everything above it.
    """
    return np.clip(np.rint((field / COLOUR_LIMIT + 1) / 2 * (LEVELS - 1)), 0, LEVELS - 1).astype(np.uint8)


def fitting(stored: dict[str, dict[int, np.ndarray]], points: int, megabytes: float) -> np.ndarray:
    """Return the steps to show: every n-th stored step, with the least n for which all frames fit into `megabytes`.

    `stored`: method -> member -> steps that have a frame; `points`: per frame, one byte each. The first step is always
    shown.
    """
    of_each = [steps for members in stored.values() for steps in members.values()]
    every_step = np.unique(np.concatenate(of_each))
    for n in range(1, len(every_step) + 1):
        steps = every_step[::n]
        if sum(np.isin(steps, each).sum() for each in of_each) * points <= 1e6 * megabytes:
            break
    return steps


def _steps_before_loss(rollout: Rollout, result, members: list[int]) -> dict[int, np.ndarray]:
    """Return member -> its stored steps before it was lost."""
    lost = {member: int(result["lost_step"].sel(member=member)) for member in members}
    return {m: rollout.steps[rollout.steps < lost[m]] if lost[m] >= 0 else rollout.steps for m in members}


class _Block:
    """Arrays one after the other, each beginning at a multiple of four bytes, compressed together."""

    def __init__(self):
        self.parts, self.size = [], 0

    def add(self, values: np.ndarray) -> dict:
        """Append an array; return its offset and shape for the script."""
        place = {"offset": self.size, "shape": list(values.shape)}
        content = values.tobytes()
        content += bytes(-len(content) % 4)
        self.parts.append(content)
        self.size += len(content)
        return place

    def text(self) -> str:
        return base64.b64encode(zlib.compress(b"".join(self.parts), 9)).decode("ascii")


def _shells(solver) -> slice:
    """Return the shells from 1 to the last that is not empty in some layer; layers may differ in units."""
    spectra = solver["energy_spectrum"].mean("member").transpose("layer", "wavenumber").values
    return max((shown_shells(spectrum) for spectrum in spectra), key=lambda shells: shells.stop)


def _longest(results: dict):
    return max(results.values(), key=lambda result: result.sizes["block"])


def _series(solver, results: dict, members: list[int], steps: np.ndarray) -> dict[str, np.ndarray]:
    """Return the numbers of all methods as float32, NaN if there is none.

    "spectrum" (method, member, block, layer, shell) as the metrics have it; energies (method, member, step, layer) at
    the steps shown.
    """
    spectra, series = [], {name: [] for name in SERIES}
    for result in results.values():
        spectrum = living(result, "energy_spectrum").sel(member=members).reindex(block=_longest(results)["block"])
        spectrum = spectrum.isel(wavenumber=_shells(solver))
        spectra.append(spectrum.transpose("member", "block", "layer", "wavenumber").values)
        for name in SERIES:
            values = living(result, name).sel(member=members).reindex(step=steps)
            series[name].append(values.transpose("member", "step", "layer").values)
    return {"spectrum": np.array(spectra, dtype="<f4")} | {n: np.array(v, dtype="<f4") for n, v in series.items()}


def _describe_run(solver, results, rollouts, members, steps) -> dict:
    """Return the description of a run for the script, without its arrays and methods."""
    rollout, ensemble = next(iter(rollouts.values())), solver.isel(wavenumber=_shells(solver))

    def extent(name: str) -> dict:
        return {kind: getattr(ensemble[name], kind)("member").values.tolist() for kind in ("mean", "min", "max")}

    colours = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 256))[:, :3]
    return {
        "layers": layer_names(solver),
        "variable": rollout.variable.replace("_", " "),
        "time_units": rollout.time_units,
        "time_step": step_size(solver),
        "wavenumber_units": ensemble["wavenumber"].attrs.get("units", "1"),
        "height": rollout.points[0],
        "width": rollout.points[1],
        "rows": rollout.grid[0],
        "levels": LEVELS,
        "limit": COLOUR_LIMIT,
        "colours": np.rint(255 * colours).astype(int).ravel().tolist(),
        "members": members,
        "member_count": next(iter(results.values())).sizes["member"],
        "steps": steps.tolist(),
        "wavenumber": ensemble["wavenumber"].values.tolist(),
        "blocks": _longest(results)["block"].values.tolist(),
        "ensemble": {name: extent(name) for name in ("energy_spectrum", *SERIES)},
        "arrays": {},
        "methods": [],
    }


def _describe_method(name: str, label: str, style: dict, result, rollout: Rollout, members: list[int]) -> dict:
    """Return the description of a method for the script, without its frames."""
    return {
        "name": name,
        "label": label,
        "colours": css_colours(style["color"]),
        "dashed": style["linestyle"] != "-",
        "lost": [int(result["lost_step"].sel(member=member)) for member in members],
        "last_step": rollout.last_step,
        "frames": [],
    }


def _render(title: str, description: dict, data: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    # Script and style are the project's own files and go into the page as they are.
    parts = {kind: Markup((FOLDER / f"explorer.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js")}
    template = environment.get_template("explorer.html.j2")
    return template.render(title=title, description=description, data=data, **parts)
