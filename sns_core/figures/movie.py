"""The movie: methods side by side from one initial state, the spectrum of every frame and the energy so far below them.

What does not move is drawn once; of a frame only the fields, the lines and a few words are drawn anew.
"""

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from sns_core.device import use_threads
from sns_core.figures.fields import COLOUR_LIMIT
from sns_core.figures.frames import Rollout, between_points
from sns_core.figures.inputs import read, read_each, shown_shells, step_size
from sns_core.figures.style import (
    FAINT,
    MUTED,
    PALE,
    REFERENCE,
    looks,
    shared_style,
    time_label,
    wavenumber_axis,
)  # fmt: skip
from sns_core.files import read_json, whole_file
from sns_core.metrics.spectra import kinetic_energy_spectrum
from sns_core.progress import progress
from sns_core.systems import build_system

DPI = 100
# Pixels of a page: a panel, the space between panels and around all of them, the charts below.
PANEL, NARROW, GAP, LEFT, RIGHT, TOP, CHART, BELOW = 296, 200, 10, 40, 26, 98, 196, 56
BETWEEN, BESIDE, AXIS = 40, 62, 34  # above the charts, between two of them, and for the first one's labels
SMALL = 0.75  # of the page's width and height, for the movie that the report carries
QUALITY = {"": "21", "small": "31"}  # constant rate factor of H.264: 18 looks like the original, 51 is the worst
ROOM = (0.1, 30.0)  # of the axis of the spectrum, below and above the solver's range
ENERGIES = (0.4, 2.5)  # times the solver's mean energy: the axis of the energy


def plot_movie(
    *, segments: dict, metrics: dict, reference: Path, manifest: Path, labels: dict, methods: list, member: int,
    seconds: float, rate: int, output: Path, threads: int = 1,
) -> None:  # fmt: skip
    """Write the movie of one member as H.264 in MP4, and beside it `<name>_small.mp4`.

    `segments`: method -> its rollout's files; `metrics`: method -> file; `labels`: all methods -> label, for their colours;
    `methods`: those shown, from left to right; `rate`: frames a second. Of the stored frames every one is shown, or every
    second, third …, so that the whole rollout lasts at most `seconds`. A member that was lost is a grey panel from its step on.
    """
    use_threads(threads)
    known, style = read(reference), looks(labels)
    results = read_each(metrics, methods)
    content = read_json(manifest)
    system = build_system(content["system"]["name"], content["system"]["parameters"], torch.float32)
    with contextlib.ExitStack() as opened, shared_style():
        rollouts = {name: opened.enter_context(Rollout(segments[name], step_size(known))) for name in methods}
        for rollout in rollouts.values():
            rollout.require(member)
        steps = shown_steps(rollouts.values(), int(seconds * rate))
        stage = _Stage(
            known, results, {name: style[name] for name in methods}, rollouts, member, int(np.gcd.reduce(steps))
        )
        small = Path(output).with_name(f"{Path(output).stem}_small.mp4")
        films = [
            opened.enter_context(_Film(path, rate, stage.size, scale, quality))
            for path, scale, quality in ((Path(output), 1.0, QUALITY[""]), (small, SMALL, QUALITY["small"]))
        ]
        for index in progress(len(steps), "frames of the movie"):
            picture = stage.picture(int(steps[index]), system)
            for film in films:
                film.add(picture)


def shown_steps(rollouts, most: int) -> np.ndarray:
    """Stored steps of the longest of `rollouts`, every n-th of them, so that there are at most `most`."""
    steps = max((rollout.steps for rollout in rollouts), key=lambda stored: stored[-1])
    return steps[:: -(-len(steps) // max(1, most))]


def _whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6


class _Film:
    """An MP4 file that takes pictures (H, W, 3) of bytes, `scale` times as large, and is the same for the same pictures."""

    def __init__(self, path: Path, rate: int, size: tuple[int, int], scale: float, quality: str):
        self.path, self.rate, self.quality = path, rate, quality
        self.width, self.height = (2 * round(scale * length / 2) for length in size)

    def __enter__(self) -> "_Film":
        self._closing = contextlib.ExitStack().__enter__()
        temporary = self._closing.enter_context(whole_file(self.path))
        # The index stands before the pictures, so that a page shows the first one early; no version is written into the file.
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._file = self._closing.enter_context(av.open(str(temporary), "w", format="mp4", options=options))
        self._stream = self._file.add_stream("libx264", rate=self.rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = self.width, self.height, "yuv420p"
        # With its macroblock tree, x264 gave other bytes from call to call for the same pictures (AVX-512, x264 165).
        self._stream.options = {
            "crf": self.quality, "preset": "veryfast", "threads": "1", "flags": "+bitexact", "x264-params": "mbtree=0",
        }  # fmt: skip
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, self.rate)
        self._count = 0
        return self

    def __exit__(self, *failure) -> None:
        if failure[0] is None:
            self._file.mux(self._stream.encode())
        self._closing.__exit__(*failure)

    def add(self, picture: np.ndarray) -> None:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(self.width, self.height, "yuv420p", dst_colorspace="ITU709", interpolation="AREA")
        frame.pts, self._count = self._count, self._count + 1
        self._file.mux(self._stream.encode(frame))


class _Stage:
    """The page of the movie: its background, and what moves on it."""

    def __init__(self, known, results: dict, style: dict, rollouts: dict, member: int, stride: int):
        self.results, self.style, self.rollouts, self.member = results, style, rollouts, member
        self.layers = [str(layer) for layer in known["layer"].values]
        # Mean enstrophy is half the mean square of a field whose mean is zero.
        self.std = np.sqrt(2 * known["enstrophy"].mean("member").values).astype(np.float32)
        self.lost = {name: int(result["lost_step"].sel(member=member)) for name, result in results.items()}
        self.time_step = step_size(known)
        self.panel = PANEL if len(style) < 5 else max(NARROW, (4 * (PANEL + GAP)) // len(style) - GAP)
        wide = LEFT + len(style) * (self.panel + GAP) - GAP + RIGHT
        tall = TOP + len(self.layers) * (self.panel + GAP) + BETWEEN + CHART + BELOW
        self.size = (max(wide, 2 * (PANEL + GAP) + LEFT + RIGHT + 300) // 2 * 2, tall // 2 * 2)
        self.left = LEFT + (self.size[0] - wide) // 2  # of the first panel
        self.colours = (255 * matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)
        self.decimals = next(n for n in range(4) if n == 3 or _whole(stride * self.time_step * 10**n))
        self.finer = between_points(known.sizes["y"], self.panel)
        self._draw_background(known)

    # What stands still

    def _draw_background(self, known) -> None:
        self.figure = Figure(figsize=(self.size[0] / DPI, self.size[1] / DPI), dpi=DPI)
        self.canvas = FigureCanvasAgg(self.figure)
        for column, look in enumerate(self.style.values()):
            self._write(self._panel_left(column), TOP - 9, look["label"], color=look["color"], weight="bold", size=12)
        if len(self.layers) > 1:
            for row, layer in enumerate(self.layers):
                middle = self._panel_top(row) + self.panel / 2
                self._write(self.left - 10, middle, layer, ha="right", va="center", rotation=90, weight="bold", size=10)
        self._colour_bar()
        self.moving = []  # artists that change from frame to frame
        count = len(self.layers) + 1
        wide = (self.size[0] - LEFT - RIGHT - AXIS - (count - 1) * BESIDE) / count
        places = [LEFT + AXIS + index * (wide + BESIDE) for index in range(count)]
        top = self._panel_top(len(self.layers)) + BETWEEN
        self.spectra = []
        for index, layer in enumerate(self.layers):
            suffix = "" if len(self.layers) == 1 else f", {layer}"
            self._spectrum(self._axes(places[index], top, wide, CHART), known.isel(layer=index), suffix)
        suffix = "" if len(self.layers) == 1 else f", {self.layers[0]}"
        self._energy(self._axes(places[-1], top, wide, CHART), known.isel(layer=0), suffix)
        self.clock = self._write(self.left, 36, "", size=17, weight="bold", moves=True)
        self.place = self._write(self.left, 57, "", size=10, color=MUTED, moves=True)
        self.words = {}
        for column, name in enumerate(self.style):
            for row in range(len(self.layers)):
                x, y = self._panel_left(column) + self.panel / 2, self._panel_top(row) + self.panel / 2
                self.words[name, row] = self._write(
                    x, y, "", size=13, color=MUTED, ha="center", va="center", moves=True
                )
        self.canvas.draw()
        self._pixels()[:] = self._with_empty_panels()
        self.background = self.canvas.copy_from_bbox(self.figure.bbox)

    def _pixels(self) -> np.ndarray:
        """The canvas, (H, W, 4), to be read and written."""
        return np.asarray(self.canvas.buffer_rgba())

    def _slot(self, row: int, column: int) -> tuple[slice, slice]:
        """Where a panel lies in the canvas."""
        top, left = self._panel_top(row), self._panel_left(column)
        return slice(top, top + self.panel), slice(left, left + self.panel)

    def _with_empty_panels(self) -> np.ndarray:
        pixels = self._pixels().copy()
        for row in range(len(self.layers)):
            for column in range(len(self.style)):
                pixels[*self._slot(row, column), :3] = [round(255 * part) for part in to_rgb(PALE)]
        return pixels

    def _panel_left(self, column: int) -> int:
        return self.left + column * (self.panel + GAP)

    def _panel_top(self, row: int) -> int:
        return TOP + row * (self.panel + GAP)

    def _write(self, x: float, y: float, text: str, moves: bool = False, **options):
        """Text at pixels from the upper left corner."""
        written = self.figure.text(x / self.size[0], 1 - y / self.size[1], text, animated=moves, **options)
        if moves:
            self.moving.append(written)
        return written

    def _axes(self, left: float, top: float, wide: float, tall: float):
        width, height = self.size
        return self.figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))

    def _line(self, axis, look: dict):
        (line,) = axis.plot([], [], color=look["color"], linestyle=look["linestyle"], linewidth=1.7, animated=True)
        self.moving.append(line)
        return line

    def _colour_bar(self) -> None:
        wide, name = 150, next(iter(self.rollouts.values())).variable.replace("_", " ")
        left = self._panel_left(len(self.style)) - GAP - wide - 12
        axis = self._axes(left, 26, wide, 10)
        axis.imshow(np.linspace(0, 1, 256)[None], cmap="RdBu_r", aspect="auto")
        axis.set(yticks=[], xticks=[0, 127.5, 255])
        axis.set_xticklabels([f"−{COLOUR_LIMIT:g} σ", "0", f"+{COLOUR_LIMIT:g} σ"])
        axis.tick_params(length=2, pad=2)
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set(visible=False)
        self._write(left - 28, 36, name, ha="right", color=MUTED, size=10)

    def _spectrum(self, axis, known, suffix: str) -> None:
        ensemble = known["energy_spectrum"].values
        shells = shown_shells(ensemble.mean(0))
        wavenumber, ensemble = known["wavenumber"].values[shells], ensemble[:, shells]
        axis.fill_between(wavenumber, ensemble.min(0), ensemble.max(0), color=REFERENCE, alpha=0.1, linewidth=0)
        axis.plot(
            wavenumber,
            ensemble.mean(0),
            color=REFERENCE,
            linewidth=1.1,
            linestyle=(0, (2, 1.4)),
            label="solver ensemble",
        )
        axis.set_yscale("log")
        wavenumber_axis(axis, wavenumber)
        axis.set_ylim(ensemble.mean(0).min() * ROOM[0], ensemble.mean(0).max() * ROOM[1])
        axis.set(xlabel="wavenumber k")
        axis.set_title(f"Energy spectrum{suffix}")
        axis.legend(loc="lower left", borderpad=0.1)
        self.spectra.append((shells, wavenumber, {name: self._line(axis, look) for name, look in self.style.items()}))

    def _energy(self, axis, known, suffix: str) -> None:
        each = known["kinetic_energy"].values
        mean = float(each.mean())
        axis.axhspan(each.min() / mean, each.max() / mean, color=REFERENCE, alpha=0.1, linewidth=0)
        axis.axhline(1, color=REFERENCE, linewidth=1.1, linestyle=(0, (2, 1.4)))
        last = max(int(result["step"][-1]) for result in self.results.values())
        axis.set(xlim=(0, last * self.time_step), ylim=ENERGIES)
        axis.set_yscale("log")
        ticks = (0.5, 1, 2)
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_yticks([], minor=True)
        axis.set_xlabel(time_label(next(iter(self.rollouts.values())).time_units))
        axis.set_title(f"Kinetic energy / solver's{suffix}")
        self.cursor = axis.axvline(0, color=FAINT, linewidth=1, animated=True)
        self.moving.append(self.cursor)
        self.courses, self.marks = {}, {}
        for name, result in self.results.items():
            steps, lost = result["step"].values, self.lost[name]
            own = result["kinetic_energy"].sel(member=self.member).isel(layer=0).values / mean
            living = steps < lost if lost >= 0 else np.full(len(steps), True)
            self.courses[name] = (self._line(axis, self.style[name]), steps[living], own[living])
            if lost >= 0:
                self.marks[name] = self._line(axis, self.style[name])
                self.marks[name].set(marker="^", markersize=6, clip_on=False, linestyle="none")

    # What moves

    def picture(self, step: int, system) -> np.ndarray:
        """The page (H, W, 3) at a step."""
        units = next(iter(self.rollouts.values())).time_units
        time = step * self.time_step
        self.clock.set_text(f"t = {time:.{self.decimals}f}" + ("" if units == "1" else f" {units}"))
        self.place.set_text(f"step {step}, member {self.member}")
        fields = {name: self._field(name, step) for name in self.style}
        self._move_spectra({name: field for name, field in fields.items() if isinstance(field, np.ndarray)}, system)
        self._move_energies(step)
        for (name, _), word in self.words.items():
            word.set_text("" if isinstance(fields[name], np.ndarray) else fields[name])
        self.canvas.restore_region(self.background)
        for column, field in enumerate(fields.values()):
            if isinstance(field, np.ndarray):
                for row, colours in enumerate(self._coloured(field)):
                    self._pixels()[*self._slot(row, column), :3] = colours
        for artist in self.moving:
            self.figure.draw_artist(artist)
        return self._pixels()[..., :3]

    def _coloured(self, field: np.ndarray) -> np.ndarray:
        """Colours (C, panel, panel, 3) of a frame (C, H, W), the first row uppermost."""
        upwards = self.finer[::-1]
        values = upwards @ field @ self.finer.T / self.std[:, None, None]
        return self.colours[np.clip((values / COLOUR_LIMIT + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)]

    def _move_energies(self, step: int) -> None:
        self.cursor.set_xdata([step * self.time_step] * 2)
        for line, steps, values in self.courses.values():
            count = int(np.searchsorted(steps, step, side="right"))
            line.set_data(steps[:count] * self.time_step, values[:count])
        for name, mark in self.marks.items():
            shown = step >= self.lost[name]
            mark.set_data(*([[self.lost[name] * self.time_step], [ENERGIES[1]]] if shown else ([], [])))

    def _field(self, name: str, step: int) -> np.ndarray | str:
        """The frame (C, H, W) of a method, or why there is none."""
        if 0 <= self.lost[name] <= step:
            return f"lost at step {self.lost[name]}"
        found = self.rollouts[name].frame(self.member, step)
        return found[1] if found else f"run for {self.rollouts[name].reached} steps"

    def _move_spectra(self, fields: dict, system) -> None:
        spectra = {}
        if fields:
            u, v = system.frame_velocity(torch.from_numpy(np.stack(list(fields.values()))))
            for layer in range(len(self.layers)):
                energy = kinetic_energy_spectrum(u[:, [layer]], v[:, [layer]], system.length)[1].numpy()
                spectra |= {(name, layer): values for name, values in zip(fields, energy, strict=True)}
        for layer, (shells, wavenumber, lines) in enumerate(self.spectra):
            for name, line in lines.items():
                shown = (name, layer) in spectra
                line.set_data(wavenumber if shown else [], spectra[name, layer][shells] if shown else [])
