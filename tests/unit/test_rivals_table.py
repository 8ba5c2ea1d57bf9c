"""The table and the picture of docs/comparison.md, from the tables of runs."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sns_core.errors import UserError

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def rivals(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import rivals

    return rivals


def write_run(folder: Path, errors: dict[str, float]) -> Path:
    """Write the tables of a run whose methods have these spectrum errors; the n-th method takes n seconds."""
    folder.mkdir()
    scores = {"spectrum_error": None, "kinetic_energy": None, "crps": 1, "spread_skill": 5}
    card = [
        {
            "system": "s", "method": method, "score": name, "layer": "flow", "lead": lead, "inside": True, "members": 8,
            "value": error if name == "spectrum_error" else 0.5, "members_lost": int(np.isnan(error)),
        }
        for method, error in errors.items()
        for name, lead in scores.items()
    ]  # fmt: skip
    pd.DataFrame(card).to_csv(folder / "scorecard.csv", index=False)
    texts = dict.fromkeys(("beaten_by", "verdict", "score", "time_units", "machine"), "x")
    cost = [
        {"contender": method, "kind": "method", "seconds": number, "preparation": 100.0, **texts}
        for number, method in enumerate(errors, 1)
    ]
    pd.DataFrame(cost).to_csv(folder / "cost.csv", index=False)
    return folder


def test_the_table_holds_means_over_runs_and_says_which_are_lost(rivals, tmp_path):
    runs = [
        write_run(tmp_path / "a", {"solver": 0.01, "sns": 0.02, "weak": np.nan}),
        write_run(tmp_path / "b", {"solver": 0.03, "sns": 0.02, "weak": 0.5}),
    ]
    lines = rivals.markdown(rivals.read_runs(runs)).splitlines()
    assert lines[2].startswith("| `solver` | 0 of 16 | 0.02 ± 0.01 | 0.5 ± 0 | 0.5 ± 0 | – |")
    assert lines[4].startswith("| `weak` | 1 of 16 | lost |") and lines[4].endswith("| 3 ± 0 | 100 ± 0 |")


UNSEEN = """<!-- unseen seeds -->
| method | seeds | lost | spectrum error | 10 steps | network calls |
|---|---|---|---|---|---|
| Two calls | 16, 17 | 0 of 16 | 0.01 to 0.02 | | 2 |
| **SNS** | 16 to 21 | 0 of 48 | **0.004 to 0.03** | 0.2 | 1 |
| Better, but loses | 16 | 3 of 8 | 0.001 | 0.1 | 1 |
| Worse | 16 | 0 of 8 | 0.05 | 0.3 | 1 |
| No better with more | 16 | 0 of 8 | 0.02 | 0.4 | 3 |
| Solver | 16 to 21 | 0 of 48 | 0.002 to 0.008 | 0.01 | 0 |
<!-- end of unseen seeds -->
"""


def test_the_page_and_the_picture_are_made_and_the_rest_of_the_page_stays(rivals, tmp_path, monkeypatch):
    page, picture = tmp_path / "page.md", tmp_path / "picture.png"
    page.write_text(f"before\n<!-- rivals -->\nold\n<!-- end of rivals -->\nafter\n{UNSEEN}")
    run = write_run(tmp_path / "a", {"solver": 0.01, "sns": 0.02})
    monkeypatch.setattr(sys, "argv", ["rivals.py", str(run), "--page", str(page), "--picture", str(picture)])
    rivals.main()
    text = page.read_text()
    assert text.startswith("before\n<!-- rivals -->\n| method |") and text.endswith(
        f"<!-- end of rivals -->\nafter\n{UNSEEN}"
    )
    assert "old" not in text and "| `sns` | 0 of 8 | 0.02 | 0.5 |" in text
    assert picture.stat().st_size > 5000 and not picture.with_suffix(".pdf").exists()


def test_the_picture_has_the_ranges_of_the_page_and_its_front_keeps_all_members(rivals):
    table = rivals.read_unseen(UNSEEN)
    assert list(table["method"])[:2] == ["Solver", "Better, but loses"] and list(table["calls"]) == [0, 1, 1, 1, 2, 3]
    ours = table[table["method"] == "SNS"].iloc[0]
    assert (ours["seeds"], ours["spectrum error, low"], ours["spectrum error, high"]) == (6, 0.004, 0.03)
    assert table[table["method"] == "Two calls"].iloc[0]["seeds"] == 2
    assert rivals.unbeaten(table, "spectrum error") == {"SNS", "Two calls"}
    assert rivals.unbeaten(table, "10 steps") == {"SNS"}


def test_the_table_of_unseen_seeds_on_the_page_can_be_drawn(rivals):
    table = rivals.read_unseen((FOLDER.parent / "docs" / "comparison.md").read_text())
    assert len(table) > 20 and table["method"].is_unique
    assert (table["spectrum error, low"] <= table["spectrum error, high"]).all()
    assert not table["method"].str.startswith("…").any(), "a row stands alone in the picture"


def test_runs_of_other_methods_and_a_page_without_marks_are_refused(rivals, tmp_path, monkeypatch, capsys):
    runs = [write_run(tmp_path / "a", {"solver": 0.01}), write_run(tmp_path / "b", {"sns": 0.01})]
    with pytest.raises(UserError, match="scores other methods than"):
        rivals.read_runs(runs)
    page = tmp_path / "page.md"
    page.write_text("no marks\n")
    monkeypatch.setattr(sys, "argv", ["rivals.py", str(runs[0]), "--page", str(page)])
    with pytest.raises(SystemExit):
        rivals.main()
    assert "lacks the lines <!-- rivals -->" in capsys.readouterr().err and page.read_text() == "no marks\n"
