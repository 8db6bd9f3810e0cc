"""A browser, a service, and the page opened in one with the other."""

import re

import pytest
from playwright.sync_api import sync_playwright

from tests.browser import ARGUMENTS, browser
from tests.serve.page.server import serving, write_gallery


@pytest.fixture(scope="module")
def gallery(made_once):
    return made_once("page-gallery", write_gallery)


@pytest.fixture(scope="module")
def served(gallery):
    with serving(gallery) as found:
        yield found


@pytest.fixture(scope="module")  # not for the session: as long as playwright runs, other tests cannot use asyncio
def chromium():
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=browser(), args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def opened(chromium, served):
    """Returns a function that opens the page; at the end there was no error, dialog, or request to elsewhere."""
    contexts, complaints = [], []

    def open_page(path="", at=served.url, allowed="$^", before=lambda page: None, **more):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **more})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()

        def console(said):
            if said.type in ("error", "warning") and not re.search(allowed, said.text):
                complaints.append(f"{said.text} ({said.location})")

        def request(asked):
            if not asked.url.startswith((at, "data:", f"blob:{at}")):
                complaints.append(asked.url)

        def dialog(shown):
            complaints.append(shown.message)
            shown.dismiss()

        page.on("console", console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", request)
        page.on("dialog", dialog)
        before(page)
        page.goto(f"{at}/{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
