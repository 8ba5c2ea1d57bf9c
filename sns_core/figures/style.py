"""The style that all figures share: colours of the methods, type sizes, axis limits and the writing of files.

The same numbers give the same bytes: no date, no version and no font of the machine is written into a file.

One colour means one method, in all figures, in the movie, in the explorer and in the report. The lines of a figure may
have any contrast; text has a contrast of at least 4.5 against its background (`readable`). Quantities that are no
methods (frames of a pair, splits, samplers) have colours of their own (`OTHER_COLOURS`, `SPLIT_COLOURS`).
"""

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from sns_core.files import whole_file
from sns_core.wording import short

INK, MUTED, FAINT, PALE = "#1b1b1b", "#6a6a6a", "#c9c9c9", "#f1f1ef"
PAPER = "#ffffff"
LIGHT_PAGE, DARK_PAGE = "#fbfaf7", "#1d2024"  # of report and explorer: the backgrounds on which text has least contrast
REFERENCE = "#000000"
# The colour-blind-safe set of Okabe and Ito with its lightest colours last, then wine and olive from Tol's set. Further
# methods get the same colours again with dashed lines.
PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933")
# On dark pages a lighter wine would look like the pink of the fourth method, so it turns to red.
ON_DARK = {"#882255": "#f06a8a"}
# Colours for quantities that are no methods. None of them is in the palette of the methods.
OTHER_COLOURS = ("#1b1b1b", "#6b4fa0", "#8a5a2b", "#5f8b8b", "#b39bd0")
PREVIOUS, NEXT = OTHER_COLOURS[1:3]  # the two frames of a pair: x_{t-1} with level s2, and x_t with level s1
SPLIT_COLOURS = {"train": "#8db6c2", "validation": "#3f8296", "test": "#17404f"}  # of the data: shades of one hue

COLOUR_LIMIT = 3.0  # standard deviations of the solver at both ends of the colour scale of all fields
TEXT_CONTRAST = 4.5  # contrast of text against its background, as WCAG 2 asks for at level AA
MARKERS = "os^D"  # one per layer
DOTTED = {"color": REFERENCE, "linewidth": 1.1, "linestyle": (0, (2, 1.4)), "zorder": 5}  # the solver's ensemble

ON_WHITE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}  # behind text that lines may cross

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: text is the same on every machine
    "font.size": 9.0,
    "text.hinting": "none",  # hinting to whole pixels distorts bold letters at screen sizes
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e1",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "mathtext.fontset": "dejavusans",
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
    "savefig.facecolor": PAPER,
    "figure.facecolor": PAPER,
}


# Colours and labels


def method_styles(labels: dict[str, str]) -> dict[str, dict]:
    """Return the colour, line style and label of each method: grey for the solver, the palette in order for the others.

    `labels`: method -> label, in the order of the configuration. The labels that are returned are safe for matplotlib.
    """
    styles, index = {}, 0
    for name, label in labels.items():
        if name == "solver":
            styles[name] = {"color": MUTED, "linestyle": "-", "label": literal(label)}
            continue
        dashes = "-" if index < len(PALETTE) else (0, (4, 1.5))
        styles[name] = {"color": PALETTE[index % len(PALETTE)], "linestyle": dashes, "label": literal(label)}
        index += 1
    return styles


def literal(text: str) -> str:
    """Return a text that matplotlib writes as it stands: without mathtext, and not hidden from a legend."""
    text = text.replace("$", r"\$")
    # A legend leaves out labels that begin with an underscore. A zero-width space before it is drawn as nothing.
    return f"\u200b{text}" if text.startswith("_") else text


def contrast(colour: str, background: str) -> float:
    """Return the contrast ratio of two colours after WCAG 2, from 1 (equal) to 21 (black on white)."""
    lighter, darker = sorted((_luminance(colour), _luminance(background)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def readable(colour: str, background: str = PAPER) -> str:
    """Return the nearest colour to `colour` that text can have on `background`, darker on light paper, else lighter.

    Its contrast is at least 4.5; a colour with that contrast is returned as it is.
    """
    start, end = np.array(to_rgb(colour)), np.full(3, 0.0 if _luminance(background) > 0.4 else 1.0)
    for share in np.linspace(0, 1, 51):
        mixed = to_hex((1 - share) * start + share * end)
        if contrast(mixed, background) >= TEXT_CONTRAST:
            return mixed
    return to_hex(end)


def css_colours(colour: str) -> str:
    """Return a method's colour as CSS variables: for lines and for text on light pages, and for both on dark pages."""
    text, dark = readable(colour, LIGHT_PAGE), ON_DARK.get(colour, readable(colour, DARK_PAGE))
    return f"--method-line: {colour}; --method-text: {text}; --method-dark: {dark}"


# Pages


@contextlib.contextmanager
def shared_style() -> Iterator[None]:
    """Use the shared settings in this block instead of the user's own settings of matplotlib."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@contextlib.contextmanager
def page(output: Path, dpi: int, width: float, height: float, **options) -> Iterator[Figure]:
    """Yield a figure of `width` x `height` inches in the shared style; save it as `output` (PNG) and as PDF."""
    output = Path(output)
    with shared_style():
        figure = Figure(figsize=(width, height), dpi=dpi, **options)
        if options.get("layout") == "constrained":
            figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        yield figure
        _fix_layout(figure)
        without_dates = {"CreationDate": None, "Creator": None, "Producer": None}
        for path, canvas, kind, metadata in (
            (output, FigureCanvasAgg, "png", {"Software": None}),
            (output.with_suffix(".pdf"), FigureCanvasPdf, "pdf", without_dates),
        ):
            with whole_file(path) as temporary:
                # `savefig` would draw all twice, the first time only for a layout, which is fixed here already.
                getattr(canvas(figure), f"print_{kind}")(temporary, metadata=metadata)


def _fix_layout(figure: Figure) -> None:
    """Lay out a figure once for all its files, with places that are the same in every call.

    The solver of the constrained layout gives places whose last bits differ from call to call, and the PDF shows them. A
    millionth of the page is less than a pixel.
    """
    engine = figure.get_layout_engine()
    if engine is None:
        return
    engine.execute(figure)
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        part.bbox_relative.set_points(np.round(part.bbox_relative.get_points(), 6))
    for axis in figure.axes:
        axis.set_position(np.round(axis.get_position(original=True).bounds, 6), which="original")


# Words


def unit(units: str, name: str = "") -> str:
    """Return units in brackets for an axis label; `name` in their place, or nothing, for numbers without units."""
    if units in ("", "1", "1/(1)"):
        return f" ({name})" if name else ""
    return f" ({units})"


def time_label(units: str) -> str:
    return "time" + unit(units, "time units")


def wrapped(label: str, width: int = 17) -> str:
    """Return a label in lines that fit into a narrow panel."""
    lines = textwrap.wrap(label.replace(r"\$", "$"), width)
    return "\n".join(line.replace("$", r"\$") for line in lines) or label


# Axes


def clip(axis: Axes, low: float, high: float, values=(), note: str = "beyond the axis") -> None:
    """Set the limits of y; write into a corner how far `values` reach if they reach beyond."""
    axis.set_ylim(low, high)
    drawn = [np.asarray(v, dtype=float).ravel() for v in values]
    finite = np.concatenate(drawn) if drawn else np.zeros(0)
    finite = finite[np.isfinite(finite)]
    if len(finite) and finite.max() > high:
        corner(axis, f"↑ up to {short(finite.max())}, {note}", "upper right", box=True)


def corner(axis: Axes, text: str, where: str, color: str = MUTED, size: float = 7.5, line: int = 0, box=False) -> None:
    """Write small text into a corner of the axes, `line` lines away from it; `box`: on a white background."""
    top, right = "upper" in where, "right" in where
    shift = (4 + line * (size + 2.5)) * (-1 if top else 1)
    axis.annotate(
        text,
        (1 if right else 0, 1 if top else 0),
        xycoords="axes fraction",
        textcoords="offset points",
        xytext=(-4 if right else 4, shift),
        color=readable(color),
        fontsize=size,
        ha="right" if right else "left",
        va="top" if top else "bottom",
        zorder=6,
        bbox=ON_WHITE if box else None,
    )


def note_at(axis: Axes, text: str, point, shift, coordinates="data", color: str = MUTED, **options) -> None:
    """Write small text `shift` points away from a point; `coordinates` as in matplotlib's `annotate`."""
    settings = {"fontsize": 7.5} | options
    axis.annotate(text, point, shift, coordinates, "offset points", color=readable(color), **settings)


def numbered(axis: Axes, points: list[tuple[float, float]], words: list[str], colours: list[str], size=7.0) -> None:
    """Write words to the right of points so that no two of them overlap; call with limits and scales of the axes set.

    Words that would cover each other move up or down in their column, and a thin line leads to their point.
    """
    figure = axis.get_figure(root=True)
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    pixels = axis.transData.transform(np.asarray(points, dtype=float).reshape(-1, 2))
    height = (size + 1.5) * scale
    heights = _apart(pixels, height, 0.62 * size * scale * np.array([len(word) for word in words]) + 8 * scale)
    for point, place, y, word, colour in zip(points, pixels, heights, words, colours, strict=True):
        moved = (y - place[1]) / scale
        line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
        written = axis.annotate(
            word,
            point,
            (6, moved),
            textcoords="offset points",
            va="center",
            color=readable(colour),
            fontsize=size,
            zorder=6,
            arrowprops=line if abs(moved) > 0.6 * size else None,
        )
        written.set_in_layout(False)


def _apart(places: np.ndarray, height: float, widths: np.ndarray) -> np.ndarray:
    """Return heights (n,) near those of `places` (n, 2) at which boxes of these sizes do not overlap."""
    heights = np.full(len(places), np.nan)
    for index in np.argsort(places[:, 1], kind="stable"):
        shifts = places[:, 0] - places[index, 0]
        beside = heights[np.isfinite(heights) & (-widths < shifts) & (shifts < widths[index])]
        y = places[index, 1]
        while (hit := beside[np.abs(beside - y) < height - 1e-6]).size:
            y = hit.min() + height
        heights[index] = y
    return heights


def outer_legend(figure, handles: list, loc: str, most: int, **options) -> None:
    """Put a legend outside the panels of a figure, in `most` columns or in as many as its width holds."""
    for columns in range(min(len(handles), most), 0, -1):
        legend = figure.legend(handles=handles, loc=loc, ncols=columns, **options)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def panel_letter(axis: Axes, letter: str, title: str) -> None:
    """Set the title of a panel with its letter before it."""
    axis.set_title(f"{letter}   {title}")


def empty_panel(axis: Axes, text: str) -> None:
    """Grey out a panel that has nothing to show, and write why."""
    axis.set_facecolor(PALE)
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=MUTED, fontsize=8.5)


def ratio_ticks(axis: Axes) -> None:
    """Set plain labels for a logarithmic axis of ratios; call with the limits set."""
    low, high = axis.get_ylim()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= t <= high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    plain_minor(axis)


def bare(axis: Axes) -> None:
    """Remove ticks and grid, for fields."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=FAINT, linewidth=0.6)


def integers(axis: Axes, which: str) -> None:
    """Set ticks at whole numbers on an axis of counts; `which`: "x" or "y"."""
    (axis.xaxis if which == "x" else axis.yaxis).set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=2))


def plain_minor(axis: Axes) -> None:
    """Remove the labels of minor ticks, which crowd the logarithmic axes of small panels."""
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_minor_formatter(NullFormatter())


def wavenumber_axis(axis: Axes, wavenumber: np.ndarray) -> None:
    """Make x a logarithmic axis of the wavenumbers (K,) of the shells shown, with few labels."""
    axis.set_xscale("log")
    first, last = wavenumber[0], wavenumber[-1]
    whole = first == round(first)
    factors = (1, 2, 4, 8, 16, 32, 64, 128, 256) if whole else (1, 4, 16, 64)
    ticks = [first * factor for factor in factors if first * factor <= last]
    axis.set_xlim(first * 0.9, last * 1.1)
    axis.set_xticks(ticks, [f"{tick:g}" if whole else short(tick) for tick in ticks])
    plain_minor(axis)
    axis.tick_params(axis="x", which="minor", length=0)


def colour_bar_outline(bar) -> None:
    """Give a colour bar a thin outline and no grid."""
    bar.ax.grid(False)
    bar.outline.set_linewidth(0.5)
