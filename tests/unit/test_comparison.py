"""Two runs beside each other: what differs in their records, and which scores lie apart."""

import json
import re
from pathlib import Path

import pytest
from small_run import CONFIGURATION, SCORES, make_run

from sns_core.__main__ import main
from sns_core.comparison import Run, compare_runs, differences, flatten, headline, lie_apart, whole_titles
from sns_core.files import read_json, record_path, write_json


@pytest.fixture
def left(tmp_path) -> Path:
    return make_run(tmp_path / "a")


def compared(left: Path, right: Path) -> dict:
    return compare_runs(Run.read(left), Run.read(right))


def test_a_run_does_not_differ_from_its_copy(left, tmp_path):
    comparison = compared(left, make_run(tmp_path / "b", CONFIGURATION | {"run": "b"}))
    assert not any(comparison[part] for part in ("configuration", "data", "machine"))
    assert comparison["code"] == [{"stage": "compute_metrics", "count": 0, "of": 2}]
    (system,) = comparison["systems"]
    assert [row["apart"] for rows in system["scores"].values() for row in rows] == [False] * 4
    assert [picture["right"] for picture in system["pictures"]] == ["equal"]
    assert headline(comparison).endswith("0 of 4 scores lie apart.")


def test_each_difference_is_told_in_its_place(left, tmp_path):
    altered = json.loads(json.dumps(CONFIGURATION)) | {"seed": 1}
    altered["systems"]["unused"]["viscosity"] = 2.0  # the run does not use this system
    altered["methods"]["sns"]["stride"] = 4
    scores = [*SCORES[:1], ("sns", "spectrum_error", "", None, 0.3, 0.2, 0.4), *SCORES[2:3]]
    scores.append(("sns", "seconds_per_step", "", None, 9.0, 9.0, 9.0))
    right = make_run(tmp_path / "b", altered, scores, b"another", shard="b", code="d")
    comparison = compared(left, right)
    assert comparison["configuration"] == [
        {"key": "seed", "left": "0", "right": "1"},
        {"key": "methods.sns.stride", "left": "–", "right": "4"},
    ]
    assert comparison["code"] == [{"stage": "compute_metrics", "count": 1, "of": 2}]
    assert [row["key"] for row in comparison["data"]] == ["flow: data of train"]
    apart = [
        (m, row["title"]) for m, rows in comparison["systems"][0]["scores"].items() for row in rows if row["apart"]
    ]
    assert apart == [("sns", "Spectrum error (decades)")]
    assert headline(comparison).startswith("2 settings differ, other code made 1 of 2 common results, 1 checksum")


@pytest.mark.parametrize("stage", ["take_result", "link_result"])
def test_a_copied_result_is_not_counted_as_made_by_other_code(left, tmp_path, stage):
    right = make_run(tmp_path / "b")
    path = record_path(right / "flow/metrics/sns.nc")
    write_json(path, {**read_json(path), "stage": stage, "fingerprint": "of the copy"})
    comparison = compared(left, right)
    assert comparison["code"] == [{"stage": "compute_metrics", "count": 0, "of": 1}]
    assert "other code made 0 of 1 common result," in headline(comparison)
    assert [row["of"] for row in compared(right, right)["code"]] == [1]


def test_a_title_that_goes_on_from_the_row_above_is_whole():
    titles = whole_titles()
    assert titles["worst_window_spectrum_error"] == "Spectrum error of the worst window"
    assert titles["enstrophy_variance"] == "Enstrophy, its variance / solver"
    assert titles["zonal_strength"] == "Zonal-mean flow, its strength / solver"
    assert len(set(titles.values())) == len(titles) and not any("…" in title for title in titles.values())


def test_a_method_of_one_run_alone_is_shown_and_not_judged(left, tmp_path):
    right = make_run(tmp_path / "b", scores=[*SCORES, ("new", "spectrum_error", "", None, 9.0, 8.0, 10.0)])
    (row,) = compared(left, right)["systems"][0]["scores"]["new"]
    assert row["left"] is None and row["right"]["value"] == 9.0 and not row["apart"]


nan = float("nan")


@pytest.mark.parametrize(
    ("mine", "yours", "apart"),
    [
        ((1, 0, 2), (3, 2.5, 4), True),
        ((3, 2.5, 4), (1, 0, 2), True),
        ((1, 0, 2), (3, 2, 4), False),
        ((1, nan, nan), (1, nan, nan), False),
        ((1, nan, nan), (2, nan, nan), True),
        ((nan, nan, nan), (nan, nan, nan), False),
        ((nan, nan, nan), (1, 0, 2), True),
    ],
)
def test_scores_lie_apart_where_their_intervals_do_not_overlap(mine, yours, apart):
    left, right = (dict(zip(("value", "low", "high"), score, strict=True)) for score in (mine, yours))
    assert lie_apart(left, right) is apart


def test_nested_settings_have_dotted_names_and_lists_are_whole():
    flat = flatten({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": {}})
    assert flat == {"a.b.c": 1, "a.d": [1, 2], "e": {}}
    assert differences(flat, flat | {"a.b.c": 1.0}) == []
    assert differences(flat, flat | {"a.d": [2, 1]}) == [{"key": "a.d", "left": "[1, 2]", "right": "[2, 1]"}]


def test_the_command_prints_the_differences_and_writes_one_page(left, tmp_path, capsys):
    altered = CONFIGURATION | {"seed": 1, "note": "<b>"}
    right = make_run(tmp_path / "b", altered, picture=b"another")
    assert main(["compare", str(left), str(right)]) == 0
    text = capsys.readouterr().out
    assert "seed: 0 | 1" in text and str(tmp_path / "a_and_b.html") in text
    page = (tmp_path / "a_and_b.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "&lt;b&gt;" in page and "<b>&lt;" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert not (tmp_path / "provenance").exists()


def test_a_folder_without_a_run_ends_in_one_line(left, tmp_path, capsys):
    assert main(["compare", str(left), str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith(f"compare: {tmp_path}: no finished run")
    assert main(["compare", str(left)]) == 1
    assert "missing argument RIGHT" in capsys.readouterr().err


def test_runs_of_other_systems_have_nothing_to_compare(left, tmp_path, capsys):
    right = make_run(tmp_path / "b")
    record = json.loads((right / "provenance.json").read_text())
    record["systems"] = {"jet": record["systems"]["flow"]}
    write_json(right / "provenance.json", record)
    assert main(["compare", str(left), str(right)]) == 1
    assert "no system in common (flow; jet)" in capsys.readouterr().err
