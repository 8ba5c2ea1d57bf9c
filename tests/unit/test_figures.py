"""Figures and report from synthetic results, which include an exploded member, a NaN member and a short generation run."""

import base64
import hashlib
import html
import io
import itertools
import json
import math
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import av
import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from docutils.core import publish_doctree
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.path import Path as Curve
from PIL import Image

from sns_core.data.frames import FORMAT as FRAMES
from sns_core.errors import UserError
from sns_core.figures import style as shared
from sns_core.figures.ablation import _scores, best, early_frames, plot_ablation
from sns_core.figures.condition_error import plot_condition_error
from sns_core.figures.cost import _solvers, plot_cost
from sns_core.figures.distributions import density, plot_distributions
from sns_core.figures.error import plot_error
from sns_core.figures.fields import frame_at, plot_fields
from sns_core.figures.inputs import in_shown_units, living, lost_note, read, thirds
from sns_core.figures.levels import _alarm, _along_surrogate, _clean_pairs, _energy, _histogram, plot_levels
from sns_core.figures.phase_space import plot_phase_space
from sns_core.figures.scorecard import plot_scorecard
from sns_core.figures.spectra import plot_spectra
from sns_core.figures.spin_up import _drifts_of, _layer, plot_spin_up
from sns_core.figures.style import (
    DARK_PAGE,
    LIGHT_PAGE,
    MUTED,
    OTHER_COLOURS,
    PALETTE,
    SPLIT_COLOURS,
    contrast,
    method_styles,
    readable,
    wrapped,
)
from sns_core.figures.temporal import plot_temporal
from sns_core.figures.zonal import plot_zonal
from sns_core.metrics.cost import read_cost
from sns_core.metrics.distances import CENTRES
from sns_core.metrics.floor_table import COLUMNS
from sns_core.metrics.scorecard import SCORES
from sns_core.record import record_provenance
from sns_core.report import headline, judge, price_words, scorecard, tabulate_prices, write_report
from sns_core.wording import digits, interval, short

CAPTIONS = Path(__file__).parents[2] / "workflow" / "report"
FIGURES = (
    "fields", "phase_space", "condition_error", "temporal", "ablation", "levels", "error", "spectra", "zonal", "spin_up", "distributions",
    "scorecard", "cost",
)  # fmt: skip
LABELS = {
    "solver": "Solver", "pointwise": "Pointwise", "published": "SNS <published> & co", "coloured": "SNS coloured",
    "generation": "SNS generation",
}  # fmt: skip
SURROGATES = {"published": "pointwise", "coloured": "pointwise"}


class Synthetic:
    """Result files in the shapes and names that the stages write, with behaviour chosen here.

    `published` loses member 0 to 1e20 and member 1 to NaN; `pointwise` drifts; `generation` ends after a fifth.
    """

    def __init__(
        self, folder: Path, steps=40, members=3, block=5, size=8, stride=2, lags=6, step=0.1, layers=("flow",)
    ):
        self.folder, self.steps, self.members, self.block, self.size = folder, steps, members, block, size
        self.stride, self.lags, self.step, self.layers = stride, lags, step, list(layers)
        self.random = np.random.default_rng(0)
        self.wavenumber = np.arange(size // 2 + 3).astype(float)
        self.truth = 2.0 * np.exp(-0.35 * self.wavenumber) * (self.wavenumber > 0) + 1e-7
        self.lag = np.arange(lags + 1) * step
        self.map_lag = np.arange(5) * step * stride
        self.distance = np.arange(size // 2 + 1) * 2 * math.pi / size
        folder.mkdir(parents=True, exist_ok=True)
        self.reference = self._reference()
        self.segments, self.metrics, self.diagnostics = {}, {}, {}
        for name in LABELS:
            self._method(name)
        self.windows, self.table = folder / "windows.csv", folder / "metrics.csv"
        self._tables()
        self.scorecard, self.cost, self.floors = self._scorecard(), self._cost(), folder / "floors.csv"
        rows = [{"members": 3, "steps": steps, "reason": "3 members of 8 steps need a larger ensemble"}]
        pd.DataFrame(rows, columns=COLUMNS).to_csv(self.floors, index=False)
        for name in SURROGATES:
            self._diagnostics(name)
        self.trajectories = {split: self._trajectory(split) for split in ("train", "test")}

    def length(self, name):
        return self.steps // self.block // 5 * self.block if name == "generation" else self.steps

    def growth(self, name, step):
        """Return the amplitude of the field relative to the solver's."""
        speed = {"pointwise": 3.0, "published": 0.6, "generation": -0.5}.get(name, 0.0)
        return np.exp(speed * (np.asarray(step) / self.steps) ** 2)

    def lost(self, name):
        lost = np.full(self.members, -1)
        if name == "published":
            lost[:2] = self.steps // 2 + 1, self.steps // 4 * 3
        return lost

    def field(self, count):
        shape = (self.members, count, len(self.layers), self.size, self.size)
        x = np.arange(self.size) * 2 * math.pi / self.size
        drift = np.arange(count)[:, None, None, None] * 0.2
        phase = self.random.uniform(0, 6, (self.members, 1, 1, 1, 1))
        waves = np.sin(2 * x[None, :] + 1.5 * np.sin(x)[:, None] + drift + phase) + np.cos(3 * x[:, None] - drift)
        return (3.0 * waves + self.random.normal(0, 0.5, shape)).astype("f4")

    def _reference(self):
        spread = self.random.normal(1, 0.04, (self.members, len(self.layers), 1))
        distance, lag = self.distance, self.map_lag
        values = {
            "energy_spectrum": (("member", "layer", "wavenumber"), spread * self.truth),
            "kinetic_energy": (("member", "layer"), 0.9 * spread[..., 0]),
            "enstrophy": (("member", "layer"), 9.0 * spread[..., 0]),
            "rate_of_change": (("member",), 2.0 * spread[:, 0, 0]),
            "relative_change": (("member",), 0.17 * spread[:, 0, 0]),
            "correlation": (("member", "lag"), np.exp(-self.lag)[None] ** spread[:, 0]),
            "vorticity_counts": (("member", "layer", "bin"), self.counts(spread)),
            "velocity_counts": (("member", "layer", "bin"), self.counts(spread)),
            "gradient_counts": (("member", "layer", "bin"), self.counts(spread)),
            "map": (
                ("member", "map_lag", "distance"),
                spread[:, :1] * (np.exp(-lag)[:, None] * np.cos(2 * distance))[None],
            ),
        }
        flow = spread * np.sin(np.arange(self.size) * 0.5)
        values["zonal_velocity"] = (("member", "layer", "y"), flow)
        values["zonal_velocity_square"] = (("member", "layer", "y"), flow**2 + 0.1)
        path = self.folder / "reference.nc"
        xr.Dataset(values, {
            "layer": self.layers, "wavenumber": self.wavenumber, "lag": self.lag, "map_lag": lag, "distance": distance,
            "y": np.arange(self.size) * 0.5, "bin": CENTRES,
        }).to_netcdf(path)  # fmt: skip
        return path

    @staticmethod
    def counts(spread):
        """Return histograms of normal values, one per row of `spread` (..., 1)."""
        return np.rint(1e6 * np.exp(-(CENTRES**2) / 2) * spread).astype("i8")

    def _trajectory(self, split):
        """Write a trajectory whose energy grows from noise and saturates, in the unit of a system with dimensions."""
        clock = np.arange(1, 61) * 86400.0
        energy = 0.9 * (1 - np.exp(-clock / 6e5))[None, :, None] * np.ones((self.members, 1, len(self.layers)))
        path = self.folder / f"{split}.nc"
        time = ("time", np.arange(20) * 86400.0, {"units": "s"})
        clock = ("clock", clock, {"units": "s"})
        fields = {"kinetic_energy": (("member", "clock", "layer"), energy, {"units": "m2 s-2"})}
        coordinates = {"layer": self.layers, "clock": clock, "time": time}
        xr.Dataset(fields, coordinates, {"format": FRAMES}).to_netcdf(path)
        return [str(path)]

    def _method(self, name):
        steps, random = self.length(name), self.random
        step, block = np.arange(1, steps + 1), np.arange(self.block, steps + 1, self.block)
        lost = self.lost(name)
        noise = random.normal(1, 0.05, (self.members, steps, 1)) * np.ones((1, 1, len(self.layers)))
        amplitude = self.growth(name, step)[None, :, None] ** random.uniform(0.7, 1.3, (self.members, 1, 1))
        energy = 0.9 * amplitude**2 * noise
        spectrum = self.truth * self.growth(name, block)[None, :, None, None] ** 2
        spectrum = spectrum * random.normal(1, 0.05, (self.members, len(block), len(self.layers), 1))
        levels = np.maximum(0, random.normal(1.0, 2.0, (self.members, steps, 2))).astype(int)
        if name not in SURROGATES:
            levels[:] = (12, 20) if name == "generation" else 0
        time = np.arange(0, steps + 1, self.stride)
        field = self.field(len(time)) * self.growth(name, time)[None, :, None, None, None].astype("f4")
        mse = 2 * (1 - np.exp(-np.linspace(0, 8, len(time)))) * random.uniform(0.7, 1.3, (self.members, 1))
        series = {
            "kinetic_energy": energy, "enstrophy": 10 * energy, "rate_of_change": 2.0 * noise[..., 0],
            "relative_change": 0.17 * noise[..., 0], "max_abs": 4 * noise[..., 0],
        }  # fmt: skip
        for member, (at, value) in enumerate(zip(lost, (1e20, np.nan, 0.0), strict=False)):
            if at >= 0:
                for values in series.values():
                    values[member, at - 1 :] = value
                field[member, time >= at] = value
                spectrum[member, block >= at] = value
                mse[member, time >= at] = value
        if name == "solver":
            mse[:] = 0
        correlation = np.exp(-self.lag)[None, None] * np.ones((self.members, len(block), 1))
        layered = ("member", "step", "layer")
        statistics = {
            **{key: (layered[: v.ndim], v) for key, v in series.items()},
            "levels": (("member", "step", "frame"), levels), "calls": (("member", "step"), levels.sum(-1)),
            "energy_spectrum": (("member", "block", "layer", "wavenumber"), spectrum),
            "vorticity_counts": (("member", "block", "layer", "bin"), self.counts(np.ones((*spectrum.shape[:3], 1)))),
            "velocity_counts": (("member", "block", "layer", "bin"), self.counts(np.ones((*spectrum.shape[:3], 1)))),
            "gradient_counts": (("member", "block", "layer", "bin"), self.counts(np.ones((*spectrum.shape[:3], 1)))),
            "correlation": (("member", "block", "lag"), correlation), "lost_step": (("member",), lost),
        }  # fmt: skip
        coordinates = {
            "member": np.arange(self.members), "layer": self.layers, "step": step, "block": block,
            "wavenumber": self.wavenumber, "lag": self.lag, "time": time * self.step, "bin": CENTRES,
        }  # fmt: skip
        provenance = {"wall_seconds": 1.5, "code": {"commit": "abc", "dirty": False}, "device": "cpu"}
        self.segments[name] = []
        half = steps // 2 // self.block * self.block or steps
        for index, (start, stop) in enumerate(((0, half), (half, steps))):
            if start < stop:
                inside = (time > start if index else time >= 0) & (time <= stop)
                segment = xr.Dataset(
                    {"vorticity": (("member", "time", "layer", "y", "x"), field[:, inside])},
                    {"time": ("time", time[inside] * self.step, {"units": "1"}), "member": np.arange(self.members)},
                    {"first_step": start, "steps": stop - start, "provenance": json.dumps(provenance)},
                )
                self.segments[name].append(str(self.folder / f"{name}_{index}.nc"))
                segment.to_netcdf(self.segments[name][-1])
        maps = np.exp(-self.map_lag)[:, None] * np.cos(2 * self.distance)[None]
        result = xr.Dataset(statistics, coordinates, {"method": name, "seconds_per_step": 0.01})
        result = result.assign(
            mse=(("member", "time"), mse), map_early=(("map_lag", "distance"), maps),
            map_late=(("map_lag", "distance"), maps if name != "published" else np.full_like(maps, np.nan)),
            zonal_velocity=(("member", "time", "layer", "y"), field.mean(-1)),
        )  # fmt: skip
        by_block = (
            result["zonal_velocity"].isel(time=slice(1, None)).groupby_bins("time", [0, *(block * self.step + 1e-6)])
        )
        for key, values in {
            "zonal_profile": by_block.mean(),
            "zonal_square": by_block.map(lambda part: (part**2).mean("time")),
        }.items():
            values = values.rename(time_bins="block").transpose("member", "block", "layer", "y")
            result[key] = ("member", "block", "layer", "y"), values.values
        self.metrics[name] = str(self.folder / f"{name}.nc")
        result.assign_coords(map_lag=self.map_lag, distance=self.distance).to_netcdf(self.metrics[name])

    def _tables(self):
        rows, windows = [], []
        for name in LABELS:
            steps, lost = self.length(name), self.lost(name)
            for member in range(self.members):
                bad = np.nan if lost[member] >= 0 else 1.0
                rows += [{
                    "system": "kolmogorov", "method": name, "member": member, "layer": layer, "steps": steps,
                    "lost_step": lost[member],
                    "calls_per_step": 0.25, "seconds_per_step": 0.02, "decorrelation_time": 0.7,
                    "decorrelation_time_late": bad,
                    "rate_of_change": 2.0 * bad, "relative_change": 0.17 * bad, "level_prev": 1.0, "level_next": 1.0,
                    "member_spectrum_error": 0.05 * bad, "member_spectrum_error_late": 0.06 * bad,
                    "kinetic_energy": 0.95 * bad, "kinetic_energy_solver": 0.9, "enstrophy": 9.5 * bad,
                    "enstrophy_solver": 9.0,
                } for layer in self.layers]  # fmt: skip
            width = min(2 * self.block, steps)
            for start in range(0, steps - width + 1, width):
                for layer in self.layers:
                    gone = int(((lost >= 0) & (lost <= start + width)).sum())
                    error = np.inf if gone else 0.03 + abs(math.log10(self.growth(name, start + width) ** 2))
                    windows.append({
                        "method": name, "first_step": start + 1, "last_step": start + width, "layer": layer,
                        "window_spectrum_error": error, "window_spectrum_error_low": 0.8 * error,
                        "window_spectrum_error_high": 1.3 * error, "floor_low": 0.01, "floor_high": 0.03, "inside": error <= 0.03,
                        "kinetic_energy": 1e40 if gone else 0.9, "kinetic_energy_solver": 0.9,
                        "enstrophy": 9.0, "enstrophy_solver": 9.0, "relative_change": 0.17,
                        "relative_change_solver": 0.17,
                        "calls_per_step": 0.25, "members_lost": gone,
                    })  # fmt: skip
        pd.DataFrame(rows).to_csv(self.table, index=False)
        pd.DataFrame(windows).to_csv(self.windows, index=False)

    def _scorecard(self):
        """One value per method, score, layer and lead. `published` lies beyond every axis; `generation` has no forecasts."""
        rows = []
        for index, name in enumerate(LABELS):
            for score, (_, _, ideal) in SCORES.items():
                forecast = score in ("crps", "spread_skill")
                if forecast and name == "generation":
                    continue
                layered = ("spectrum_error", "worst_window_spectrum_error", "kinetic_energy")
                layers = self.layers if forecast or score in layered else [""]
                for place, (layer, lead) in enumerate((a, b) for a in layers for b in ((1, 5) if forecast else ("",))):
                    value = (0.02 if ideal == 0 else 1.0) * (1 + index + 0.1 * place)
                    value = {"published": 1e9, "pointwise": math.nan if score == "zonal_error" else value}.get(
                        name, value
                    )
                    shown = np.isfinite(value) and name != "published"
                    rows.append({
                        "system": "kolmogorov", "method": name, "score": score, "layer": layer, "lead": lead, "value": value,
                        "low": 0.8 * value if shown else math.nan, "high": 1.3 * value if shown else math.nan,
                        "floor_low": math.nan if ideal is None else 0.0 if ideal == 0 else 0.9,
                        "floor_high": math.nan if ideal is None else 0.03 if ideal == 0 else 1.1,
                        "inside": "" if ideal is None else value <= (0.03 if ideal == 0 else 1.1),
                        "ideal": ideal, "units": "1", "members_lost": int((self.lost(name) >= 0).sum()),
                        "members": self.members, "counted": 1.0,
                    })  # fmt: skip
        path = self.folder / "scorecard.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    def _cost(self):
        """`coloured` gains after a step and loses in the spectrum; `published` loses members, `generation` has no forecasts."""
        rows = []
        for index, name in enumerate((*LABELS, "32", "64", "512")):
            grid, lost = name.isdigit(), name == "published"
            for score, lead in (("crps", 1), ("crps", 5), ("spectrum_error", "")):
                compared = not grid and name != "solver"
                gains = name == "coloured" and score == "crps"
                error = math.nan if name == "512" or (name, score) == ("generation", "crps") else 0.01 * (8 - index)
                rows.append({
                    "system": "kolmogorov", "contender": name, "kind": "grid" if grid else "method", "members": self.members,
                    "grid": int(name) if grid else 64 if name == "solver" else "",
                    "points": f"{name}²" if grid else "64²" if name == "solver" else "", "dt": 0.025 if grid else "",
                    "seconds": 0.1 * (1 + index), "seconds_low": 0.09 * (1 + index), "seconds_high": 0.2 * (1 + index),
                    "calls": 20.0, "memory_mb": 300.0, "joules": 1.5 if name == "coloured" else "", "score": score, "lead": lead,
                    "error": error, "error_low": 0.9 * error, "error_high": 1.2 * error,
                    "floor": 0.03 if score == "spectrum_error" else 0.0,
                    "members_lost": 2 * (lost and score == "spectrum_error"), "solver_seconds": 0.5 if compared else "",
                    "at_most": lost, "speed_up": (2.0 if gains else 0.25) if compared else "",
                    "beaten_by": "" if gains or not compared else "32",
                    "verdict": ("gains" if gains else "lost" if lost and not lead else "loses") if compared else "",
                    "speed_up_configured": 1 / (1 + index), "preparation": 100.0 if compared else 0.0,
                    "break_even": (400.0 if gains else math.inf) if compared else "", "break_even_configured": math.inf,
                    "time_units": "1", "machine": "a machine, 1 thread",
                })  # fmt: skip
        path = self.folder / "cost.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    def _diagnostics(self, name):
        level, pairs, random = np.linspace(0, 20, 6).round().astype(int), 12, self.random
        time = np.arange(0, self.steps + 1, self.stride)
        rise = (6 * (time / self.steps) ** 3)[:, None, None] * np.ones((1, self.members, 2))
        examples = self.field(5)[0]
        values = {
            "condition_error": (("level", "pair"), 0.2 + 0.02 * level[:, None] + random.normal(0, 0.03, (6, pairs))),
            "example_level": (("example",), level[[0, 1, 3, 4, 5]]),
            "example_condition": (("example", "layer", "y", "x"), examples / 3),
            "example_estimate": (("example", "layer", "y", "x"), examples / 3),
            "example_truth": (("layer", "y", "x"), examples[0] / 3),
            "estimated_level": (
                ("level", "pair", "frame"),
                level[:, None, None] + random.integers(-2, 3, (6, pairs, 2)),
            ),
            "level_of_true_pair": (("pair", "frame"), random.integers(0, 3, (pairs, 2))),
            "level_of_surrogate": (("pair", "frame"), random.integers(0, 6, (pairs, 2))),
            "rollout_level": (
                ("rollout_step", "member", "frame"),
                (rise + random.uniform(0, 2, rise.shape)).astype(int),
            ),
            "rollout_step": (("rollout_step",), time),
            "amplitude_alarm": (("member",), np.arange(self.members) * 4 - 1),
            "energy_alarm": (("member",), np.full(self.members, -1)),
        }
        self.diagnostics[name] = str(self.folder / f"{name}_diagnostics.nc")
        xr.Dataset(values, {"level": level}, {"method": name, "levels": 20}).to_netcdf(self.diagnostics[name])


def draw(source: Synthetic, folder: Path, names=FIGURES) -> dict[str, Path]:
    """Draw the figures of a set of results, and return name -> PNG."""
    results = {"metrics": source.metrics, "reference": source.reference}
    special = {
        "fields": lambda **a: plot_fields(
            segments=source.segments, steps=[0, 8, source.steps], member=0, **results, **a
        ),
        "condition_error": lambda **a: plot_condition_error(diagnostics=source.diagnostics, **a),
        "temporal": lambda **a: plot_temporal(**results, **a),
        "levels": lambda **a: plot_levels(diagnostics=source.diagnostics, surrogates=SURROGATES, **results, **a),
        "error": lambda **a: plot_error(**results, **a),
        "distributions": lambda **a: plot_distributions(**results, **a),
        "spectra": lambda **a: plot_spectra(windows=source.windows, shells=[1, 4], **results, **a),
        "phase_space": lambda labels, **a: plot_phase_space(**a),
        "ablation": lambda **a: plot_ablation(tables=source.table, **results, **a),
        "zonal": lambda **a: plot_zonal(member=0, window=10, **results, **a),
        "scorecard": lambda **a: plot_scorecard(table=source.scorecard, **a),
        "cost": lambda **a: plot_cost(table=source.cost, **a),
        "spin_up": lambda labels, **a: plot_spin_up(trajectories=source.trajectories, **a),
    }
    output = {name: folder / f"{name}.png" for name in names}
    for name, path in output.items():
        special[name](labels=LABELS, dpi=40, output=path)
    return output


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Synthetic(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def drawn(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return draw(source, folder)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_a_picture_and_a_page(drawn, name):
    image = pixels(drawn[name])
    assert min(image.shape[:2]) > 100
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    ink = (image < 250).any(-1)
    # The picture fills the page: it reaches into every ninth of it, except for the corners of the fields' columns.
    thirds = [part for row in np.array_split(ink, 3) for part in np.array_split(row, 3, axis=1)]
    assert sum(part.mean() > 0.01 for part in thirds) >= 7
    page = drawn[name].with_suffix(".pdf").read_bytes()
    assert page.startswith(b"%PDF") and len(page) > 5000
    assert b"CreationDate" not in page and b"Matplotlib" not in page


@pytest.mark.slow
def test_figures_are_the_same_byte_for_byte(source, drawn, tmp_path):
    repeated = draw(source, tmp_path)
    for name, path in drawn.items():
        assert path.read_bytes() == repeated[name].read_bytes(), name
        assert path.with_suffix(".pdf").read_bytes() == repeated[name].with_suffix(".pdf").read_bytes(), name
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{n}.{k}" for n in FIGURES for k in ("png", "pdf"))


def test_the_user_s_own_settings_change_nothing(source, drawn, tmp_path):
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        plot_temporal(metrics=source.metrics, reference=source.reference, labels=LABELS, dpi=40,
                      output=tmp_path / "temporal.png")  # fmt: skip
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "temporal.png").read_bytes() == drawn["temporal"].read_bytes()


@pytest.mark.slow
def test_layers_are_blocks_of_rows(source, drawn, tmp_path):
    layered = Synthetic(tmp_path / "layered", layers=("upper", "lower"))
    tall = draw(layered, tmp_path / "figures", ("fields", "spectra", "scorecard"))
    assert pixels(tall["fields"]).shape[0] > 1.9 * pixels(drawn["fields"]).shape[0]
    for name in ("spectra", "scorecard"):
        assert pixels(tall[name]).shape[0] > pixels(drawn[name]).shape[0]


def test_figure_1_shows_the_last_step_in_place_of_steps_that_no_rollout_of_the_system_reaches(source, drawn, tmp_path):
    """A system may override the lengths of a run, whose other systems reach the step."""
    plot_fields(segments=source.segments, metrics=source.metrics, reference=source.reference, labels=LABELS, member=0,
                steps=[0, 8, 10 * source.steps], dpi=40, output=tmp_path / "fields.png")  # fmt: skip
    assert (tmp_path / "fields.png").read_bytes() == drawn["fields"].read_bytes()


def test_a_failed_figure_leaves_nothing(source, tmp_path):
    with pytest.raises(UserError, match="no member of the rollouts; known: 0, 1, 2"):
        plot_fields(segments=source.segments, metrics=source.metrics, reference=source.reference, steps=[0, 8],
                    member=7, labels=LABELS, dpi=40, output=tmp_path / "fields.png")  # fmt: skip
    with pytest.raises(UserError, match="no file for the method 'other'"):
        plot_temporal(metrics=source.metrics, reference=source.reference, labels={"other": "Other"}, dpi=40,
                      output=tmp_path / "temporal.png")  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_the_energy_of_a_layer_with_small_units_is_drawn(tmp_path):
    layered = Synthetic(tmp_path, layers=("upper", "lower"))
    drawn = []
    for units in ([1.0, 1.0], [1e6, 1.0]):
        surrogate, solver = (
            data.assign(kinetic_energy=data["kinetic_energy"] * xr.DataArray(units, dims="layer"))
            for data in (read(layered.metrics["pointwise"]), read(layered.reference))
        )
        surrogate["kinetic_energy"][..., 1] *= 3
        axis = Figure().add_subplot()
        _energy(axis, surrogate, solver, method_styles(LABELS)["pointwise"])
        drawn.append(axis.lines[-1].get_ydata())
    np.testing.assert_allclose(*drawn)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cost", "distributions", "error", "scorecard", "spectra", "temporal"])
def test_twelve_methods_with_long_labels_have_titles_and_legends_on_the_page(source, tmp_path, monkeypatch, name):
    extra = {f"more_{index}": f"Thermalizer number {index} around the pointwise surrogate" for index in range(8)}
    labels = LABELS | {"published": "SNS as published, with a thousand noise levels"} | extra
    tables = {}
    for table, column in (("scorecard", "method"), ("cost", "contender"), ("windows", "method")):
        rows = pd.read_csv(getattr(source, table), dtype={column: str})
        copies = [rows[rows[column] == "coloured"].assign(**{column: method}) for method in extra]
        tables[table] = tmp_path / f"{table}.csv"
        pd.concat([rows, *copies]).to_csv(tables[table], index=False)
    results = {
        "metrics": source.metrics | dict.fromkeys(extra, source.metrics["coloured"]),
        "reference": source.reference,
    }
    plot, arguments = {
        "cost": (plot_cost, {"table": tables["cost"]}),
        "distributions": (plot_distributions, results),
        "error": (plot_error, results),
        "scorecard": (plot_scorecard, {"table": tables["scorecard"]}),
        "spectra": (plot_spectra, {"windows": tables["windows"], "shells": [1, 4], **results}),
        "temporal": (plot_temporal, results),
    }[name]
    figures, fix_layout = [], shared._fix_layout
    monkeypatch.setattr(shared, "_fix_layout", lambda figure: (fix_layout(figure), figures.append(figure)))
    plot(labels=labels, dpi=40, output=tmp_path / "figure.png", **arguments)
    parts = [figures[0], *figures[0].subfigs]
    words = [text for part in parts for legend in part.legends for text in legend.get_texts()]
    assert len(words) >= len(labels) - 1 or name in ("error", "scorecard")
    words += [title for axis in figures[0].axes for title in (axis.title, axis._left_title) if title.get_text()]
    boxes = [text.get_window_extent().padded(-1) for text in words]
    assert all(box.x0 >= 0 and box.x1 <= figures[0].bbox.width for box in boxes)
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("levels", [(0, 16), (16, 16), (97, 10), (3, 3)])
def test_legends_and_notes_of_levels_cover_nothing_that_is_drawn(levels):
    """All estimates of a frame are one level, so that each peak reaches up to 1, and each line stays at its height."""
    member, step = np.arange(4), np.arange(1, 101)
    both = np.broadcast_to(levels, (4, 100, 2))
    result = xr.Dataset(
        {"levels": (("member", "step", "frame"), both), "lost_step": ("member", [-1] * 4)},
        {"member": member, "step": step, "block": step[9::10]},
    )
    pairs = (("pair", "frame"), both[0])
    diagnosis = xr.Dataset(
        {"rollout_level": (("rollout_step", "member", "frame"), both.swapaxes(0, 1)), "rollout_step": step}
        | {"level_of_true_pair": pairs, "level_of_surrogate": pairs}
    )
    figure = Figure((11.4, 2.8), layout="constrained")
    used, along, clean = figure.subplots(1, 3)
    _histogram(used, result, 100)
    _along_surrogate(along, diagnosis, result, "S")
    _alarm(along, np.array([5, -1, -1, -1]), line=3, sign="amplitude ")
    _clean_pairs(clean, diagnosis)
    figure.draw_without_rendering()
    assert len(used.get_yticks()) and max(used.get_yticks()) <= 1
    curves = {used: [patch.get_data()[:2] for patch in used.patches]}
    curves[used] = [(np.repeat(edges, 2)[1:-1], np.repeat(values, 2)) for values, edges in curves[used]]
    curves |= {axis: [line.get_data() for line in axis.lines if len(line.get_xdata()) > 1] for axis in (along, clean)}
    for axis, drawn in curves.items():
        for words in (axis.get_legend(), *axis.texts):
            box = words.get_window_extent()
            for x, y in drawn:
                path = Curve(axis.transData.transform(np.stack([x, np.maximum(y, axis.get_ylim()[0])], -1)))
                assert not path.intersects_bbox(box, filled=False), (axis.get_title(loc="left"), words)


@pytest.mark.slow
def test_a_method_that_loses_every_member_at_once_is_drawn(source, tmp_path):
    metrics = dict(source.metrics)
    with xr.open_dataset(metrics["published"]) as result:
        gone = result.load().assign(lost_step=("member", [1, 1, 1]))
    for name in ("kinetic_energy", "enstrophy", "energy_spectrum", "mse", "rate_of_change"):
        gone[name] = gone[name] * np.nan
    for name in ("published", "pointwise"):
        metrics[name] = str(tmp_path / f"{name}.nc")
        gone.to_netcdf(metrics[name])
    common = {"metrics": metrics, "reference": source.reference, "labels": LABELS, "dpi": 40}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_levels(diagnostics=source.diagnostics, surrogates=SURROGATES, output=tmp_path / "levels.png", **common)
        plot_error(output=tmp_path / "error.png", **common)
        plot_temporal(output=tmp_path / "temporal.png", **common)
        plot_spectra(windows=source.windows, shells=[1, 4], output=tmp_path / "spectra.png", **common)
        plot_fields(segments=source.segments, steps=[0, 8], member=0, output=tmp_path / "fields.png", **common)
    assert len(list(tmp_path.glob("*.png"))) == 5


def test_the_figure_of_fields_marks_lost_and_missing_frames(source):
    size = 0.1
    assert frame_at(source.segments["solver"], 0, 7, size)[0] == 6  # the last stored frame before step 7
    assert frame_at(source.segments["generation"], 0, 40, size)[1] is None
    step, values, _ = frame_at(source.segments["published"], 0, 40, size)
    assert step == 40 and (values == np.float32(1e20)).all()


def test_lost_members_count_until_they_are_lost(source):
    result = read(source.metrics["published"])
    assert source.lost("published").tolist() == [21, 30, -1]
    rate = living(result, "rate_of_change")
    assert np.isfinite(rate.values[0, :20]).all() and np.isnan(rate.values[0, 20:]).all()
    spectrum = living(result, "energy_spectrum").isel(layer=0, wavenumber=1)
    assert np.isfinite(spectrum.values[0]).tolist() == [True] * 4 + [False] * 4
    assert np.isfinite(spectrum.values[1]).tolist() == [True] * 5 + [False] * 3
    assert [lost_note(result, step) for step in (20, 21, 30, None)] == ["", "1 of 3 lost", "2 of 3 lost", "2 of 3 lost"]
    parts = thirds(result)
    assert parts["early"]["block"].values.tolist() == [5, 10] and parts["late"]["block"].values.tolist() == [35, 40]
    assert parts["late"]["step"].values.tolist() == list(range(31, 41))
    short_run = thirds(read(source.metrics["generation"]))
    assert all(part.sizes["block"] == 1 for part in short_run.values())


def test_colours_are_stable_and_distinct():
    many = {"solver": "S", **{f"m{i}": f"M{i}" for i in range(9)}}
    styles = method_styles(many)
    assert list(styles) == list(many)
    assert len({style["color"] for style in styles.values()}) == 1 + len(PALETTE) == 9
    assert len({(style["color"], str(style["linestyle"])) for style in styles.values()}) == len(many)
    assert method_styles({"m0": "M0", "solver": "S"})["m0"] == styles["m0"]
    apart = [MUTED, *PALETTE, *OTHER_COLOURS, *SPLIT_COLOURS.values()]
    assert len(set(apart)) == len(apart), "a colour of a method, a split and a frame of a pair means one thing"


@pytest.mark.parametrize("background", ["#ffffff", LIGHT_PAGE, DARK_PAGE])
def test_text_in_the_colour_of_a_method_can_be_read(background):
    for colour in (*PALETTE, MUTED):
        assert contrast(readable(colour, background), background) >= 4.5
    # The two values that WCAG 2 names: black on white, and the first grey that is too light.
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_the_pages_have_the_backgrounds_that_their_colours_are_made_for():
    package = CAPTIONS.parents[1] / "sns_core"
    for page in (package / "page.css", package / "figures/explorer/explorer.css"):
        light, dark = page.read_text().split("prefers-color-scheme: dark")
        assert f"--paper: {LIGHT_PAGE}" in light and f"--card: {DARK_PAGE}" in dark
        for colours, backgrounds in ((light, ("paper", "card")), (dark, ("paper", "card"))):
            values = dict(re.findall(r"--(\w+): (#\w{6})", colours))
            texts = [
                values[name] for name in ("ink", "soft", "muted", "bad", "fair", "good", "accent") if name in values
            ]
            for background in backgrounds:
                assert all(contrast(text, values[background]) >= 4.5 for text in texts), (page.name, background)


def test_labels_are_shown_literally(source, tmp_path):
    """`$`, braces and underscores have a meaning in matplotlib, `<` and `&` in HTML."""
    labels = {"solver": "S", "pointwise": "a $x$ {max} <b>", "published": "_hidden & $", "coloured": r"$\\frac$"}
    output = tmp_path / "temporal.png"
    plot_temporal(metrics=source.metrics, reference=source.reference, labels=labels, dpi=40, output=output)
    figure = Figure()
    axis = figure.subplots()
    for style in method_styles(labels).values():
        axis.plot([0, 1], [0, 1], **style)
    legend = axis.legend()
    figure.draw_without_rendering()
    words = [text.get_text() for text in legend.get_texts()]
    assert len(words) == len(labels), "a legend leaves out labels that begin with an underscore"
    assert not any(is_math_text(word) for word in words)
    assert [word.replace("\\$", "$").lstrip("\u200b") for word in words] == list(labels.values())
    assert wrapped(method_styles({"a": "one $two three$ four"})["a"]["label"], 9) == "one \\$two\nthree\\$\nfour"


def test_short_numbers():
    values = (0.213, 17.4, 99.7, 1234, 3.1e7, 9.7e7, 1e20, math.inf, math.nan)
    assert [short(v) for v in values] == ["0.21", "17", "100", "1234", "3×10⁷", "10⁸", "10²⁰", "∞", "NaN"]


def test_numbers_of_the_report_are_written_as_a_person_would():
    values = (0, 0.0142, 1.066, 327.4, 999.7, 3000, 12345.6, 2.5e6, 3e-5, math.inf, math.nan)
    expected = ["0", "0.0142", "1.07", "327", "1000", "3000", "12\u202f346", "2×10⁶", "3×10⁻⁵", "∞", "–"]
    assert [digits(v) for v in values] == expected
    assert interval(0.1, 0.3, 0.2) == "[0.1, 0.3]"
    assert interval(3000, 3000, 3000) == "" == interval(math.nan, math.nan, 1.0)
    assert price_words(0.00917, 0.00917) == "at equal accuracy it costs 109 times as much as the solver"
    assert price_words(0.01, 0.25) == "at equal accuracy it costs 4 to 100 times as much as the solver"
    assert price_words(2.0, 3.0) == "at equal accuracy the solver costs 2 to 3 times as much"


# The report

CONFIGURATION = {"run": "synthetic", "systems": {"kolmogorov": {"emulator": {"step": 0.1}}}}
METHODS = [
    {"name": name, "label": label, "kind": {"solver": "solver", "pointwise": "pointwise"}.get(name, "refinement")}
    for name, label in LABELS.items()
]


@pytest.fixture(scope="module")
def provenance(source):
    folder = source.folder
    manifest, model = folder / "manifest.json", folder / "model.safetensors"
    manifest.write_text(json.dumps({"identity": "d" * 64}))
    model.write_bytes(b"weights")
    made = {"wall_seconds": 60.0, "code": {"commit": "abc", "dirty": True}, "device": "cpu"}
    model.with_suffix(".json").write_text(json.dumps({"data": "d" * 64, "provenance": made}))
    systems = {"kolmogorov": {
        "manifest": str(manifest), "data": {"train": [source.segments["solver"][0]]}, "models": {"model": str(model)},
        "segments": source.segments,
    }}  # fmt: skip
    record_provenance(
        configuration=CONFIGURATION,
        systems=systems,
        methods={"kolmogorov": {}},
        seed=3,
        output=folder / "provenance.json",
    )
    return folder / "provenance.json"


def test_provenance_names_data_models_and_time(source, provenance):
    record = json.loads(provenance.read_text())
    assert record["configuration"] == CONFIGURATION and record["seed"] == 3 and record["device"] == "cpu"
    assert {"commit", "dirty"} <= record["code"].keys() and "torch" in record["versions"]
    system = record["systems"]["kolmogorov"]
    assert system["data"] == "d" * 64
    assert system["models"]["model"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    seconds = {(job["stage"], job["item"]): (job["files"], job["seconds"]) for job in system["wall_seconds"]}
    assert seconds["train_model", "model"] == (1, 60.0)
    assert seconds["rollout_segment", "pointwise"] == (2, 3.0)
    assert len(record["code_of_results"]) == 2


def tiny_movie(path: Path, pictures: int = 21) -> Path:
    """A movie whose pictures grow brighter."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(pictures):
            grey = np.full((48, 64, 3), 20 + 10 * index, dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        file.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def content(source, drawn, provenance, tmp_path_factory) -> dict:
    """The arguments of a report of one system, without its output."""
    folder = tmp_path_factory.mktemp("report")
    film = tiny_movie(source.folder / "movie_small.mp4")
    systems = {"kolmogorov": {
        "figures": {name: str(path) for name, path in drawn.items()}, "metrics": str(source.table),
        "movie": str(film), "explorer": str(folder / "kolmogorov" / "explorer.html"),
        "windows": str(source.windows), "scorecard": str(source.scorecard), "cost": str(source.cost),
        "reference": str(source.reference), "floors": str(source.floors), "methods": METHODS,
    }}  # fmt: skip
    captions = {n: (CAPTIONS / f"{n}.rst").read_text(encoding="utf-8") for n in (*FIGURES, "movie")}
    return {"systems": systems, "captions": captions, "provenance": provenance}


@pytest.fixture(scope="module")
def report(content):
    folder = Path(content["systems"]["kolmogorov"]["explorer"]).parents[1]
    write_report(**content, output=folder / "report.html")
    write_report(**content, output=folder / "again.html")
    assert sorted(p.name for p in folder.iterdir()) == ["again.html", "report.html"]
    assert (folder / "again.html").read_bytes() == (folder / "report.html").read_bytes()
    return (folder / "report.html").read_text(encoding="utf-8")


def test_a_report_of_two_flows_has_a_section_and_an_explorer_for_each(content, report, tmp_path):
    flow = content["systems"]["kolmogorov"]
    output = tmp_path / "report.html"
    second = {**flow, "explorer": str(tmp_path / "other" / "explorer.html")}
    write_report(**{**content, "systems": {**content["systems"], "other": second}}, output=output)
    text = output.read_text(encoding="utf-8")
    for mark in ("<h2", "<video", "data:image/png"):
        assert text.count(mark) > report.count(mark), mark
    assert '<a href="#other-story">other: Result</a>' in text and '<a href="#kolmogorov-story">Result</a>' in report
    assert 'href="other/explorer.html"' in text and 'href="other/explorer.html"' not in report


def test_times_of_a_flow_in_seconds_are_told_in_days(content, source, tmp_path):
    """The decorrelation time in the tables is 0.7 of the file's units, and a run is 40 steps of 432,000 s."""
    reference, table, cost = tmp_path / "reference.nc", tmp_path / "metrics.csv", tmp_path / "cost.csv"
    with xr.open_dataset(source.reference) as dataset:
        seconds = ("lag", dataset["lag"].values / source.step * 432000.0, {"units": "s"})
        dataset.assign_coords(lag=seconds).to_netcdf(reference)
    times = {"decorrelation_time": 216000.0, "decorrelation_time_late": 216000.0}
    pd.read_csv(source.table).assign(**times).to_csv(table, index=False)
    pd.read_csv(source.cost).assign(time_units="s").to_csv(cost, index=False)
    flow = content["systems"]["kolmogorov"] | {"reference": str(reference), "metrics": str(table), "cost": str(cost)}
    write_report(**content | {"systems": {"kolmogorov": flow}}, output=tmp_path / "report.html")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", (tmp_path / "report.html").read_text(encoding="utf-8")))
    assert "3 members over 40 steps (200 days)" in text and "time units" not in text
    assert "falls below one half, in days" in text and "wall seconds per day" in text
    assert " 2.50 2.50 " in text and "216000" not in text.replace("\u202f", "")


def test_the_report_of_one_member_says_so_and_a_name_keeps_its_capitals(content, source, tmp_path):
    table, cost = tmp_path / "metrics.csv", tmp_path / "cost.csv"
    members = pd.read_csv(source.table)
    members[members["member"] == 0].to_csv(table, index=False)
    pd.read_csv(source.cost).assign(members=1).to_csv(cost, index=False)
    flow = content["systems"]["kolmogorov"] | {"metrics": str(table), "cost": str(cost)}
    write_report(**content | {"systems": {"myQG": flow}}, output=tmp_path / "report.html")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", (tmp_path / "report.html").read_text(encoding="utf-8")))
    assert "MyQG: 1 member over 40 steps" in text and "of 1 member lost in 40 steps" in text
    assert "of its one member, beside the solver" in text


def test_the_report_names_the_steps_that_are_in_no_window(content, report, source, tmp_path):
    windows, words = tmp_path / "windows.csv", "the steps from {} to 40 make no whole window and count in none"
    table = pd.read_csv(source.windows)
    first = table[table["last_step"] < 40]
    first.to_csv(windows, index=False)
    flow = content["systems"]["kolmogorov"] | {"windows": str(windows)}
    write_report(**content | {"systems": {"kolmogorov": flow}}, output=tmp_path / "report.html")
    text = re.sub(r"\s+", " ", (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert words.format(first["last_step"].max() + 1) in text and "make no whole window" not in report


def test_a_drift_within_the_limit_for_few_members_is_not_called_less_than_two_standard_errors(
    content, source, tmp_path
):
    """Of two members, ten standard errors are no more than sampling explains."""
    reference = tmp_path / "reference.nc"
    with xr.open_dataset(source.reference) as dataset:
        two = dataset.isel(member=[0, 1])
        drifts = ("member", "layer"), np.full((2, two.sizes["layer"]), [[1.1], [0.9]])
        two.assign(kinetic_energy_drift=drifts).to_netcdf(reference)
    flow = content["systems"]["kolmogorov"] | {"reference": str(reference)}
    write_report(**content | {"systems": {"kolmogorov": flow}}, output=tmp_path / "report.html")
    text = re.sub(r"\s+", " ", (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "none is more than sampling explains" in text and "two standard errors" not in text


class Collector(HTMLParser):
    """Collect the tags that stay open, and every attribute that could load a file."""

    VOID = frozenset(("meta", "img", "br", "link", "hr", "input"))

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.images, self.identifiers = [], [], [], set()

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.identifiers |= {named["id"]} if "id" in named else set()
        loading = ("src", "href", "srcset", "data", "action", "poster")
        self.loads += [(tag, name, value) for name, value in attributes if name in loading]
        if tag == "img":
            self.images.append(named)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_is_one_file_that_loads_nothing(report, drawn, source):
    page = Collector()
    page.feed(report)
    assert not page.open
    assert not re.search(r"<(script|link|iframe|object|embed)\b|@import|url\(|https?://", report)
    inlined = {"img": "data:image/png;base64,", "video": "data:video/mp4;base64,"}
    beside = [value for _, _, value in page.loads if value == "kolmogorov/explorer.html"]
    assert len(beside) == 1, "the report links to the page to explore the run, and to no other file"
    posters = [value for tag, name, value in page.loads if name == "poster"]
    for tag, name, value in page.loads:
        if name == "poster":
            continue
        assert value.startswith(inlined.get(tag, "#")) or value in beside, (tag, name, value[:40])
        assert tag in inlined or value in beside or value[1:] in page.identifiers
    film = base64.b64encode((source.folder / "movie_small.mp4").read_bytes()).decode()
    assert ("video", "src", inlined["video"] + film) in page.loads
    # Member 0 of `published` is lost at step 21 of 40. The poster is the second of 21 pictures after the loss.
    with Image.open(io.BytesIO(base64.b64decode(posters[0].removeprefix("data:image/jpeg;base64,")))) as poster:
        assert len(posters) == 1 and np.abs(np.asarray(poster).astype(int) - (20 + 10 * 11)).max() < 12
    assert [base64.b64decode(image["src"].split(",")[1]) for image in page.images] == [
        p.read_bytes() for p in drawn.values()
    ]
    assert all(image["alt"] for image in page.images)


def test_report_escapes_its_input(report):
    assert "SNS &lt;published&gt; &amp; co" in report
    assert "<published>" not in report


def test_report_shows_the_numbers(report):
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"base64,[^\"]*", "", report))))
    assert "Loses 2 of 3 members, the first at step 21." in text
    assert "Keeps all members and drifts: its spectrum error grows from 0.19 to 2.6." in text
    assert "by its windows it cannot be told from a run of the solver of the same size" in text
    assert "No floor: 3 members of 8 steps need a larger ensemble." in text
    # Calls are the scorecard's; those of lost members, 0.25 in the table of members, go on after the loss.
    assert "4 network calls per step and member" in text and "0.25 network calls" not in text
    assert "Figure 1. Fields along the rollouts" in text
    assert (
        "SNS coloured cannot be told from the solver by the spectrum of any window: it keeps all 3 members over 40 steps. "
        "Pointwise alone keeps its members, too." in text
    )
    assert (
        "≤ 0.03 decades: spectrum error of the worst window, inside the floor solver runs of this size: 0 to 0.03"
        in text
    )
    assert "3 of 3 members kept over 40 steps Pointwise: 3 of 3" in text
    assert "4 × dearer than the solver as configured" in text
    # The scorecard: title, floor, then one cell per method: within the floor, beyond it, lost, beyond, beyond.
    assert "Spectrum error (decades) 0 to 0.03 0.02 [0.016, 0.026] 0.04 [0.032, 0.052] 10⁹ 0.08 [0.064, 0.104]" in text
    assert "CRPS of ensemble forecasts (σ), after 5 steps" in text
    assert "CRPS of ensemble forecasts (σ), after 1 step " in text
    # The cost of a method, and its gain over the solver.
    assert (
        "SNS coloured gains by 2 of 3 scores: at equal accuracy it costs between 4 times as much as the solver and 1/2 of it"
        in text
    )
    assert "loses by every score" in text and "it loses members, and has no spectrum in the long run" in text
    assert "0.4 [0.36, 0.8] 20 300 1.5 1 min 40 s" in text and "not readable" in text
    assert (
        "2 repaid after 400" in text
        and "0.25 never repaid; beaten by 32²" in text
        and "Solver on 64², step 0.025" in text
    )
    assert "d" * 64 in text and "1 min 00 s" in text


def test_figure_and_report_name_the_solver_s_grids_as_the_table_of_cost_does(source):
    """A rectangle and a row of points are no squares."""
    words = {"32": "16 x 32", "64": "64 points"}
    table = read_cost(source.cost)
    table["points"] = [
        words.get(name, points) for name, points in zip(table["contender"], table["points"], strict=True)
    ]
    axis = Figure().add_subplot()
    _solvers(axis, table[(table["kind"] == "grid") & (table["score"] == "spectrum_error")])
    assert [text.get_text() for text in axis.texts] == ["16 x 32", "64 points", "512²"]
    rows = tabulate_prices(table, METHODS)["rows"]
    assert [row["label"] for row in rows[-3:]] == [f"Solver on {w}, step 0.025" for w in (*words.values(), "512²")]
    assert {cell["beaten_by"] for row in rows for cell in row["cells"] if cell} == {"", "16 x 32"}


def test_the_floor_of_a_scorecard_is_that_of_the_longest_runs_that_have_one():
    """The worst of a single window scores less, and in a narrower band, than the worst of five."""
    row = {"score": "worst_window_spectrum_error", "layer": "flow", "lead": math.nan, "value": 0.02, "low": math.nan,
           "high": math.nan, "inside": True, "members_lost": 0}  # fmt: skip
    bands = {"short": (0.005, 0.023), "long": (0.012, 0.032), "endless": (math.nan, math.nan)}
    table = pd.DataFrame(
        {**row, "method": name, "floor_low": low, "floor_high": high} for name, (low, high) in bands.items()
    )
    methods, steps = [{"name": name} for name in bands], {"short": 1000, "long": 3000, "endless": 10**6}
    assert [row["floor"] for row in scorecard(table, methods, steps)] == [(0.012, 0.032)]
    none = scorecard(table.assign(floor_low=math.nan, floor_high=math.nan), methods, steps)
    assert np.isnan(none[0]["floor"]).all()


def test_report_words_follow_the_thresholds():
    row = {"lost": 0, "members": 8, "steps": 10, "first_lost": None, "floor": (0.02, 0.09), "inside": True, "error_first": 0.05,
           "error_last": 0.06, "error_worst": 0.08, "energy_worst": 1.1}  # fmt: skip
    assert judge(row)[0] == "good"
    assert judge(row | {"error_worst": 0.12, "inside": False})[1].endswith("decades, more than sampling explains.")
    without = row | {"error_worst": 0.12, "inside": False, "floor": (math.nan, math.nan)}
    assert judge(without) == ("fair", "Keeps all members; its spectrum is off by up to 0.12 decades.")
    assert judge(row | {"energy_worst": 0.5})[0] == "fair"
    assert "0.5 times" in judge(row | {"energy_worst": 0.5})[1]
    assert "drifts" in judge(row | {"error_last": 0.3, "error_worst": 0.3})[1]
    assert "off by up to 0.6" in judge(row | {"error_first": 0.6, "error_last": 0.5, "error_worst": 0.6})[1]
    assert judge(row | {"lost": 8, "first_lost": 4})[1] == "Loses every member, the first at step 4."
    assert "∞" in judge(row | {"error_last": math.inf, "error_worst": math.inf})[1]


def test_the_headline_names_the_best_method_and_says_when_none_keeps_its_members():
    row = {"kind": "refinement", "steps": 100, "members": 4, "lost": 0, "first_lost": None, "error_worst": 0.05,
           "floor": (0.01, 0.03), "inside": False}  # fmt: skip
    rows = [
        row | {"name": "solver", "label": "Solver", "kind": "solver"},
        row
        | {"name": "alone", "label": "Alone", "kind": "pointwise", "lost": 4, "first_lost": 9, "error_worst": math.inf},
        row | {"name": "ours", "label": "Ours", "error_worst": 0.04},
        row | {"name": "short", "label": "Short", "steps": 50, "error_worst": 0.01},
    ]
    prices = {"rows": [{"name": "ours", "speed_up_configured": 0.01}], "unit": "time unit"}
    result = headline(rows, prices)
    assert result["sentence"] == (
        "Ours stays nearest to the solver: it keeps all 4 members over 100 steps, "
        "while Alone alone loses every member, the first at step 9."
    )
    assert [item["value"] for item in result["numbers"]] == ["4 of 4", "0.04", "100 ×"]
    equal = [*rows, row | {"name": "theirs", "label": "Theirs", "error_worst": 0.02, "inside": True}]
    equal[2] = rows[2] | {"error_worst": 0.029, "inside": True}
    result = headline(equal, prices)
    assert result["sentence"].startswith(
        "Ours and Theirs cannot be told from the solver by the spectrum of any window: they keep"
    )
    assert [item["value"] for item in result["numbers"]] == ["4 of 4", "≤ 0.03", "100 ×"], "nothing inside is ranked"
    lost = [rows[0], rows[1], rows[2] | {"lost": 1, "first_lost": 60}]
    sentence = headline(lost, prices)["sentence"]
    assert sentence.startswith(
        "No method keeps all members over 100 steps: Ours loses 1 of 4 members, the first at step 60"
    )
    assert headline(rows[:1], prices) is None
    shorter = [rows[0], rows[1] | {"steps": 50, "lost": 0, "first_lost": None}, rows[2]]
    result = headline(shorter, prices)
    assert result["sentence"] == "Ours stays nearest to the solver: it keeps all 4 members over 100 steps."
    assert not any("Alone" in item["beside"] for item in result["numbers"]), "kept over 50 steps is not kept over 100"
    assert len(headline(rows, prices | {"rows": []})["numbers"]) == 2, "a method that was not timed has no price"


def test_the_legend_of_the_spin_up_marks_what_drifts():
    row = {"layer": "flow", "drift": 0.05, "error": 0.01, "drifts": True}
    rows = [{**row, "quantity": "kinetic_energy"}, {**row, "quantity": "spectrum", "drifts": False}]
    assert _drifts_of(pd.DataFrame(rows)) == "energy +5 ± 1 % (!), spectrum +0.05 ± 0.01 decades"
    assert _drifts_of(pd.DataFrame(rows).assign(error=np.nan)) == "energy +5 % (!), spectrum +0.05 decades", (
        "one member"
    )


def test_the_legend_of_the_spin_up_does_not_cover_the_times_that_stand_above():
    """The energy falls to its later mean, so that the legend stands on the upper right."""
    clock, random = np.arange(1.0, 91.0), np.random.default_rng(0)
    energy = (1 + 3 * np.exp(-clock / 3)) * random.normal(1, 0.02, (8, 90))
    result = xr.Dataset(
        {"kinetic_energy": (("member", "clock", "layer"), energy[..., None])}, {"clock": clock, "time": np.arange(50.0)}
    )
    splits, quantities = ("train", "validation", "test"), ("kinetic_energy", "enstrophy", "spectrum")
    places = itertools.product(splits, quantities)
    drifts = pd.DataFrame(
        [{"split": s, "quantity": q, "drift": -0.0123, "error": 0.03, "drifts": True} for s, q in places]
    )
    figure = Figure(figsize=(10.4, 3.1), layout="constrained")
    axis = figure.add_subplot()
    _layer(axis, dict.fromkeys(splits, result), 0, drifts)
    figure.draw_without_rendering()
    words = next(text for text in axis.texts if text.get_text().startswith("stationary from"))
    assert not words.get_window_extent().overlaps(axis.get_legend().get_window_extent())


def test_every_figure_of_the_workflow_has_a_caption():
    rules = (CAPTIONS.parent / "rules" / "figures.smk").read_text()
    names = re.findall(
        r'^    "(\w+)": \(', rules, re.M
    )  # the regular expression matches the keys of the table of figures
    assert [name for name in names if name in FIGURES] == list(FIGURES)
    for name in names:
        title, *paragraphs = (CAPTIONS / f"{name}.rst").read_text().split("\n\n")
        assert re.match(r"Figure \d+\. \w", title) and paragraphs


@pytest.mark.parametrize("path", sorted(CAPTIONS.glob("*.rst")), ids=lambda path: path.stem)
def test_captions_are_read_by_snakemakes_report_without_a_complaint(path):
    publish_doctree(path.read_text(), settings_overrides={"halt_level": 2, "report_level": 5})


def test_seconds_are_shown_as_days_and_metres_as_kilometres():
    days, kilometres = ("time", [0.0, 43200.0], {"units": "s"}), ("y", [0.0, 5e3], {"units": "m"})
    rate = ("time", [1e-5, 2e-5], {"units": "s-1"})
    plain = ("time", [1.0, 2.0], {"units": "1"})
    shown = in_shown_units(
        xr.Dataset(
            {"rate_of_change": rate, "potential_vorticity": rate, "plain": plain}, {"time": days, "y": kilometres}
        )
    )
    assert shown["time"].values.tolist() == [0.0, 0.5] and shown["time"].attrs["units"] == "d"
    assert shown["y"].values.tolist() == [0.0, 5.0] and shown["y"].attrs["units"] == "km"
    assert np.allclose(shown["rate_of_change"], [0.864, 1.728]) and shown["rate_of_change"].attrs["units"] == "1/d"
    assert np.allclose(shown["potential_vorticity"], [1e-5, 2e-5]), "fields stay in the units of the system"
    assert shown["plain"].values.tolist() == [1.0, 2.0]


def test_a_density_integrates_to_one_and_nothing_counted_is_nan():
    counts = np.array([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0]])
    densities = density(counts, np.array([-0.5, 0.0, 0.5]))
    assert densities[0].tolist() == [0.5, 1.0, 0.5] and np.isnan(densities[1]).all()


def test_a_point_is_best_if_no_point_beats_it():
    points = {"cheap": (0.0, 0.5), "good": (2.0, 0.1), "worse": (3.0, 0.1), "dear": (9.0, 0.05), "twin": (2.0, 0.1)}
    assert best(points) == ["cheap", "good", "dear", "twin"]


def test_the_early_error_is_a_mean_over_equally_many_frames_for_rollouts_of_all_lengths():
    """An error that grows with time is smaller over the first twentieth of a shorter rollout."""

    def rollout(frames):
        mse = np.tile(0.01 * np.arange(frames), (2, 1))
        return xr.Dataset(
            {"mse": (("member", "time"), mse), "correlation": (("member", "block", "lag"), np.ones((2, 3, 4)))}
        )

    results = {"long": rollout(400), "short": rollout(100)}
    columns = {"member_spectrum_error": 0.1, "lost_step": -1, "calls_per_step": 1.0}
    rows = pd.DataFrame({"layer": "flow", "member": [0, 1], **columns})
    solver = xr.Dataset({"correlation": (("member", "lag"), np.ones((2, 4)))})
    scores = {name: _scores(rows, result, solver, ["flow"], early_frames(results)) for name, result in results.items()}
    assert scores["long"]["early_error"].tolist() == scores["short"]["early_error"].tolist()
