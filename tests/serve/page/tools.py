"""What the tests of the page ask of a browser: drops, contrasts, names of controls."""

import base64
import json
from contextlib import contextmanager

from playwright.sync_api import expect

TILES = ".tile:not(.waiting)"
NO_ANSWER = "Failed to load resource"

DROP = """
([kind, name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))
  const transfer = new DataTransfer()
  transfer.items.add(new File([bytes], name, { type }))
  const more = { bubbles: true, cancelable: true }
  if (kind === 'paste') document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer, ...more }))
  else for (const each of ['dragenter', 'dragover', 'drop']) {
    document.body.dispatchEvent(new DragEvent(each, { dataTransfer: transfer, ...more }))
  }
}
"""

DROP_LARGE = """
() => {
  const dataTransfer = new DataTransfer()
  dataTransfer.items.add(new File([new Uint8Array(9_000_000)], 'large.heic', { type: 'image/heic' }))
  document.dispatchEvent(new DragEvent('drop', { dataTransfer, cancelable: true }))
}
"""

FOREIGN = """document.querySelectorAll('body script, b, i, img[src="x"], [onerror]').length"""
"""Number of elements and attributes that no file of the page has."""

CONTRASTS = """
() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true })
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1)
    canvas.fillStyle = colour
    canvas.fillRect(0, 0, 1, 1)
    return [...canvas.getImageData(0, 0, 1, 1).data]
  }
  const luminance = (colour) => {
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    const [r, g, b] = colour.map((each) => linear(each / 255))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = rgba(getComputedStyle(each).backgroundColor)
      if (colour[3] === 255) return colour
    }
    return [255, 255, 255, 255]
  }
  const found = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node; (node = walker.nextNode()); ) {
    const element = node.parentElement
    const style = getComputedStyle(element)
    if (!node.data.trim() || element.closest('.unseen, :disabled')) continue
    if (!element.checkVisibility({ visibilityProperty: true })) continue
    const [a, b] = [luminance(rgba(style.color)), luminance(behind(element))].sort((x, y) => y - x)
    found.push([node.data.trim().slice(0, 40), (a + 0.05) / (b + 0.05)])
  }
  return found
}
"""

SMALL = """
() => [...document.querySelectorAll('button, a[href], select, input')]
  .filter((each) => each.checkVisibility() && Math.min(each.offsetWidth, each.offsetHeight) < 24)
  .map((each) => each.outerHTML.slice(0, 80))
"""

DOUBLED = """
() => {
  const ids = [...document.querySelectorAll('[id]')].map((each) => each.id)
  return ids.filter((id, place) => ids.indexOf(id) < place)
}
"""

PLACEHOLDER_MOTION = """
() => {
  const frame = document.createElement('span')
  const tile = document.createElement('li')
  frame.className = 'frame'
  tile.className = 'waiting'
  tile.append(frame)
  document.body.append(tile)
  return getComputedStyle(frame).animationName
}
"""


def give_file(page, kind, name, media_type, data):
    """Drops or pastes a file onto the page."""
    page.evaluate(DROP, [kind, name, media_type, base64.b64encode(data).decode()])


def low_contrasts(page):
    """Returns the visible texts whose contrast to what is behind them is below 4.5, WCAG's level AA."""
    return [(text, round(ratio, 2)) for text, ratio in page.evaluate(CONTRASTS) if ratio < 4.5]


def accessible_nodes(page):
    """Returns the nodes of the browser's accessibility tree: (role, name)."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored", False)
    ]


def answering(value, status=200, **headers):
    """Returns a handler that answers requests in the service's place."""
    headers = {"Content-Type": "application/json", **headers}
    return lambda route: route.fulfill(status=status, body=json.dumps(value), headers=headers)


def shown_ids(page):
    """Returns the ids of the tiles, in order."""
    links = page.locator(f"{TILES} .similar").evaluate_all("all => all.map((each) => each.search)")
    return [int(link.removeprefix("?like=")) for link in links]


def wait_until(page, condition):
    """Waits until a JavaScript expression is true. playwright's own way needs "unsafe-eval", which the page forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"after 5 s it is not true that {condition}")


@contextmanager
def new_results(page):
    """Waits until the results of the block have replaced those before it."""
    page.evaluate("document.querySelectorAll('.tile').forEach((each) => each.classList.add('old'))")
    yield
    expect(page.locator(".tile.old")).to_have_count(0)
    page.locator(TILES).first.wait_for()
