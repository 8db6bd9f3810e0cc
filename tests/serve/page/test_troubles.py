"""The search page when the service wants a key, is busy or gone, or indexes."""

import re

from playwright.sync_api import expect

from jclip.search.queries import parse_query
from tests.serve.page.server import listening_without_index, serving
from tests.serve.page.tools import NO_ANSWER, TILES, answering, shown_ids, wait_until


def test_a_service_with_a_key(gallery, opened):
    with serving(gallery, key="secret-1") as locked:
        page = opened("?q=猫", at=locked.url, allowed=f"{NO_ANSWER}.*401")
        dialog = page.get_by_role("dialog", name="This service needs a key")
        dialog.get_by_label("Key", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("did not accept that key")
        dialog.get_by_label("Key", exact=True).fill("secret-1")
        page.keyboard.press("Enter")
        page.locator(TILES).first.wait_for()
        expect(dialog).to_be_hidden()
        assert shown_ids(page) == locked.ids(locked.searcher.search(parse_query("猫"), 60))
        image = page.locator(f"{TILES} img").first
        expect(image).to_have_attribute("src", re.compile("^blob:"))
        wait_until(page, "document.querySelector('.tile img').naturalWidth > 0")
        page.locator(f"{TILES} .open").first.click()
        with page.expect_download() as saved:
            page.get_by_role("link", name="Open the original").click()
        first = locked.searcher.index.entry(shown_ids(page)[0])
        assert saved.value.path().read_bytes() == first.path.read_bytes()
        page.keyboard.press("Escape")
        wait_until(page, "!history.state")
        assert "secret" not in page.url and page.evaluate("JSON.stringify(localStorage)") == "{}"
        page.reload()
        page.locator(TILES).first.wait_for()
        again = opened("?q=猫", at=locked.url, allowed=f"{NO_ANSWER}.*401")
        again.get_by_role("button", name="Cancel").click()
        expect(again.get_by_role("alert")).to_contain_text("Without the key, the service does not search")
        expect(again.get_by_role("dialog")).to_have_count(0)
        again.get_by_role("button", name="Try again").click()
        expect(again.get_by_role("dialog")).to_be_visible()
        page.context.close()  # so that the service ends
        again.context.close()


def test_troubles_are_told_and_end(opened):
    page = opened(allowed=NO_ANSWER)
    page.route("**/search", lambda route: route.abort())
    page.get_by_role("searchbox").fill("猫")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The service does not answer")
    for status, said in ((429, "The service is busy"), (413, "The search failed"), (500, "HTTP 500")):
        page.unroute("**/search")
        error = {"error": {"message": "text: <i>too long</i>"}} if status == 413 else {}
        page.route("**/search", answering(error, status))
        page.get_by_role("button", name="Try again").click()
        expect(alert).to_contain_text(said)
        assert status != 413 or "<i>too long</i>" in alert.inner_text()
    page.unroute("**/search")
    asked = []

    def warming(route):
        asked.append(1)
        answering({}, 503, **{"Retry-After": "0.2"})(route) if len(asked) < 3 else route.continue_()

    page.route("**/search", warming)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status")).to_contain_text("is being prepared")
    page.locator(TILES).first.wait_for()
    expect(alert).to_be_hidden()
    assert len(asked) == 3


def test_progress_of_indexing(opened):
    done = {
        "state": "idle",
        "done": 1200,
        "total": 1200,
        "rate": 0,
        "seconds_left": None,
        "skipped": 2,
        "entries": 1200,
    }
    part = {"state": "embedding", "done": 300, "rate": 41.7, "seconds_left": 130.0, "entries": 300}
    states = iter([{**done, **part}, done, {**done, "error": "/a<b>: the disk is full"}])
    page = opened(before=lambda page: page.route("**/progress", lambda route: answering(next(states))(route)))
    said = page.locator("#indexing-words")
    expect(said).to_have_text("Indexing: 300 of 1,200 images · 42 a second · 2 min left · 2 skipped")
    assert page.get_by_role("progressbar", name="Indexing").evaluate("each => each.value") == 0.25
    expect(page.locator("#indexing")).to_be_hidden()
    expect(page.locator("#indexed")).to_have_text("1,200 images")
    page.reload()
    expect(said).to_have_text("Indexing has failed: /a<b>: the disk is full")


def test_a_service_without_an_index(served, opened):
    with listening_without_index(served.model) as url:
        page = opened(at=url)
        expect(page.get_by_role("alert")).to_contain_text("This service has no index")
        expect(page.get_by_role("link", name="Near duplicates")).to_be_hidden()
        page.context.close()
