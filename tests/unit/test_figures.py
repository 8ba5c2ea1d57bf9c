"""Figures and report from synthetic results: an exploded member, a NaN member and a short generation run among them."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

LABELS = {
    "solver": "Solver", "pointwise": "Pointwise", "published": "SNS <published> & co", "coloured": "SNS coloured",
    "generation": "SNS generation",
}  # fmt: skip
SURROGATES = {"published": "pointwise", "coloured": "pointwise"}


class Synthetic:
    """Result files in the shapes and names that the stages write, with behaviour chosen here.

    `published` loses member 0 to 1e20 and member 1 to NaN; `pointwise` drifts; `generation` ends after a fifth.
    """

    def __init__(self, folder: Path, steps=40, members=3, block=5, size=8, stride=2, lags=6, step=0.1, layers=("flow",)):
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
        for name in SURROGATES:
            self._diagnostics(name)

    def length(self, name):
        return self.steps // self.block // 5 * self.block if name == "generation" else self.steps

    def growth(self, name, step):
        """Amplitude of the field relative to the solver's."""
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
        one = self.random.normal(1, 0.04, (self.members, len(self.layers), 1))
        distance, lag = self.distance, self.map_lag
        values = {
            "energy_spectrum": (("member", "layer", "wavenumber"), one * self.truth),
            "kinetic_energy": (("member", "layer"), 0.9 * one[..., 0]),
            "enstrophy": (("member", "layer"), 9.0 * one[..., 0]),
            "rate_of_change": (("member",), 2.0 * one[:, 0, 0]),
            "relative_change": (("member",), 0.17 * one[:, 0, 0]),
            "correlation": (("member", "lag"), np.exp(-self.lag)[None] ** one[:, 0]),
            "map": (("member", "map_lag", "distance"), one * (np.exp(-lag)[:, None] * np.cos(2 * distance))[None]),
        }
        path = self.folder / "reference.nc"
        xr.Dataset(values, {
            "layer": self.layers, "wavenumber": self.wavenumber, "lag": self.lag, "map_lag": lag, "distance": distance,
        }).to_netcdf(path)  # fmt: skip
        return path

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
            "correlation": (("member", "block", "lag"), correlation), "lost_step": (("member",), lost),
        }  # fmt: skip
        coordinates = {
            "member": np.arange(self.members), "layer": self.layers, "step": step, "block": block,
            "wavenumber": self.wavenumber, "lag": self.lag, "time": time * self.step,
        }  # fmt: skip
        provenance = {"wall_seconds": 1.5, "code": {"commit": "abc", "dirty": False}, "host": {"name": "somewhere"}}
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
        )  # fmt: skip
        self.metrics[name] = str(self.folder / f"{name}.nc")
        result.assign_coords(map_lag=self.map_lag, distance=self.distance).to_netcdf(self.metrics[name])

    def _tables(self):
        rows, windows = [], []
        for name in LABELS:
            steps, lost = self.length(name), self.lost(name)
            for member in range(self.members):
                bad = np.nan if lost[member] >= 0 else 1.0
                rows.append({
                    "system": "kolmogorov", "method": name, "member": member, "steps": steps, "lost_step": lost[member],
                    "calls_per_step": 0.25, "seconds_per_step": 0.02, "decorrelation_time": 0.7, "decorrelation_time_late": bad,
                    "rate_of_change": 2.0 * bad, "relative_change": 0.17 * bad, "level_prev": 1.0, "level_next": 1.0,
                    "spectrum_error": 0.05 * bad, "spectrum_error_late": 0.06 * bad, "kinetic_energy": 0.95 * bad,
                    "kinetic_energy_solver": 0.9, "enstrophy": 9.5 * bad, "enstrophy_solver": 9.0,
                })  # fmt: skip
            width = min(2 * self.block, steps)
            for start in range(0, steps - width + 1, width):
                for layer in self.layers:
                    gone = int(((lost >= 0) & (lost <= start + width)).sum())
                    error = np.inf if gone else 0.03 + abs(math.log10(self.growth(name, start + width) ** 2))
                    windows.append({
                        "method": name, "first_step": start + 1, "last_step": start + width, "layer": layer,
                        "spectrum_error": error, "kinetic_energy": 1e40 if gone else 0.9, "kinetic_energy_solver": 0.9,
                        "enstrophy": 9.0, "enstrophy_solver": 9.0, "relative_change": 0.17, "relative_change_solver": 0.17,
                        "calls_per_step": 0.25, "members_lost": gone,
                    })  # fmt: skip
        pd.DataFrame(rows).to_csv(self.table, index=False)
        pd.DataFrame(windows).to_csv(self.windows, index=False)

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
            "estimated_level": (("level", "pair", "frame"), level[:, None, None] + random.integers(-2, 3, (6, pairs, 2))),
            "level_of_true_pair": (("pair", "frame"), random.integers(0, 3, (pairs, 2))),
            "level_of_surrogate": (("pair", "frame"), random.integers(0, 6, (pairs, 2))),
            "rollout_level": (("rollout_step", "member", "frame"), (rise + random.uniform(0, 2, rise.shape)).astype(int)),
            "rollout_step": (("rollout_step",), time),
        }
        self.diagnostics[name] = str(self.folder / f"{name}_diagnostics.nc")
        xr.Dataset(values, {"level": level}, {"method": name, "levels": 20}).to_netcdf(self.diagnostics[name])
