"""The explorer's page in a browser: Debian's Chromium, from disk and offline."""

import re

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

    def open_page(scheme="light", width=1150, **device):
        view = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, **device}
        contexts.append(browser.new_context(offline=True, **view))
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


def show_all(page):
    """Every family, and every setting of it."""
    page.get_by_role("button", name="Show all families").click()
    page.get_by_label("Best of each family").uncheck()


def test_the_slider_moves_the_choice(opened):
    page = opened()
    slider = page.get_by_label("I can lose at most", exact=True)
    before, first = page.locator(".told").first.inner_text(), settings_of(page, "chosen")
    assert "5 points" in before
    show_all(page)
    slider.press("Home")
    assert settings_of(page, "chosen") != first
    assert page.locator(".told").first.inner_text().startswith("Choose source_only. 1 of 681 settings lose at most 0")
    points, out = page.locator(".point").count(), len(settings_of(page, "out"))
    assert points - out == 1
    assert page.locator(".ring.chosen").count() == len(settings_of(page, "chosen")) == 1
    slider.press("End")
    assert len(settings_of(page, "out")) < out


def test_it_begins_with_few_families_and_the_choice_is_shown_even_so(opened):
    page, every = opened(), "nodes => nodes.map(n => n.value)"
    on = page.eval_on_selector_all(".families input:checked", every)
    assert 5 <= len(on) <= 10
    assert page.eval_on_selector_all(".families input", every)[: len(on)] == on  # they stand first
    assert page.locator(".point").count() < 120
    page.get_by_label("I can lose at most", exact=True).fill("3")  # 1.5 points
    chosen = page.locator(".point.chosen").get_attribute("aria-label").split(" ")[0]
    assert page.locator(".told").first.inner_text().startswith(f"Choose {chosen}")
    page.get_by_role("button", name="Show all families").click()
    page.get_by_role("button", name="Show none").click()
    assert page.locator(".point").count() == page.locator(".point.chosen").count() == 1


def test_with_the_task_known_bits_are_told_from_one_another(opened):
    page, across = opened(), "nodes => nodes.map(n => Math.round(n.getBoundingClientRect().x))"
    page.get_by_label("Reading of the source").select_option("known")
    assert len(set(page.eval_on_selector_all(".point", across))) > 8
    for images in ("digits", "photographs"):
        page.get_by_label("Images").select_option(images)
        told = page.locator(".point.chosen").get_attribute("aria-label")
        assert re.search(r"both tasks [\d.]+ ± [\d.]+ % · stores [\d,]+ kbit", told)
        star, chosen = (page.locator(f".mu svg {mark}").first.bounding_box() for mark in (".ideal", ".point.chosen"))
        assert star["x"] + star["width"] < chosen["x"]  # nothing is stored there
    assert "mean of 5 pairs, 3 seeds" in told


def test_another_profile_keeps_what_was_asked(opened):
    page = opened()
    page.get_by_label("Reading of the source").select_option("known")
    page.get_by_label("I can lose at most", exact=True).press("End")
    page.get_by_label("Images").select_option("photographs")
    assert page.get_by_label("Reading of the source").input_value() == "known"
    assert "at most 50 points" in page.locator(".told").first.inner_text()
    assert page.get_by_label("Pair", exact=True).locator("option").count() == 6


def test_it_fits_a_telephone(opened):
    page = opened(width=400, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    small = "nodes => nodes.filter(n => n.getBoundingClientRect().height < 24).length"
    assert page.eval_on_selector_all(".mu select, .mu button, .mu label", small) == 0
    height = page.locator("svg text").first.bounding_box()["height"]
    assert height > 10  # of letters on the screen
    box = page.locator(".point.chosen").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2 + 6, box["y"] + box["height"] / 2 + 6)  # beside it
    assert page.locator(".about").inner_text().startswith("Pinned: ")


def test_filters_leave_out_points(opened):
    page = opened()
    page.get_by_label("Best of each family").uncheck()
    every = page.locator(".point").count()
    page.get_by_role("button", name="Show all families").click()
    assert page.locator(".point").count() > every
    page.get_by_role("button", name="Show none").click()
    page.get_by_label("gumbel_sigmoid", exact=True).check()
    some = page.locator(".point").count()
    assert 1 < some < every
    labels = page.eval_on_selector_all(".point:not(.chosen)", "nodes => nodes.map(n => n.getAttribute('aria-label'))")
    assert all(label.startswith("gumbel_sigmoid") for label in labels)
    page.get_by_label("Pair", exact=True).select_option("mnist_to_inverted")
    assert "· mnist_to_inverted, 5 seeds" in page.locator(".point").first.get_attribute("aria-label")
    before = page.locator(".point").first.get_attribute("transform")
    page.get_by_label("Reading of the source").select_option("known")
    assert page.locator(".point").first.get_attribute("transform") != before


def test_a_point_is_told_and_pinned_by_mouse_and_by_keyboard(opened):
    page = opened()
    about = page.locator(".about")
    page.locator(".point").nth(40).hover(force=True)
    assert "(± 95 % interval)" in about.inner_text()
    assert page.locator(".tip").inner_text().replace("\n", " · ") == about.inner_text()
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
    page.locator(".point.chosen").click(force=True)
    assert page.locator(".ring.pinned").count() == 1
    page.locator(".mu svg").first.click(position={"x": 300, "y": 450})  # beside all points
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
