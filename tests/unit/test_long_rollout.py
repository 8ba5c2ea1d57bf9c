"""The table of a long rollout in parts, from statistics whose scores are known."""

import numpy as np
import pytest
import xarray as xr

MEMBERS, STEPS, BLOCKS, ROWS = 3, 80, 8, 16


@pytest.fixture
def long_rollout(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import long_rollout

    return long_rollout


def statistics(energy: float = 1.0, power: float = 1.0, rows: int = 0) -> xr.Dataset:
    """Return statistics with a mean flow that is moved by `rows` of sixteen; the energy is `energy` or twice as much, in turn."""
    y = 2 * np.pi * (np.arange(ROWS) - rows) / ROWS
    turns = np.tile([energy, 2 * energy], STEPS // 2)
    series = np.broadcast_to(turns, (MEMBERS, STEPS))
    fields = {
        name: (("member", "step"), series) for name in ("kinetic_energy", "enstrophy", "relative_change", "max_abs")
    }
    return xr.Dataset(
        {
            **fields,
            "energy_spectrum": (("member", "block", "wavenumber"), np.full((MEMBERS, BLOCKS, 20), power)),
            "zonal_profile": (("member", "block", "y"), np.tile(np.sin(2 * y), (MEMBERS, BLOCKS, 1))),
            "correlation": (("member", "block", "lag"), np.tile(np.linspace(1, 0, 11), (MEMBERS, BLOCKS, 1))),
            "lost_step": ("member", np.full(MEMBERS, -1)),
        },
        {"lag": np.arange(11.0)},
    )


def test_a_rollout_like_the_reference_has_ratios_of_one_in_each_part(long_rollout):
    rows = long_rollout.parts_of(statistics(), statistics(), 4)
    assert [row["steps"] for row in rows] == [(0, 20), (20, 40), (40, 60), (60, 80)]
    for row in rows:
        for name in (*long_rollout.MEANS, "variance", "flow"):
            assert row[name] == pytest.approx((1.0, 0.0))
        assert row["memory"] == pytest.approx(1) and row["spectrum"] == 0 and row["outside"] == 0
        np.testing.assert_allclose(row["phase"], 0, atol=1e-9)
    text = long_rollout.table(rows).splitlines()
    assert len(text) == 6 and {line.count("|") for line in text} == {11}


def test_what_differs_is_measured(long_rollout):
    (row,) = long_rollout.parts_of(statistics(energy=1.25, power=10.0, rows=2), statistics(), 1)
    assert row["kinetic_energy"][0] == pytest.approx(1.25) and row["spectrum"] == pytest.approx(1.0)
    # Energies 1.25 and 2.5 about the reference's mean of 1.5, whose own variance is 1 / 4.
    assert row["variance"][0] == pytest.approx((0.25**2 + 1.0) / 2 / 0.25)
    assert row["outside"] == 0.5, "2.5 is above all energies of the reference"
    # Two rows of sixteen are a quarter of the flow's period of eight rows.
    np.testing.assert_allclose(row["phase"], -90, atol=1e-9)
    assert row["flow"][0] == pytest.approx(1)


def test_a_folder_without_segments_is_one_line(long_rollout, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["long_rollout.py", str(tmp_path), "--reference", str(tmp_path)])
    assert long_rollout.main() == 1
    assert "holds no segments" in capsys.readouterr().err


@pytest.mark.parametrize("parts", [0, BLOCKS + 1])
def test_parts_without_a_block_are_refused_in_one_line(long_rollout, tmp_path, capsys, monkeypatch, parts):
    (tmp_path / "0-2").mkdir()
    (tmp_path / "0-2" / "segment_0000.nc").touch()
    monkeypatch.setattr(long_rollout, "statistics_of", lambda folder: statistics())
    words = ["long_rollout.py", str(tmp_path), "--reference", str(tmp_path), "--parts", str(parts)]
    monkeypatch.setattr("sys.argv", words)
    assert long_rollout.main() == 1
    assert capsys.readouterr().err == f"--parts: must be between 1 and {BLOCKS}, the blocks of the rollout\n"
