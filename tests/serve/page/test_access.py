"""The search page for everybody: widths, contrasts, languages, keyboard, screen readers."""

import pytest
from playwright.sync_api import expect

from tests.serve.page.tools import (
    DOUBLED,
    PLACEHOLDER_MOTION,
    SMALL,
    TILES,
    accessible_nodes,
    low_contrasts,
    new_results,
    shown_ids,
    wait_until,
)


@pytest.mark.parametrize("width", [320, pytest.param(1280, marks=pytest.mark.slow), 3840])
def test_no_width_scrolls_sideways(width, opened):
    page = opened(viewport={"width": width, "height": {320: 568, 3840: 2160}.get(width, 800)})

    def fits():
        inside = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
        assert max(inside[:2]) <= width == inside[2]

    fits()
    page.goto(f"{page.url}?q=猫&meta.artist=博")
    page.locator(TILES).first.wait_for()
    page.get_by_role("button", name="Filters").click()
    fits()
    columns = page.evaluate("getComputedStyle(document.querySelector('#grid')).gridTemplateColumns.split(' ').length")
    assert columns == {320: 2, 1280: 6, 3840: 12}[width]
    page.get_by_role("button", name="Help").click()
    fits()
    page.keyboard.press("Escape")
    page.locator(f"{TILES} .open").first.click()
    fits()
    viewer = page.get_by_role("dialog")
    image = viewer.locator("#viewer-image")
    expect(image).to_have_js_property("complete", True)
    box, inner = viewer.bounding_box(), image.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert inner["x"] >= box["x"] and inner["x"] + inner["width"] <= box["x"] + box["width"] and inner["width"] > 40
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Near duplicates").click()
    page.locator(".group").wait_for()
    fits()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_all_text(scheme, opened):
    page = opened(color_scheme=scheme)
    assert low_contrasts(page) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(18, 19, 21)") == (scheme == "dark")
    page.goto(f"{page.url}?q=猫&meta.artist=博")
    page.locator(TILES).first.wait_for()
    page.get_by_role("button", name="Filters").click()
    assert low_contrasts(page) == []
    page.get_by_role("button", name="Help").click()
    assert low_contrasts(page) == []
    page.keyboard.press("Escape")
    page.locator(f"{TILES} .open").first.click()
    assert low_contrasts(page) == []


def test_look_and_language_are_chosen_and_kept(opened):
    page = opened(locale="zh-CN")
    expect(page.get_by_role("heading", level=1)).to_have_text("用一句话找图片")
    assert page.evaluate("document.documentElement.lang") == "zh"
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Find images by a sentence")
    look = page.get_by_role("button", name="Colours:")
    for name, scheme in (("light", "light"), ("dark", "dark")):
        look.click()
        expect(look).to_have_accessible_name(f"Colours: {name}")
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == scheme
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Find images by a sentence")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 21)"


def test_a_walk_with_the_keyboard_alone(opened, served):
    page = opened("?q=猫")
    page.locator(TILES).first.wait_for()
    press, box = page.keyboard.press, page.get_by_role("searchbox")

    def at():
        tiles = "[...document.querySelectorAll('.tile')]"
        return page.evaluate(f"{tiles}.indexOf(document.activeElement.closest('.tile'))")

    page.evaluate("document.activeElement.blur()")
    press("/")
    expect(box).to_be_focused()
    press("ArrowDown")
    assert at() == 0
    rings = page.locator(f"{TILES} .frame").evaluate_all(
        "all => all.map((e) => getComputedStyle(e, '::after').boxShadow)"
    )
    assert rings[0] != rings[1] == rings[2]  # the focus shows
    for key, place in (("ArrowRight", 1), ("ArrowDown", 7), ("ArrowLeft", 6), ("ArrowUp", 0), ("End", 59), ("Home", 0)):
        press(key)
        assert at() == place, key
    press("ArrowRight")
    chosen = shown_ids(page)[1]
    press("Enter")
    viewer = page.get_by_role("dialog")
    expect(viewer).to_be_visible()
    press("ArrowRight")
    expect(viewer.locator("#viewer-facts")).to_contain_text(str(served.searcher.index.entry(shown_ids(page)[2]).path))
    press("ArrowLeft")
    press("Escape")
    wait_until(page, "!history.state")
    expect(page.locator(f"{TILES} .open").nth(1)).to_be_focused()
    press("Tab")  # to the tile's other control, and then past the grid
    assert at() == 1
    press("Tab")
    assert at() == -1
    press("Shift+Tab")
    assert at() == 1
    with new_results(page):
        press("s")
    assert f"like={chosen}" in page.url and at() == 0
    press("Escape")
    expect(box).to_be_focused()
    with new_results(page):
        box.fill("狗")
        press("Enter")
    assert f"like={chosen}" in page.url
    box.fill("")
    with new_results(page):
        press("Escape")  # removes the image
        box.fill("狗")
        press("Enter")
    assert "like" not in page.url and page.title() == "狗 – jclip"


def test_roles_names_and_structure(opened):
    page = opened("?q=猫&meta.artist=博")
    page.locator(TILES).first.wait_for()
    page.get_by_role("button", name="Filters").click()
    nodes = accessible_nodes(page)
    roles = [role for role, _ in nodes]
    for landmark in ("banner", "navigation", "main", "search", "contentinfo", "status"):
        assert roles.count(landmark) == 1, landmark
    named = {"button", "link", "image", "searchbox", "combobox", "region", "navigation", "slider", "Date", "textbox"}
    nameless = [role for role, name in nodes if role in named and not name.strip()]
    assert not nameless
    assert roles.count("heading") == 1 and ("heading", "Results") in nodes
    assert ("list", "Active filters") in nodes and ("group", "Filters") in nodes
    assert sum(role == "listitem" for role in roles) >= 60
    assert page.evaluate(DOUBLED) == []
    (small,) = page.evaluate(SMALL)
    assert "openapi.json" in small  # a link in a line of text
    page.locator(f"{TILES} .open").first.click()
    assert [name for role, name in accessible_nodes(page) if role == "dialog"] == [
        page.locator("#viewer-title").inner_text()
    ]


def test_motion_is_reduced_on_request(opened):
    assert opened().evaluate(PLACEHOLDER_MOTION) == "breathe"
    assert opened(reduced_motion="reduce").evaluate(PLACEHOLDER_MOTION) == "none"
