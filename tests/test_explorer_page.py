"""The explorer's page in a browser: Debian's Chromium, from disk and offline."""

import pytest
from browsers import browser  # noqa: F401

from maskutils.core import paths
from maskutils.core.files import read_json
from maskutils.results import explorer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("site") / "explorer.html"
    path.write_text(explorer.page_of("study"), encoding="utf-8")
    assert path.stat().st_size < 1_500_000
    return path


@pytest.fixture
def opened(browser, file):  # noqa: F811
    """Opens the page in a colour scheme. Afterwards nothing may have been said on the console, nor asked of another host."""
    faults, contexts = [], []

    def open_page(scheme="light"):
        contexts.append(browser.new_context(offline=True, color_scheme=scheme, viewport={"width": 1150, "height": 900}))
        contexts[-1].set_default_timeout(120_000)  # a busy machine
        page = contexts[-1].new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or faults.append(r.url))
        page.goto(file.as_uri())
        page.wait_for_selector(".point")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def settings_of(page, kind):
    return page.eval_on_selector_all(f".point.{kind}", "nodes => nodes.map(n => n.dataset.setting)")


def test_the_slider_moves_the_choice(opened):
    page = opened()
    slider = page.get_by_label("I can lose at most", exact=True)
    before, first = page.locator(".told").first.inner_text(), settings_of(page, "chosen")
    assert "5 points" in before
    slider.press("Home")
    assert settings_of(page, "chosen") != first
    assert page.locator(".told").first.inner_text().startswith("Choose source_only. 1 of 681 settings lose at most 0")
    points, out = page.locator(".point").count(), len(settings_of(page, "out"))
    assert points - out == 1
    assert page.locator(".ring.chosen").count() == len(settings_of(page, "chosen")) == 1
    slider.press("End")
    assert len(settings_of(page, "out")) < out


def test_filters_leave_out_points(opened):
    page = opened()
    every = page.locator(".point").count()
    page.get_by_role("button", name="All families or none").click()
    assert page.locator(".point").count() == 0
    page.get_by_label("gumbel_sigmoid", exact=True).check()
    some = page.locator(".point").count()
    assert 0 < some < every
    labels = page.eval_on_selector_all(".point", "nodes => nodes.map(n => n.getAttribute('aria-label'))")
    assert all(label.startswith("gumbel_sigmoid") for label in labels)
    page.get_by_label("Pair", exact=True).select_option("mnist_to_inverted")
    assert "· mnist_to_inverted · 5 seeds ·" in page.locator(".point").first.get_attribute("aria-label")
    before = page.locator(".point").first.get_attribute("transform")
    page.get_by_label("Reading of the source").select_option("known")
    assert page.locator(".point").first.get_attribute("transform") != before


def test_a_point_is_told_and_pinned_by_mouse_and_by_keyboard(opened):
    page = opened()
    about = page.locator(".about")
    page.locator(".point").nth(100).hover(force=True)
    assert "(± 95 % interval)" in about.inner_text()
    page.get_by_label("Near the ideal only").focus()
    page.get_by_label("I can lose at most", exact=True).focus()
    page.keyboard.press("Tab")  # the plot is one stop
    assert page.evaluate("document.activeElement.classList.contains('chosen')")
    page.keyboard.press("ArrowLeft")
    told = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert about.inner_text() == told
    page.keyboard.press("Enter")
    assert page.locator(".ring.pinned").count() == 1
    page.get_by_label("I can lose at most", exact=True).press("Home")
    assert about.inner_text() == f"Pinned: {told}"
    page.locator(".point[aria-pressed=true]").press("Escape")
    assert page.locator(".ring.pinned").count() == 0


def test_it_follows_the_colour_scheme(opened):
    ink = "el => getComputedStyle(el).color"
    light, dark = (opened(scheme).locator(".mu").evaluate(ink) for scheme in ("light", "dark"))
    assert (light, dark) == ("rgb(0, 0, 0)", "rgb(255, 255, 255)")


def test_a_density_shows_what_was_computed_for_it(opened):
    page, masks = opened(), read_json(paths.results_dir("study") / "masks.json")
    picture = "() => document.querySelector('canvas').toDataURL()"
    told, before = page.locator(".accuracy"), page.evaluate(picture)
    page.get_by_label("Density", exact=True).press("Home")
    page.get_by_label("Mask", exact=True).select_option("magnitude")
    state = next(s for s in masks["states"] if (s["method"], s["density"]) == ("magnitude", masks["densities"][0]))
    assert f"source {100 * state['source']:.1f} %" in told.inner_text()
    shares = page.locator(".layers td:nth-child(2)").all_inner_texts()
    assert shares == [f"{100 * share:.1f} %" for share in state["layers"]]
    assert page.evaluate(picture) != before
    assert "grey" in page.locator("canvas").first.get_attribute("aria-label")


def test_images_flip_with_the_density(opened):
    page, masks = opened(), read_json(paths.results_dir("study") / "masks.json")
    slider, said = page.get_by_label("Density", exact=True), page.locator(".said")
    right = {}
    for key, density in {"End": masks["densities"][-1], "Home": masks["densities"][0]}.items():
        slider.press(key)
        state = next(s for s in masks["states"] if (s["method"], s["density"]) == (masks["methods"][0], density))
        right[key] = sum(a == b for a, b in zip(state["said"], masks["examples"]["truth"], strict=True))
        assert page.locator(".said.right").count() == right[key]
        assert (
            page.locator(".flips").inner_text() == f"Through this mask {right[key]} of these {said.count()} are right."
        )
    assert right["End"] == said.count() > right["Home"]
