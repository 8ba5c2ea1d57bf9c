"""The table of a sweep: means over seeds with intervals, one row per setting; and its figure."""

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sns_core.errors import UserError
from sns_core.figures.style import method_styles
from sns_core.figures.sweep import _along, _read, _title, plot_sweep
from sns_core.metrics.sweep import tabulate_sweep
from sns_core.record import inputs_of, outputs_of


def scorecard(path, errors, lost=0, methods=("solver", "sns")):
    rows = [
        {"system": "kolmogorov", "method": method, "score": score, "layer": np.nan, "lead": np.nan, "value": value,
         "low": 0.9 * value, "high": 1.2 * value, "floor_low": 0.005, "floor_high": 0.025, "inside": value <= 0.025,
         "members_lost": lost if method == "sns" else 0, "members": 8}
        for method in methods
        for score, value in (("spectrum_error", errors[method]), ("kinetic_energy", 1e40 * lost + 1.0))
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture
def files(tmp_path):
    return {"output": tmp_path / "sweep.csv", "output_readable": tmp_path / "sweep.md"}


def test_means_intervals_and_spreads_are_those_of_the_seeds(tmp_path, files):
    values = [{"solver": 0.01, "sns": error} for error in (0.02, 0.04, 0.06)]
    cards = [scorecard(tmp_path / f"{i}.csv", v, lost=i) for i, v in enumerate(values)]
    tabulate_sweep(scorecards=cards, places=[{"seed": seed} for seed in (4, 5, 6)], **files)
    row = pd.read_csv(files["output"]).set_index(["method", "score"]).loc[("sns", "spectrum_error")]
    deviation = np.std([0.02, 0.04, 0.06], ddof=1)
    assert row["mean"] == pytest.approx(0.04) and row["deviation"] == pytest.approx(deviation)
    assert (row["least"], row["greatest"], row["runs"]) == pytest.approx((0.02, 0.06, 3))
    # Student's 95 % quantile for two degrees of freedom is 2.92.
    assert row["high"] - row["mean"] == pytest.approx(2.92 * deviation / np.sqrt(3), rel=1e-3)
    assert row["mean"] - row["low"] == pytest.approx(row["high"] - row["mean"])
    assert (row["floor_low"], row["floor_high"], row["inside"]) == pytest.approx((0.005, 0.025, 1))
    assert [row[f"seed_{seed}"] for seed in (4, 5, 6)] == [0.02, 0.04, 0.06]
    line = next(line for line in files["output_readable"].read_text().splitlines() if line.startswith("| sns"))
    assert line.split(" | ")[1:4] == ["3 of 24", "0.040 ± 0.020", "diverges"]


def test_intervals_end_where_a_score_can_be_no_less_and_no_more(tmp_path, files):
    cards = [scorecard(tmp_path / f"{i}.csv", {"solver": 0.01, "sns": v}) for i, v in enumerate((0.01, 0.9))]
    scores = {"spectrum_error": "zonal_error", "kinetic_energy": "out_of_range"}
    more = {"solver": (3000, 3000), "sns": (2900, 3000)}
    for i, path in enumerate(cards):
        table = pd.read_csv(path)
        signed = table.assign(score=table["score"].map(scores))
        shares = table.iloc[:2].assign(score="refined_share", method=["solver", "sns"], value=[0.1, (0.2, 1.0)[i]])
        lived = table.iloc[:2].assign(score="stability_horizon", value=[more[name][i] for name in ("solver", "sns")])
        pd.concat([table, signed, shares, lived.assign(method=["solver", "sns"])]).to_csv(path, index=False)
    tabulate_sweep(scorecards=cards, places=[{"seed": seed} for seed in (4, 5)], **files)
    rows = pd.read_csv(files["output"]).set_index(["method", "score"]).loc["sns"]
    assert rows.loc["spectrum_error", "low"] == 0 and rows.loc["zonal_error", "low"] < 0
    assert rows.loc["spectrum_error", "high"] > 1 and rows.loc["refined_share", "high"] == 1
    assert rows.loc["stability_horizon", "high"] == 3000


def test_each_setting_has_rows_of_its_own_and_a_single_run_its_own_interval(tmp_path, files):
    errors = {0.1: {"solver": 0.01, "sns": 0.02}, 0.2: {"solver": 0.01, "sns": 0.5}}
    cards = [scorecard(tmp_path / f"{value}.csv", each) for value, each in errors.items()]
    tabulate_sweep(scorecards=cards, places=[{"viscosity": value, "name": "a"} for value in errors], **files)
    table = pd.read_csv(files["output"]).set_index(["viscosity", "method", "score"])
    row = table.loc[(0.2, "sns", "spectrum_error")]
    assert (row["mean"], row["low"], row["high"], row["runs"]) == pytest.approx((0.5, 0.45, 0.6, 1))
    assert table.loc[(0.1, "sns", "spectrum_error"), "mean"] == 0.02 and len(table) == 8
    assert "| 0.2 | a | sns | 0 of 8 | 0.50 |" in files["output_readable"].read_text()


def test_a_system_has_rows_for_its_own_layers_alone(tmp_path, files):
    cards = [scorecard(tmp_path / f"{i}.csv", {"solver": 0.01, "sns": 0.02}) for i in range(2)]
    table = pd.read_csv(cards[1]).assign(system="qg")
    spectra = table[table["score"] == "spectrum_error"]
    rest = table[table["score"] != "spectrum_error"]
    pd.concat([spectra.assign(layer="upper"), spectra.assign(layer="lower"), rest]).to_csv(cards[1], index=False)
    pd.read_csv(cards[0]).assign(layer="flow").to_csv(cards[0], index=False)
    tabulate_sweep(scorecards=cards, places=[{"steps": 20}] * 2, **files)
    rows = [line.split(" | ")[1:4] for line in files["output_readable"].read_text().splitlines()[4:]]
    assert [row for row in rows if row[1] == "sns"] == [
        ["kolmogorov", "sns", "flow"], ["qg", "sns", "upper"], ["qg", "sns", "lower"],
    ]  # fmt: skip
    places = [("kolmogorov", "flow"), ("qg", "upper"), ("qg", "lower")]
    assert [_title(*place, places) for place in places] == ["kolmogorov", "qg upper", "qg lower"]
    assert [_title(*place, places[1:]) for place in places[1:]] == ["upper", "lower"]


def test_both_tables_are_recorded_as_outputs(tmp_path, files):
    arguments = {"scorecards": [tmp_path / "a.csv"], **files}
    assert outputs_of(arguments) == list(files.values())
    for path in (tmp_path / "a.csv", *files.values()):
        path.write_text("x")
    assert inputs_of(tabulate_sweep, arguments) == [tmp_path / "a.csv"]


def test_seeds_with_other_methods_are_refused_and_settings_with_other_methods_are_not(tmp_path, files):
    first = scorecard(tmp_path / "a.csv", {"solver": 0.1, "sns": 0.1})
    second = scorecard(tmp_path / "b.csv", {"solver": 0.1}, methods=("solver",))
    with pytest.raises(UserError, match="runs of two seeds score different methods"):
        tabulate_sweep(scorecards=[first, second], places=[{"seed": 0}, {"seed": 1}], **files)
    tabulate_sweep(scorecards=[first, second], places=[{"methods": 0}, {"methods": 1}], **files)
    assert pd.read_csv(files["output"]).groupby("methods")["method"].nunique().tolist() == [2, 1]


@pytest.mark.parametrize("axes", [["seed"], ["viscosity", "seed"], ["viscosity", "kind"]])
def test_the_figure_shows_every_method_whatever_is_swept(tmp_path, files, axes):
    values = {"seed": [0, 1], "viscosity": [0.1, 1.0], "kind": ["a", "b"]}
    places = [{axes[0]: value} for value in values[axes[0]]]
    places = [{**place, name: value} for place in places for name in axes[1:] for value in values[name]] or places
    rng = np.random.default_rng(0)
    cards = [
        scorecard(tmp_path / f"{i}.csv", {"solver": 0.01, "sns": rng.uniform(0.02, 0.04)}) for i in range(len(places))
    ]
    tabulate_sweep(scorecards=cards, places=places, **files)
    labels = {"solver": "Solver", "sns": "SNS"}
    plot_sweep(table=files["output"], axes=axes, labels=labels, dpi=60, output=tmp_path / "sweep.png")
    picture = matplotlib.image.imread(tmp_path / "sweep.png")[..., :3]
    orange = np.abs(picture - np.array([0xD5, 0x5E, 0x00]) / 255).max(-1) < 0.1
    assert orange.sum() > 20, "the colour of the method"
    assert (tmp_path / "sweep.pdf").exists()


@pytest.mark.parametrize("values", [["true", "false"], ["null", 3]])
def test_the_figure_names_the_values_true_false_and_null(tmp_path, files, values):
    cards = [scorecard(tmp_path / f"{i}.csv", {"solver": 0.01, "sns": 0.02}) for i in range(2)]
    tabulate_sweep(scorecards=cards, places=[{"setting": value} for value in values], **files)
    table = _read(files["output"])
    axis = Figure().add_subplot()
    _along(axis, table[table["score"] == "spectrum_error"], ["setting"], method_styles({"sns": "SNS"}))
    assert [label.get_text() for label in axis.get_xticklabels()] == [str(value) for value in values]
    assert [list(bar.lines[0].get_xdata()) for bar in axis.containers] == [[0, 1]]
