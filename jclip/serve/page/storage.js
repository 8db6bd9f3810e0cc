// Values that the browser keeps. Where storage is switched off, they last until the page is left.

class Store {
  #values = new Map()
  #open

  /** `open` returns the browser's storage, and throws where it is switched off. */
  constructor(open) {
    this.#open = open
  }

  get(name) {
    try {
      return this.#open().getItem(name)
    } catch {
      return this.#values.get(name) ?? null
    }
  }

  set(name, value) {
    try {
      this.#open().setItem(name, value)
    } catch {
      this.#values.set(name, value)
    }
  }
}

/** Settings: kept for good. */
export const settings = new Store(() => localStorage)

/** Secrets: kept until the tab is closed. */
export const secrets = new Store(() => sessionStorage)
