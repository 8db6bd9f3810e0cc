// Results that are loaded page by page, and watched so that they grow as one scrolls.

/** Items of one view, loaded in order. */
export class Feed {
  items = []
  more = true
  scroll = 0
  #load
  #stopper = null

  /** `load(offset, signal)` returns {items, more}. */
  constructor(load) {
    this.#load = load
  }

  get loading() {
    return this.#stopper !== null
  }

  /** Loads and returns the next items. Throws a Problem, or an AbortError after `stop`. */
  async next() {
    const stopper = new AbortController()
    this.#stopper = stopper
    try {
      const { items, more } = await this.#load(this.items.length, stopper.signal)
      stopper.signal.throwIfAborted()
      this.items.push(...items)
      this.more = more && items.length > 0
      return items
    } finally {
      if (this.#stopper === stopper) this.#stopper = null
    }
  }

  stop() {
    this.#stopper?.abort()
    this.#stopper = null
  }
}

/** Feeds of the last views by address, so that the way back shows what was there. */
export class Feeds {
  #feeds = new Map()
  #most = 12

  /** Returns the feed that was kept for an address, or undefined. */
  get(address) {
    return this.#feeds.get(address)
  }

  put(address, feed) {
    this.#feeds.delete(address)
    this.#feeds.set(address, feed)
    if (this.#feeds.size > this.#most) this.#feeds.delete(this.#feeds.keys().next().value)
  }

  clear() {
    this.#feeds.clear()
  }
}

/** Calls back whenever an element is near the screen; `again` asks once more after the page has grown. */
export class Watch {
  #element
  #observer

  constructor(element, near) {
    this.#element = element
    this.#observer = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && near(), { rootMargin: '1200px' })
    this.#observer.observe(element)
  }

  again() {
    this.#observer.unobserve(this.#element)
    this.#observer.observe(this.#element)
  }
}
