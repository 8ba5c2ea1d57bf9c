"""The table of several seeds: means and spreads of what each seed's scorecard says."""

import numpy as np
import pandas as pd
import pytest

from sns_core.errors import UserError
from sns_core.metrics.seeds import compare_seeds
from sns_core.record import inputs_of, outputs_of


def scorecard(path, errors, lost, methods=("solver", "sns")):
    rows = [
        {"system": "kolmogorov", "method": method, "score": score, "layer": np.nan, "lead": np.nan, "value": value,
         "floor_low": 0.005, "floor_high": 0.025, "inside": value <= 0.025, "members_lost": lost if method == "sns" else 0, "members": 8}
        for method in methods for score, value in (("spectrum_error", errors[method]), ("kinetic_energy", 1e40 * lost + 1.0))
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_means_and_spreads_are_those_of_the_seeds(tmp_path):
    values = [{"solver": 0.01, "sns": error} for error in (0.02, 0.03, 0.07)]
    files = [scorecard(tmp_path / f"{i}.csv", v, lost=i) for i, v in enumerate(values)]
    out = {"output": tmp_path / "seeds.csv", "output_readable": tmp_path / "seeds.md"}
    compare_seeds(scorecards=files, seeds=[4, 5, 6], **out)
    row = pd.read_csv(out["output"]).set_index(["method", "score"]).loc[("sns", "spectrum_error")]
    assert row["mean"] == pytest.approx(0.04) and row["deviation"] == pytest.approx(np.std([0.02, 0.03, 0.07], ddof=1))
    assert (row["least"], row["greatest"]) == pytest.approx((0.02, 0.07))
    assert (row["floor_low"], row["floor_high"], row["inside"]) == pytest.approx((0.005, 0.025, 1))
    assert [row[f"seed_{seed}"] for seed in (4, 5, 6)] == [0.02, 0.03, 0.07]
    row = next(line for line in out["output_readable"].read_text().splitlines() if line.startswith("| sns"))
    assert row.split(" | ")[1:4] == ["3 of 24", "0.040 ± 0.026", "diverges"]


def test_both_tables_are_recorded_as_outputs(tmp_path):
    arguments = {"scorecards": [tmp_path / "a.csv"], "output": tmp_path / "s.csv", "output_readable": tmp_path / "s.md"}
    assert outputs_of(arguments) == [tmp_path / "s.csv", tmp_path / "s.md"]
    for path in (tmp_path / "a.csv", *outputs_of(arguments)):
        path.write_text("x")
    assert inputs_of(compare_seeds, arguments) == [tmp_path / "a.csv"]


def test_runs_of_other_methods_are_not_compared(tmp_path):
    first = scorecard(tmp_path / "a.csv", {"solver": 0.1, "sns": 0.1}, 0)
    second = scorecard(tmp_path / "b.csv", {"solver": 0.1}, 0, methods=("solver",))
    with pytest.raises(UserError, match=r"b\.csv: scores other methods than"):
        compare_seeds(
            scorecards=[first, second], seeds=[0, 1], output=tmp_path / "c.csv", output_readable=tmp_path / "c.md"
        )
