"""A long rollout in parts: is its flow the solver's at the end as it is at the beginning?

    python benchmarks/long_rollout.py RUN/kolmogorov/rollouts/METHOD --reference RUN/kolmogorov/reference --parts 10

It prints a table in Markdown. Each part has equally many steps, and each value is that of the part over the reference's, with the
standard error over members. The rollout may be unfinished: its segments so far count.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.data.segments import open_segments
from sns_core.metrics.distances import decorrelation_time, spectrum_error
from sns_core.metrics.lost import is_lost

MEANS = {"kinetic_energy": "kinetic energy", "enstrophy": "enstrophy", "relative_change": "change per step"}
HEAD = ["steps, thousands", "spectrum error", *MEANS.values(), "variance of the energy", "memory", "mean flow", "its phase, degrees",
        "out of range"]  # fmt: skip


def statistics_of(folder: Path) -> xr.Dataset:
    """Return the statistics of all segments below a folder, of the first layer."""
    return open_segments(sorted(folder.glob("*/segment_*.nc")))[1].isel(layer=0).load()


def mean_flow(blocks: xr.Dataset) -> np.ndarray:
    """Return the Fourier coefficients (member, wavenumber along y) of the mean velocity along x."""
    return np.fft.rfft(blocks["zonal_profile"].mean("block").values, axis=-1)


def memory(blocks: xr.Dataset) -> float:
    """Return the time in which the correlation of frames falls to a half."""
    return decorrelation_time(blocks["lag"].values, blocks["correlation"].mean(("member", "block")).values)


def parts_of(rollout: xr.Dataset, reference: xr.Dataset, parts: int) -> list[dict]:
    """Return the scores of each part of a rollout over those of the reference; (mean, standard error) of what members differ in."""
    expected = mean_flow(reference).mean(0)
    wavenumber = 1 + int(np.abs(expected[1:]).argmax())  # of the mean flow
    energy, spectrum = reference["kinetic_energy"].values, reference["energy_spectrum"].mean(("member", "block")).values
    peak, rows = float(reference["max_abs"].max()), []
    sections = (np.array_split(np.arange(rollout.sizes[axis]), parts) for axis in ("step", "block"))
    for steps, blocks in zip(*sections, strict=True):
        part, frames = rollout.isel(step=steps), rollout.isel(block=blocks)
        mine = part["kinetic_energy"].values
        flow = mean_flow(frames)[:, wavenumber] / expected[wavenumber]
        outside = (mine > energy.max()) | (mine < energy.min()) | (part["max_abs"].values > peak)
        row = {name: with_error(part[name].mean("step").values / float(reference[name].mean())) for name in MEANS}
        row |= {
            "steps": (int(steps[0]), int(steps[-1]) + 1),
            "spectrum": float(spectrum_error(frames["energy_spectrum"].mean(("member", "block")).values, spectrum)),
            "variance": with_error(((mine - energy.mean()) ** 2).mean(-1) / ((energy - energy.mean()) ** 2).mean()),
            "memory": memory(frames) / memory(reference),
            "flow": with_error(np.abs(flow)),
            "phase": np.degrees(np.angle(flow)),
            "outside": float(outside.mean()),
        }
        rows.append(row)
    return rows


def with_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean over members and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.nan


def table(rows: list[dict]) -> str:
    """Return the table in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for row in rows:
        first, last = (step / 1000 for step in row["steps"])
        *ratios, flow = ("{:.3f} ± {:.3f}".format(*row[name]) for name in (*MEANS, "variance", "flow"))
        cells = [f"{first:g} to {last:g}", f"{row['spectrum']:.4f}", *ratios, f"{row['memory']:.3f}", flow]
        cells += [f"{row['phase'].min():.1f} to {row['phase'].max():.1f}", f"{100 * row['outside']:.2f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rollout", type=Path, help="folder of a method's rollout, which holds folders of segments")
    parser.add_argument(
        "--reference", type=Path, required=True, help="folder of the reference's rollouts of the solver"
    )
    parser.add_argument("--parts", type=int, default=10)
    words = parser.parse_args()
    for folder in (words.rollout, words.reference):
        if not list(folder.glob("*/segment_*.nc")):
            print(
                f"{folder}: holds no segments; name a folder like results/demo/kolmogorov/rollouts/sns", file=sys.stderr
            )
            return 1
    rollout = statistics_of(words.rollout)
    if not 1 <= words.parts <= rollout.sizes["block"]:
        print(f"--parts: must be between 1 and {rollout.sizes['block']}, the blocks of the rollout", file=sys.stderr)
        return 1
    print(table(parts_of(rollout, statistics_of(words.reference), words.parts)))
    lost = sorted({int(step) for step in rollout["lost_step"].values.ravel() if is_lost(step)})
    print(f"\nlost at steps: {', '.join(map(str, lost)) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
