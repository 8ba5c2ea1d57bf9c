"""The movie: methods side by side from one initial state, with the spectrum of every frame and the energy so far.

The background is drawn once. Each picture draws only the fields, the lines and a few words anew.

This is the one figure that needs torch besides the plane of noise levels: the spectra of single frames are in no file,
and only the system itself knows the velocity of its frames.
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
from sns_core.figures.frames import Rollout
from sns_core.figures.inputs import field_scale, layer_names, layer_suffix, read, read_each, shown_shells, step_size
from sns_core.figures.style import (
    COLOUR_LIMIT,
    DOTTED,
    FAINT,
    MUTED,
    PALE,
    REFERENCE,
    method_styles,
    readable,
    shared_style,
    time_label,
    wavenumber_axis,
)
from sns_core.files import FileTree, read_json, whole_file
from sns_core.metrics.spectra import kinetic_energy_spectrum
from sns_core.progress import progress
from sns_core.systems import build_system

DPI = 100
# Pixels: width of a panel about, the same for five methods or more, gaps and margins, height of the charts, foot.
PANEL, NARROW, GAP, LEFT, RIGHT, TOP, CHART, BELOW = 296, 200, 10, 40, 26, 98, 196, 56
BETWEEN, BESIDE, AXIS = 40, 62, 34  # pixels above the charts, between two of them, for the labels of the first one
SMALL = 0.75  # width and height of the report's movie in units of the full one
QUALITY = {"full": "21", "small": "31"}  # constant rate factor of H.264: 18 can hardly be told from the original
ROOM = (0.1, 30.0)  # the axis of the spectrum spans the solver's range times these factors
ENERGIES = (0.4, 2.5)  # the axis of the energy, in units of the solver's mean


def plot_movie(
    *,
    segments: FileTree,
    metrics: FileTree,
    reference: Path,
    manifest: Path,
    labels: dict,
    methods: list,
    member: int,
    seconds: float,
    rate: int,
    output: Path,
    threads: int = 1,
) -> None:
    """Write the movie of one member as H.264 in MP4, and beside it a smaller one, `<name>_small.mp4`.

    `segments`: method -> files of its rollout; `metrics`: method -> file; `labels`: method -> label of all methods, for
    their colours; `methods`: the methods shown, from left to right; `rate`: pictures per second; `seconds`: longest
    duration of the movie. If all stored frames would last longer, every second (third, ...) frame is shown. The panel
    of a member that was lost is grey from its loss on. Raises UserError for an unknown member.
    """
    use_threads(threads)
    solver, styles = read(reference), method_styles(labels)
    results = read_each(metrics, methods)
    content = read_json(manifest)
    system = build_system(content["system"]["name"], content["system"]["parameters"], torch.float32)
    with contextlib.ExitStack() as stack, shared_style():
        rollouts = {name: stack.enter_context(Rollout(segments[name], step_size(solver))) for name in methods}
        for rollout in rollouts.values():
            rollout.require(member)
        steps = shown_steps(rollouts.values(), int(seconds * rate))
        shown = {name: styles[name] for name in methods}
        pictures = _Pictures(solver, results, shown, rollouts, member, int(np.gcd.reduce(steps)))
        small = Path(output).with_name(f"{Path(output).stem}_small.mp4")
        films = [
            stack.enter_context(_Film(path, rate, pictures.size, scale, QUALITY[quality]))
            for path, scale, quality in ((Path(output), 1.0, "full"), (small, SMALL, "small"))
        ]
        for index in progress(len(steps), "frames of the movie"):
            picture = av.VideoFrame.from_ndarray(pictures.draw(int(steps[index]), system), format="rgba")
            for film in films:
                film.add(picture)


def shown_steps(rollouts, most: int) -> np.ndarray:
    """Return every n-th stored step of the longest of `rollouts`, at most `most` of them."""
    steps = max((rollout.steps for rollout in rollouts), key=lambda stored: stored[-1])
    return steps[:: -(-len(steps) // max(1, most))]


def panel_size(points: int, wanted: int) -> int:
    """Return the pixels nearest to `wanted` at which every grid point of a field is a square of whole pixels.

    A field with more points than pixels gets `wanted`; then points are left out.
    """
    return points * max(1, round(wanted / points)) if points <= wanted else wanted


class _Film:
    """An MP4 file of pictures, scaled by `scale`; the same pictures give the same file."""

    def __init__(self, path: Path, rate: int, size: tuple[int, int], scale: float, quality: str):
        self.path, self.rate, self.quality = path, rate, quality
        self.width, self.height = (2 * round(scale * length / 2) for length in size)

    def __enter__(self) -> "_Film":
        self._closing = contextlib.ExitStack().__enter__()
        temporary = self._closing.enter_context(whole_file(self.path))
        # "faststart" puts the index first, so that a page shows the movie early. "bitexact" leaves out versions.
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._file = self._closing.enter_context(av.open(str(temporary), "w", format="mp4", options=options))
        self._stream = self._file.add_stream("libx264", rate=self.rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = self.width, self.height, "yuv420p"
        # With its macroblock tree, x264 165 gave other bytes for the same pictures from call to call (AVX-512).
        settings = {"crf": self.quality, "preset": "veryfast", "threads": "1"}
        self._stream.options = settings | {"flags": "+bitexact", "x264-params": "mbtree=0"}
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, self.rate)
        self._count = 0
        return self

    def __exit__(self, *failure) -> None:
        if failure[0] is None:
            self._file.mux(self._stream.encode())
        self._closing.__exit__(*failure)

    def add(self, picture: av.VideoFrame) -> None:
        frame = picture.reformat(self.width, self.height, "yuv420p", dst_colorspace="ITU709", interpolation="AREA")
        frame.pts, self._count = self._count, self._count + 1
        self._file.mux(self._stream.encode(frame))


class _Pictures:
    """The pictures of the movie: a background, and everything that moves on it."""

    def __init__(self, solver, results: dict, styles: dict, rollouts: dict, member: int, stride: int):
        self.solver, self.results, self.styles, self.rollouts, self.member = solver, results, styles, rollouts, member
        self.layers = layer_names(solver)
        self.std = field_scale(solver).astype(np.float32)
        self.lost = {name: int(result["lost_step"].sel(member=member)) for name, result in results.items()}
        self.time_step = step_size(solver)
        self.units = next(iter(rollouts.values())).time_units
        count, grid = len(styles), next(iter(rollouts.values())).grid
        longer = panel_size(max(grid), PANEL if count < 5 else max(NARROW, (4 * (PANEL + GAP)) // count - GAP))
        self.panel = tuple(round(longer * points / max(grid)) for points in grid)  # height and width
        wide = LEFT + count * (self.panel[1] + GAP) - GAP + RIGHT
        tall = TOP + len(self.layers) * (self.panel[0] + GAP) + BETWEEN + CHART + BELOW
        self.size = (max(wide, 2 * (PANEL + GAP) + LEFT + RIGHT + 300) // 2 * 2, tall // 2 * 2)
        self.left = LEFT + (self.size[0] - wide) // 2  # of the first panel
        self.colours = (255 * matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)
        self.decimals = next(n for n in range(4) if n == 3 or _whole(stride * self.time_step * 10**n))
        # The grid point that each pixel of a panel shows, along y and along x.
        self.pixel_points = [np.arange(p) * points // p for p, points in zip(self.panel, grid, strict=True)]
        self.figure = Figure(figsize=(self.size[0] / DPI, self.size[1] / DPI), dpi=DPI)
        self.canvas = FigureCanvasAgg(self.figure)
        self.moving = []  # artists that change from picture to picture
        self._draw_background()

    # The background

    def _draw_background(self) -> None:
        for column, style in enumerate(self.styles.values()):
            place = self._panel_left(column), TOP - 9
            self._write(*place, style["label"], color=readable(style["color"]), weight="bold", size=12)
        if len(self.layers) > 1:
            for row, layer in enumerate(self.layers):
                middle = self._panel_top(row) + self.panel[0] / 2
                self._write(self.left - 10, middle, layer, ha="right", va="center", rotation=90, weight="bold", size=10)
        self._colour_bar()
        self._charts()
        self.clock = self._write(self.left, 36, "", size=17, weight="bold", moves=True)
        self.place = self._write(self.left, 57, "", size=10, color=MUTED, moves=True)
        self._words_of_panels()
        self.canvas.draw()
        for row in range(len(self.layers)):
            for column in range(len(self.styles)):
                self._pixels()[*self._slot(row, column), :3] = [round(255 * part) for part in to_rgb(PALE)]
        self.background = self.canvas.copy_from_bbox(self.figure.bbox)

    def _words_of_panels(self) -> None:
        """Prepare the words that stand in a panel without a field."""
        self.words, centred = {}, {"ha": "center", "va": "center"}
        for column, name in enumerate(self.styles):
            for row in range(len(self.layers)):
                x, y = self._panel_left(column) + self.panel[1] / 2, self._panel_top(row) + self.panel[0] / 2
                self.words[name, row] = self._write(x, y, "", moves=True, size=13, color=MUTED, **centred)

    def _pixels(self) -> np.ndarray:
        """Return the canvas (H, W, 4), which can be read and written."""
        return np.asarray(self.canvas.buffer_rgba())

    def _slot(self, row: int, column: int) -> tuple[slice, slice]:
        """Return the place of a panel in the canvas."""
        top, left = self._panel_top(row), self._panel_left(column)
        return slice(top, top + self.panel[0]), slice(left, left + self.panel[1])

    def _panel_left(self, column: int) -> int:
        return self.left + column * (self.panel[1] + GAP)

    def _panel_top(self, row: int) -> int:
        return TOP + row * (self.panel[0] + GAP)

    def _write(self, x: float, y: float, text: str, moves: bool = False, **options):
        """Write text at pixels from the upper left corner."""
        written = self.figure.text(x / self.size[0], 1 - y / self.size[1], text, animated=moves, **options)
        if moves:
            self.moving.append(written)
        return written

    def _axes(self, left: float, top: float, wide: float, tall: float):
        width, height = self.size
        return self.figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))

    def _line(self, axis, style: dict):
        (line,) = axis.plot([], [], color=style["color"], linestyle=style["linestyle"], linewidth=1.7, animated=True)
        self.moving.append(line)
        return line

    def _colour_bar(self) -> None:
        wide, name = 150, next(iter(self.rollouts.values())).variable.replace("_", " ")
        left = self._panel_left(len(self.styles)) - GAP - wide - 12
        axis = self._axes(left, 26, wide, 10)
        axis.imshow(np.linspace(0, 1, 256)[None], cmap="RdBu_r", aspect="auto")
        axis.set(yticks=[], xticks=[0, 127.5, 255])
        axis.set_xticklabels([f"−{COLOUR_LIMIT:g} σ", "0", f"+{COLOUR_LIMIT:g} σ"])
        axis.tick_params(length=2, pad=2)
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set(visible=False)
        self._write(left - 28, 36, name, ha="right", color=MUTED, size=10)

    def _charts(self) -> None:
        """Draw the axes below the fields: one spectrum per layer, and the energy of the first layer."""
        count = len(self.layers) + 1
        wide = (self.size[0] - LEFT - RIGHT - AXIS - (count - 1) * BESIDE) / count
        top = self._panel_top(len(self.layers)) + BETWEEN
        axes = [self._axes(LEFT + AXIS + index * (wide + BESIDE), top, wide, CHART) for index in range(count)]
        self.spectra = [self._spectrum(axis, layer) for layer, axis in enumerate(axes[:-1])]
        self._energy(axes[-1])

    def _spectrum(self, axis, layer: int) -> tuple[slice, np.ndarray, dict]:
        """Draw the solver's spectrum; return (shells, their wavenumbers, method -> its line)."""
        ensemble = self.solver["energy_spectrum"].isel(layer=layer).values
        shells = shown_shells(ensemble.mean(0))
        wavenumber, ensemble = self.solver["wavenumber"].values[shells], ensemble[:, shells]
        mean = ensemble.mean(0)
        axis.fill_between(wavenumber, ensemble.min(0), ensemble.max(0), color=REFERENCE, alpha=0.1, linewidth=0)
        axis.plot(wavenumber, mean, **DOTTED, label="solver ensemble")
        axis.set_yscale("log")
        wavenumber_axis(axis, wavenumber)
        axis.set_ylim(mean.min() * ROOM[0], mean.max() * ROOM[1])
        axis.set(xlabel="wavenumber k")
        axis.set_title(f"Energy spectrum{layer_suffix(self.layers, layer)}")
        axis.legend(loc="lower left", borderpad=0.1)
        return shells, wavenumber, {name: self._line(axis, style) for name, style in self.styles.items()}

    def _energy(self, axis) -> None:
        """Draw the axes of the energy with the solver's range, and prepare the lines of the methods."""
        ensemble = self.solver["kinetic_energy"].isel(layer=0).values
        mean = float(ensemble.mean())
        axis.axhspan(ensemble.min() / mean, ensemble.max() / mean, color=REFERENCE, alpha=0.1, linewidth=0)
        axis.axhline(1, **DOTTED)
        last = max(int(result["step"][-1]) for result in self.results.values())
        axis.set(xlim=(0, last * self.time_step), ylim=ENERGIES)
        axis.set_yscale("log")
        axis.set_yticks((0.5, 1, 2), ("0.5", "1", "2"))
        axis.set_yticks([], minor=True)
        axis.set_xlabel(time_label(self.units))
        axis.set_title(f"Kinetic energy / solver's{layer_suffix(self.layers, 0)}")
        self.cursor = axis.axvline(0, color=FAINT, linewidth=1, animated=True)
        self.moving.append(self.cursor)
        self.courses, self.marks = {}, {}
        for name, result in self.results.items():
            steps, lost = result["step"].values, self.lost[name]
            ratio = result["kinetic_energy"].sel(member=self.member).isel(layer=0).values / mean
            before = steps < lost if lost >= 0 else np.full(len(steps), True)
            self.courses[name] = (self._line(axis, self.styles[name]), steps[before], ratio[before])
            if lost >= 0:
                self.marks[name] = self._line(axis, self.styles[name])
                self.marks[name].set(marker="^", markersize=6, clip_on=False, linestyle="none")

    # The pictures

    def draw(self, step: int, system) -> np.ndarray:
        """Return the picture (H, W, 4) at a step: red, green, blue and an opacity that is full everywhere."""
        units = "" if self.units == "1" else f" {self.units}"
        self.clock.set_text(f"t = {step * self.time_step:.{self.decimals}f}{units}")
        self.place.set_text(f"step {step}, member {self.member}")
        fields = {name: self._field(name, step) for name in self.styles}
        self._move_spectra({name: field for name, field in fields.items() if isinstance(field, np.ndarray)}, system)
        self._move_energies(step)
        for (name, _), words in self.words.items():
            words.set_text("" if isinstance(fields[name], np.ndarray) else fields[name])
        self.canvas.restore_region(self.background)
        for column, (name, field) in enumerate(fields.items()):
            if isinstance(field, np.ndarray):
                _, picture = self.rollouts[name].picture(self.member, step)
                for row, colours in enumerate(self._coloured(picture)):
                    self._pixels()[*self._slot(row, column), :3] = colours
        for artist in self.moving:
            self.figure.draw_artist(artist)
        return self._pixels()

    def _coloured(self, picture: np.ndarray) -> np.ndarray:
        """Return the colours (C, panel height, panel width, 3) of a picture (C, H, W), one square per point, y upwards."""
        values = np.nan_to_num(picture / self.std[:, None, None])
        colours = self.colours[np.clip((values / COLOUR_LIMIT + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)]
        rows, columns = self.pixel_points
        return colours[:, rows[::-1][:, None], columns]

    def _move_energies(self, step: int) -> None:
        self.cursor.set_xdata([step * self.time_step] * 2)
        for line, steps, values in self.courses.values():
            count = int(np.searchsorted(steps, step, side="right"))
            line.set_data(steps[:count] * self.time_step, values[:count])
        for name, mark in self.marks.items():
            shown = step >= self.lost[name]
            mark.set_data(*([[self.lost[name] * self.time_step], [ENERGIES[1]]] if shown else ([], [])))

    def _field(self, name: str, step: int) -> np.ndarray | str:
        """Return the frame (C, H, W) of a method, or the reason why there is none."""
        if 0 <= self.lost[name] <= step:
            return f"lost at step {self.lost[name]}"
        stored = self.rollouts[name].frame(self.member, step)
        return stored[1] if stored else f"run for {self.rollouts[name].last_step} steps"

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


def _whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6
