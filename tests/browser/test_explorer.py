"""The page to explore a run and the movie of the report, in a real browser without a network."""

import base64
import json

import numpy as np
import pytest
import xarray as xr

from sns_core.figures.movie import plot_movie

BLOCK, STRIDE = 5, 2  # steps per block of the spectra, and steps between frames


@pytest.fixture
def page(browser, explorer):
    opened = browser.page(1280, 1000)
    opened.open(explorer)
    opened.wait("!document.getElementById('main').hidden && document.querySelector('#spectrum path.line')")
    yield opened
    assert opened.events("Runtime.exceptionThrown") == []
    assert opened.events("Runtime.consoleAPICalled") == []
    assert opened.events("Log.entryAdded") == []
    assert [request["request"]["url"] for request in opened.events("Network.requestWillBeSent")] == [explorer.as_uri()]


def panel(name: str) -> str:
    return f'[data-method="{name}"] canvas'


def scrub(page, frame: int) -> None:
    """Move the slider as a hand does: the value, then the event."""
    page.run(f"""(() => {{ const slider = document.getElementById("time"); slider.value = {frame};
        slider.dispatchEvent(new Event("input")); }})()""")


def member(page, index: int) -> None:
    page.click(f"#members label:nth-child({index + 1}) span")


def words(page, selector: str) -> str:
    return page.run(f"document.querySelector('{selector}').textContent")


def step_shown(page) -> int:
    return int(words(page, "#clock small").removeprefix("step "))


def distance(left: np.ndarray, right: np.ndarray) -> float:
    return float(abs(left.astype(int) - right.astype(int)).mean())


def test_fields_are_drawn_and_differ_by_method_time_member_and_layer(page):
    scrub(page, 9)
    assert step_shown(page) == 18
    solver, pointwise = page.part(panel("solver")), page.part(panel("pointwise"))
    for picture in (solver, pointwise):
        red, _, blue = picture.reshape(-1, 3).astype(int).T
        assert (red - blue > 60).mean() > 0.1 and (blue - red > 60).mean() > 0.1, (
            "both signs of the vorticity are there"
        )
    assert distance(solver, pointwise) > 10
    scrub(page, 3)
    earlier = page.part(panel("solver"))
    assert distance(earlier, solver) > 10
    member(page, 2)
    third_member = page.part(panel("solver"))
    assert distance(third_member, earlier) > 10
    page.click("#layers label:nth-child(2) span")
    assert distance(page.part(panel("solver")), third_member) > 2


def test_a_lost_member_is_marked_with_its_step(page):
    member(page, 0)
    scrub(page, 10)
    note = "[data-method='published'] p"
    assert page.run(f'document.querySelector("{note}").hidden')
    scrub(page, 11)
    assert words(page, "[data-method=published] p") == "lost at step 21"
    grey = page.part('[data-method="published"] div')[10:60, 10:200]
    assert np.ptp(grey.reshape(-1, 3), axis=0).max() == 0
    member(page, 2)
    assert page.run(f'document.querySelector("{note}").hidden'), "member 2 is not lost"
    page.click("#methods label:nth-child(5) span")
    assert words(page, "[data-method=generation] p") == "run for 5 steps"


def test_pointing_at_the_spectrum_shows_the_values_of_the_metrics(page, source):
    chosen, frame = 1, 7
    member(page, chosen)
    scrub(page, frame)
    block = -(-frame * STRIDE // BLOCK) - 1
    k = xr.open_dataset(source.reference)["wavenumber"].values[1:]
    box = page.box("#spectrum")
    ensemble = xr.open_dataset(source.reference)["energy_spectrum"].isel(layer=0).mean("member").values[1:]
    for shell in (0, 4, len(k) - 1):
        part = np.log(k[shell] / (0.92 * k[0])) / np.log(1.06 * k[-1] / (0.92 * k[0]))
        page.mouse("mouseMoved", box["x"] + 46 + part * (box["width"] - 58), box["y"] + 90)
        page.wait(f"document.getElementById('reading-shell').textContent === 'k = {k[shell]:g}'")
        for method in ("solver", "pointwise", "published", "coloured"):
            truth = xr.open_dataset(source.metrics[method])["energy_spectrum"]
            truth = truth.transpose("member", "block", "layer", "wavenumber").values[chosen, block, 0, 1 + shell]
            row = f"#reading [data-method={method}] td"
            value = float(page.run(f"document.querySelector('{row}').dataset.value"))
            assert np.float32(value) == np.float32(truth)
            mantissa, _, power = words(page, row).partition(" × 10")
            exponent = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
            assert float(mantissa) * 10.0**exponent == pytest.approx(truth, rel=1e-3)
            assert float(words(page, f"{row}:last-child")) == pytest.approx(truth / ensemble[shell], rel=1e-2)
    assert words(page, "#spectrum-block").startswith("mean over steps 11 to 15")


def test_the_page_plays_pauses_and_jumps_to_a_click(page):
    scrub(page, 0)
    page.click("#play")
    page.wait("document.getElementById('time').value > 2")
    assert (
        words(page, "#play") == ""
        and page.run("document.getElementById('play').getAttribute('aria-pressed')") == "true"
    )
    page.click("#play")
    stopped = page.run("document.getElementById('time').value")
    page.run("new Promise((done) => setTimeout(done, 400))")
    assert page.run("document.getElementById('time').value") == stopped
    # Between its margins, a chart runs from time 0 to the time of step 40.
    width = page.box("#kinetic_energy")["width"]
    page.click("#kinetic_energy", (46 + 0.25 * (width - 58)) / width)
    assert step_shown(page) == 10


def test_the_keyboard_controls_the_page(page):
    page.key("Home")
    assert step_shown(page) == 0
    for _ in range(3):
        page.key("ArrowRight")
    page.key("ArrowLeft")
    assert step_shown(page) == 2 * STRIDE
    page.key("End")
    assert step_shown(page) == 40
    page.key("m")
    assert page.run("document.querySelectorAll('#members input')[1].checked")
    page.key("l")
    assert page.run("document.querySelectorAll('#layers input')[1].checked")
    page.key("2")
    assert page.run("document.querySelector('#panels [data-method=pointwise]').hidden")
    page.run("document.getElementById('spectrum').focus()")
    page.key("Home")
    assert words(page, "#reading-shell") == "k = 1"
    page.key("ArrowRight")
    assert words(page, "#reading-shell") == "k = 2" and step_shown(page) == 40
    spoken = page.run("document.getElementById('spectrum').getAttribute('aria-valuetext')")
    assert spoken.startswith("k = 2: Solver ") and "Pointwise" not in spoken


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_the_page_fits_a_phone_and_the_dark_scheme(browser, explorer, width, scheme):
    page = browser.page(width, 800, prefers_color_scheme=scheme)
    page.open(explorer)
    page.wait("document.querySelector('#spectrum path.line')")
    assert page.run("document.documentElement.scrollWidth") <= width
    paper = page.screenshot()[2, 2]
    assert (paper.max() < 60) == (scheme == "dark")
    assert all(page.box(f"#{name}")["width"] >= 40 for name in ("play", "time"))
    assert page.run("document.querySelectorAll('#methods span')[0].getBoundingClientRect().height") >= 30
    assert not page.events("Runtime.exceptionThrown")


def test_a_damaged_page_shows_a_message(browser, explorer, tmp_path):
    broken = tmp_path / "broken.html"
    text = explorer.read_text()
    begin = text.index('id="data">') + 200
    broken.write_text(text[:begin] + "AAAA" + text[begin + 4 :])
    page = browser.page()
    page.open(broken)
    page.wait("!document.getElementById('trouble').hidden")
    assert "could not be drawn" in words(page, "#trouble")


def test_the_movie_of_a_report_plays(browser, source, tmp_path):
    """The report contains the movie; the browser plays it from a file, without a network."""
    eddies = {"resolution": 16, "length": 1.0e6, "beta": 1.5e-11, "bottom_drag": 5.8e-7, "layer_ratio": 0.25, "dt": 1e4,
              "deformation_radius": 15000.0, "upper_velocity": 0.025, "lower_velocity": 0.0, "eddy_frames": False}  # fmt: skip
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"system": {"name": "TwoLayerQG", "parameters": eddies}}))
    plot_movie(
        segments=source.segments, metrics=source.metrics, reference=source.reference, manifest=manifest, member=0,
        labels={"solver": "Solver", "published": "Published"}, methods=["solver", "published"], seconds=9.0, rate=10,
        output=tmp_path / "movie.mp4",
    )  # fmt: skip
    film = base64.b64encode((tmp_path / "movie_small.mp4").read_bytes()).decode()
    (tmp_path / "report.html").write_text(f'<video id="film" muted src="data:video/mp4;base64,{film}"></video>')
    page = browser.page(1000, 900)
    page.open(tmp_path / "report.html")
    page.wait("film.readyState >= 2 || film.error")
    if page.run("film.error && film.error.code === 4"):
        pytest.skip("this browser was built without H.264")
    assert page.run("film.duration") == pytest.approx(2.1, abs=0.01)
    page.run("film.currentTime = 0.4; new Promise((done) => film.onseeked = done)")
    first = page.screenshot()
    page.run("film.currentTime = 1.9; new Promise((done) => film.onseeked = done)")
    assert distance(first, page.screenshot()) > 1
