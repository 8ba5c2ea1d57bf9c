"""The report in a real browser without a network: its first screen, on a page and on a phone, light and dark."""

import json

import pytest
from test_figures import CAPTIONS, CONFIGURATION, METHODS, Synthetic, draw, tiny_movie

from sns_core.record import record_provenance
from sns_core.report import write_report


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """A report with two figures; `published` loses two of three members."""
    folder = tmp_path_factory.mktemp("report")
    source = Synthetic(folder / "results")
    figures = draw(source, folder / "figures", ("fields", "cost"))
    (folder / "manifest.json").write_text(json.dumps({"identity": "d" * 64}))
    made = {"manifest": str(folder / "manifest.json"), "data": {}, "models": {}, "segments": source.segments}
    systems = {"kolmogorov": made}
    record_provenance(
        configuration=CONFIGURATION,
        systems=systems,
        methods={"kolmogorov": {}},
        seed=3,
        output=folder / "provenance.json",
    )
    files = {
        "figures": {name: str(path) for name, path in figures.items()},
        "metrics": str(source.table),
        "windows": str(source.windows),
        "scorecard": str(source.scorecard),
        "cost": str(source.cost),
        "reference": str(source.reference),
        "floors": str(source.floors),
        "movie": str(tiny_movie(folder / "movie_small.mp4")),
        "explorer": str(folder / "explorer.html"),
        "methods": METHODS,
    }
    write_report(
        systems={"kolmogorov": files},
        captions={name: (CAPTIONS / f"{name}.rst").read_text() for name in (*figures, "movie")},
        provenance=folder / "provenance.json",
        output=folder / "report.html",
    )
    return folder / "report.html"


def opened(browser, report, width=1280, height=800, scheme="light"):
    page = browser.page(width, height, prefers_color_scheme=scheme)
    page.open(report)
    return page


def test_the_first_screen_shows_the_result(browser, report):
    page = opened(browser, report)
    for selector in (".result", ".numbers", "video"):
        place = page.run(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
        assert place["top"] < 600, f"{selector} is on the first screen"
    assert "keeps all 3 members" in page.run("document.querySelector('.result').textContent")
    assert page.run("document.querySelectorAll('.numbers .big').length") == 3
    assert page.run("document.querySelector('video').poster").startswith("data:image/jpeg")
    assert page.events("Runtime.exceptionThrown") == page.events("Log.entryAdded") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_a_phone(browser, report, scheme):
    page = opened(browser, report, 390, 844, scheme)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert (page.screenshot()[2, 2].max() < 60) == (scheme == "dark")


def test_the_first_column_of_a_wide_table_stays(browser, report):
    page = opened(browser, report, 390, 844)
    cell = "#kolmogorov-scorecard tbody tr td"
    left = page.box(cell)["x"]
    page.run("document.querySelector('#kolmogorov-scorecard .scroll').scrollLeft = 200")
    assert page.run("document.querySelector('#kolmogorov-scorecard .scroll').scrollLeft") == 200
    assert page.box(cell)["x"] == pytest.approx(left, abs=1)


def test_a_figure_can_be_enlarged(browser, report):
    page = opened(browser, report, 390, 844)
    image = "#kolmogorov-fields img"
    before = page.box(image)["width"]
    page.click(image)
    page.wait(f"document.querySelector('{image}').getBoundingClientRect().width > 1000")
    assert before < 390 and page.run("document.documentElement.scrollWidth") <= 390
