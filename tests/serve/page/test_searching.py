"""The search page in a real browser, with a real service behind it."""

import pytest
from playwright.sync_api import expect

from jclip.search.filters import Comparison, Filter, parse_time
from jclip.search.queries import Query, Term, parse_query
from tests.serve.page.server import HOSTILE_NAME, HOSTILE_TEXT, IMAGES
from tests.serve.page.tools import DROP_LARGE, FOREIGN, NO_ANSWER, TILES, give_file, new_results, shown_ids, wait_until


def test_a_chinese_query_and_scrolling_to_the_end(opened, served):
    page = opened()
    expect(page.get_by_role("heading", level=1)).to_have_text("Find images by a sentence")
    expect(page.locator("#indexed")).to_have_text(f"{IMAGES} images")
    box = page.get_by_role("searchbox")
    expect(box).to_be_focused()
    box.type("红色的圆形 - 蓝色")
    box.press("Enter")
    page.locator(TILES).first.wait_for()
    hits = served.searcher.search(parse_query("红色的圆形 - 蓝色"), IMAGES)
    assert shown_ids(page) == served.ids(hits[:60])
    scores = page.locator(f"{TILES} .score").all_text_contents()
    assert scores == [f"{hit.score:.3f}" for hit in hits[:60]]
    status = page.get_by_role("status")
    expect(status).to_have_text("60 shown; scroll for more")
    assert page.evaluate("new URLSearchParams(location.search).get('q')") == "红色的圆形 - 蓝色"
    for _ in range(4):
        page.locator(TILES).last.scroll_into_view_if_needed()
        if status.inner_text() == f"{IMAGES} shown; these are all":
            break
        page.wait_for_timeout(200)
    expect(status).to_have_text(f"{IMAGES} shown; these are all")
    assert sorted(shown_ids(page)) == list(range(IMAGES))
    scores = [float(score) for score in page.locator(f"{TILES} .score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Find images by a sentence")
    page.go_forward()
    expect(page.locator(TILES)).to_have_count(IMAGES)
    assert page.evaluate("scrollY") > 500


def test_an_image_chosen_dropped_and_pasted(opened, served):
    data, page = (served.folder / "山" / "0007.png").read_bytes(), opened()
    page.locator("#file").set_input_files({"name": "7.png", "mimeType": "image/png", "buffer": data})
    page.locator(TILES).first.wait_for()
    assert shown_ids(page)[0] == 7 and page.locator(".score").first.inner_text() == "1.000"
    expect(page.locator("#query-image")).to_contain_text("Searching by the image 7.png")
    for kind in ("drop", "paste"):
        with new_results(page):
            give_file(page, kind, "other.png", "image/png", (served.folder / "山" / "0008.png").read_bytes())
        other = served.searcher.search(Query((Term(served.folder / "山" / "0008.png", "image"),)), 60)
        assert shown_ids(page) == served.ids(other)
    assert not page.locator("#drop.shown").count()
    with new_results(page):  # words added to the image
        page.get_by_role("searchbox").fill("猫 - 2:狗")
        page.keyboard.press("Enter")
    terms = (Term(served.folder / "山" / "0008.png", "image"), Term("猫"), Term("狗", weight=-2.0))
    assert shown_ids(page) == served.ids(served.searcher.search(Query(terms), 60))
    with new_results(page):
        page.get_by_role("button", name="Remove the image").click()
    assert shown_ids(page) == served.ids(served.searcher.search(parse_query("猫 - 2:狗"), 60))
    page.go_back()
    page.go_back()
    expect(page.locator("#query-image")).to_contain_text("other.png")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("That image is not kept")


def test_files_that_are_no_images(opened):
    page = opened(allowed=f"{NO_ANSWER}.*42")
    give_file(page, "drop", "<b>notes.txt", "text/plain", b"text")
    expect(page.get_by_role("alert")).to_contain_text("<b>notes.txt is not an image")
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    give_file(page, "drop", "cut.png", "image/png", b"\x89PNG\r\n\x1a\n")
    expect(page.get_by_role("alert")).to_contain_text("The search failed")
    page.evaluate(DROP_LARGE)
    expect(page.get_by_role("alert")).to_contain_text("large.heic is too large")


def test_similar_images_and_the_way_back(opened, served):
    page = opened("?q=猫")
    page.locator(TILES).nth(40).scroll_into_view_if_needed()
    tile = page.locator(TILES).nth(45)
    chosen = shown_ids(page)[45]
    tile.hover()
    before = page.evaluate("scrollY")
    with new_results(page):
        tile.locator(".similar").click()
    assert f"like={chosen}" in page.url and page.evaluate("scrollY") == 0
    assert shown_ids(page) == served.ids(served.searcher.similar(chosen, 60))
    expect(page.locator(f"{TILES} .open").first).to_be_focused()
    with new_results(page):
        page.go_back()
    assert shown_ids(page)[45] == chosen and page.evaluate("scrollY") == pytest.approx(before, abs=2)
    tile.locator(".open").click()
    viewer = page.get_by_role("dialog")
    expect(viewer.locator("#viewer-facts")).to_contain_text(str(served.searcher.index.entry(chosen).path))
    with new_results(page):
        viewer.get_by_role("link", name="Find similar").click()
    expect(viewer).to_be_hidden()
    assert f"like={chosen}" in page.url


def test_the_way_back_closes_the_viewer(opened):
    page = opened()
    page.get_by_role("link", name="a smiling cat").click()
    page.locator(TILES).first.wait_for()
    ids, viewer, last = shown_ids(page), page.get_by_role("dialog"), page.locator(f"{TILES} .open").nth(59)
    for leave in (
        page.go_back,
        lambda: page.keyboard.press("Escape"),
        viewer.get_by_role("button", name="Close").click,
    ):
        last.click()
        expect(viewer).to_be_visible()
        leave()
        expect(viewer).to_be_hidden()
        wait_until(page, "!history.state")
        expect(last).to_be_focused()
        assert "q=a+smiling+cat" in page.url and shown_ids(page)[:60] == ids and page.evaluate("scrollY") > 500
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Find images by a sentence")


def test_filters(opened, served):
    page = opened("?q=猫")
    page.get_by_role("button", name="Filters").click()
    sea = str(served.folder / "海")
    with new_results(page):
        page.get_by_label("Folder").select_option(sea)
    expected = served.searcher.search(parse_query("猫"), IMAGES, filter=Filter(folder=sea))
    assert len(expected) == 40 and shown_ids(page) == served.ids(expected)
    with new_results(page):
        page.get_by_label("artist").select_option("博")
    with new_results(page):
        page.get_by_label("From").fill("2024-05-14")
    condition = Filter(sea, since=parse_time("2024-05-14"), meta=(Comparison("artist", "=", "博"),))
    expected = served.searcher.search(parse_query("猫"), IMAGES, filter=condition)
    assert 0 < len(expected) < 20 and shown_ids(page) == served.ids(expected)
    expect(page.get_by_role("status")).to_have_text(f"{len(expected)} shown; these are all")
    page.reload()
    expect(page.locator(TILES)).to_have_count(len(expected))
    expect(page.locator("#chips .chip")).to_have_count(3)
    with new_results(page):
        page.get_by_role("button", name="Remove the filter artist").click()
    assert len(shown_ids(page)) > len(expected)
    with new_results(page):
        page.go_back()
    assert shown_ids(page) == served.ids(expected)
    opened(f"?q=猫&folder={sea}&meta.artist=nobody").get_by_text("No image fits these filters").wait_for()


def test_near_duplicates(opened, served):
    page = opened()
    page.get_by_role("link", name="Near duplicates").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Near duplicates")
    expect(page.locator(".group")).to_have_count(1)
    (group,) = served.searcher.near_duplicates(0.95)
    assert sorted(shown_ids(page)) == sorted(served.ids(group)) == [20, 21, 22]
    expect(page.locator(".group h2")).to_have_text("3 images")
    page.get_by_label("Least similarity").fill("1")
    expect(page.locator(".group h2")).to_have_text("2 images")
    assert sorted(shown_ids(page)) == [20, 22] and "threshold=1" in page.url


def test_hostile_names_are_text(opened, served):
    page = opened("?q=图")
    assert page.evaluate(FOREIGN) == 0
    for number in (3, 5):
        hit = served.searcher.index.entry(number)
        page.goto(f"{served.url}/?like={number + 1}")
        page.locator(TILES).first.wait_for()
        while number not in shown_ids(page):
            page.locator(TILES).last.scroll_into_view_if_needed()
            page.wait_for_timeout(50)
        tile = page.locator(TILES).nth(shown_ids(page).index(number))
        image = tile.locator("img")
        safe_name = HOSTILE_NAME.replace("\u202e", "\\u202e")
        if number == 3:
            expect(tile.locator(".name")).to_have_text(safe_name)
            assert image.get_attribute("alt") == "图 3"
        else:
            assert image.get_attribute("alt") == HOSTILE_TEXT
        tile.locator(".open").click()
        viewer = page.get_by_role("dialog")
        expect(viewer).to_contain_text(safe_name if number == 3 else HOSTILE_TEXT)
        expect(viewer).to_contain_text(str(hit.path).replace("\u202e", "\\u202e"))
        assert page.evaluate(FOREIGN) == 0
    page.goto(f"{served.url}/?q=<img src=x onerror=alert(3)>&meta.<b>=<script>")
    page.get_by_text("No image fits these filters").wait_for()
    expect(page.get_by_role("searchbox")).to_have_value("<img src=x onerror=alert(3)>")
    assert page.evaluate(FOREIGN) == 0
