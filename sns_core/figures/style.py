"""The look that all figures share: colours by method, type sizes, axis limits, saving.

Every file comes out the same byte for byte from the same numbers: no date, no version and no font of the machine is
written into it.
"""

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from sns_core.files import whole_file

INK, MUTED, FAINT, PALE = "#1b1b1b", "#6f6f6f", "#c9c9c9", "#f1f1ef"
REFERENCE = "#000000"
# The colour-blind-safe set of Okabe and Ito, its lightest members last, then wine and olive of Tol's; past its end the same
# again, dashed.
PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933")
PREVIOUS, NEXT = "#7b5ea7", "#c8553d"  # the two frames of a pair: s2 of x_{t-1}, s1 of x_t

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so text is the same on every machine
    "font.size": 9.0,
    "text.hinting": "none",  # hinted to whole pixels, bold letters lose their shape at screen sizes
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
    "savefig.facecolor": "white",
    "figure.facecolor": "white",
}


def looks(labels: dict[str, str]) -> dict[str, dict]:
    """Colour, line style and label of each method: the solver grey, the others by their order."""
    others = [name for name in labels if name != "solver"]
    found = {"solver": {"color": MUTED, "linestyle": "-", "label": labels.get("solver", "Solver")}}
    for index, name in enumerate(others):
        dashes = "-" if index < len(PALETTE) else (0, (4, 1.5))
        found[name] = {"color": PALETTE[index % len(PALETTE)], "linestyle": dashes, "label": labels[name]}
    return {name: found[name] for name in labels}


@contextlib.contextmanager
def shared_style() -> Iterator[None]:
    """The shared settings in this block, and not the user's own."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@contextlib.contextmanager
def page(output: Path, dpi: int, width: float, height: float, **options) -> Iterator[Figure]:
    """A figure of `width` x `height` inches in the shared style, saved as `output` (PNG) and beside it as PDF."""
    output = Path(output)
    with shared_style():
        figure = Figure(figsize=(width, height), **options)
        if options.get("layout") == "constrained":
            figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        yield figure
        nothing = {"CreationDate": None, "Creator": None, "Producer": None}
        for path, kind, metadata in (
            (output, "png", {"Software": None}),
            (output.with_suffix(".pdf"), "pdf", nothing),
        ):
            with whole_file(path) as temporary:
                # The format stands here because the temporary's name ends otherwise.
                figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata)
            figure.set_layout_engine("none")  # the page is laid out once: both files show the same


def unit(units: str, name: str = "") -> str:
    """Units in brackets for an axis label; nothing for numbers without units."""
    if units in ("", "1", "1/(1)"):
        return f" ({name})" if name else ""
    return f" ({units})"


def time_label(units: str) -> str:
    return "time" + unit(units, "time units")


def clip(axis: Axes, low: float, high: float, values=(), note: str = "beyond the axis") -> None:
    """Set the limits of y, and say so where `values` lie outside them."""
    axis.set_ylim(low, high)
    drawn = [np.asarray(v, dtype=float).ravel() for v in values]
    finite = np.concatenate(drawn) if drawn else np.zeros(0)
    finite = finite[np.isfinite(finite)]
    if len(finite) and finite.max() > high:
        corner(axis, f"↑ up to {short(finite.max())}, {note}", "upper right", box=True)


def short(value: float) -> str:
    """A number in two digits: 0.21, 17, 3×10⁷."""
    if not np.isfinite(value):
        return "∞" if value > 0 else "NaN"
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        exponent = int(np.floor(np.log10(abs(value))))
        power = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        lead = f"{value / 10.0**exponent:.0f}"
        return f"10{power}" if lead == "1" else f"{lead}×10{power}"
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


def corner(axis: Axes, text: str, where: str, color: str = MUTED, size: float = 7.5, line: int = 0, box=False) -> None:
    """Small text in a corner of the axes, `line` lines away from it; `box`: on white, where it may cross lines."""
    top, right = "upper" in where, "right" in where
    axis.annotate(
        text, (1 if right else 0, 1 if top else 0), xycoords="axes fraction", textcoords="offset points",
        xytext=(-4 if right else 4, (-4 if top else 4) + (-1 if top else 1) * line * (size + 2.5)), color=color,
        fontsize=size, ha="right" if right else "left", va="top" if top else "bottom", zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1} if box else None,
    )  # fmt: skip


def wrapped(label: str, width: int = 17) -> str:
    """A label in lines that fit a narrow panel."""
    return "\n".join(textwrap.wrap(label, width)) or label


def panel_letter(axis: Axes, letter: str, title: str) -> None:
    """The title of a panel, its letter first."""
    axis.set_title(f"{letter}   {title}")


def empty_panel(axis: Axes, text: str) -> None:
    """A panel that has nothing to show, and says why."""
    axis.set_facecolor(PALE)
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=MUTED, fontsize=8.5)


def ratio_ticks(axis: Axes) -> None:
    """Plain labels for a logarithmic axis of ratios; call with the limits set."""
    low, high = axis.get_ylim()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= t <= high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    plain_minor(axis)


def bare(axis: Axes) -> None:
    """No ticks and no grid: for fields."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=FAINT, linewidth=0.6)


def integers(axis: Axes, which: str) -> None:
    """Whole numbers on an axis that counts."""
    (axis.xaxis if which == "x" else axis.yaxis).set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=2))


def plain_minor(axis: Axes) -> None:
    """No labels on the minor ticks of logarithmic axes, which crowd small panels."""
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_minor_formatter(NullFormatter())


def wavenumber_axis(axis: Axes, wavenumber: np.ndarray) -> None:
    """A logarithmic axis of the wavenumbers of the shells shown, with its own few labels."""
    axis.set_xscale("log")
    first, last = wavenumber[0], wavenumber[-1]
    whole = first == round(first)
    factors = (1, 2, 4, 8, 16, 32, 64, 128, 256) if whole else (1, 4, 16, 64)
    ticks = [first * factor for factor in factors if first * factor <= last]
    axis.set_xlim(first * 0.9, last * 1.1)
    axis.set_xticks(ticks, [f"{tick:g}" if whole else short(tick) for tick in ticks])
    plain_minor(axis)
    axis.tick_params(axis="x", which="minor", length=0)
