// Requests to the service, and what can go wrong with them.

import { askKey, key } from './key.js'
import { termsOf } from './terms.js'

const HITS = 60 // at once
const GROUPS = 20

/** Limits of the service that the page keeps to; `info` reads them. */
export const limits = { max_results: 10_000, max_body: 16_000_000 }

/** Error with the name of its title and of its explanation in words.js, and the service's own words. */
export class Problem extends Error {
  constructor(title, explanation = '', details = '', values = {}) {
    super(details || title)
    Object.assign(this, { title, explanation, details, values })
  }
}

/** Returns the hits of a view from `offset`: {items, more}. `waiting` is called while the service is not ready. */
export async function search(view, image, offset, signal, waiting) {
  const k = Math.min(HITS, limits.max_results - offset)
  if (k < 1) return { items: [], more: false }
  const body = { ...asked(view, image), k, offset }
  if (Object.keys(view.filter).length) body.filter = view.filter
  const found = await json('search', { method: 'POST', body: JSON.stringify(body), signal }, waiting)
  return { items: found.hits, more: found.more }
}

function asked(view, image) {
  const picture = view.like !== null ? { id: view.like } : image ? { image: image.data } : null
  if (!picture) return { text: view.text }
  return view.text.trim() ? { query: [picture, ...termsOf(view.text)] } : picture
}

/** Returns groups of near duplicates from `offset`: {items, more}. */
export async function duplicates(view, offset, signal, waiting) {
  const k = Math.min(GROUPS, limits.max_results - offset)
  if (k < 1) return { items: [], more: false }
  const asked = new URLSearchParams({ threshold: view.threshold, offset, k })
  const found = await json(`duplicates?${asked}`, { signal }, waiting)
  return { items: found.groups, more: found.more }
}

export const progress = () => json('progress')
export const filters = () => json('filters')

/** Returns what the service says of itself, and keeps its limits. */
export async function info() {
  const found = await json('info')
  Object.assign(limits, found.limits)
  return found
}

/** Returns the response of the service to a request with its key. Asks for the key if it is needed. */
export async function answered(path, options = {}) {
  for (;;) {
    const used = key()
    const headers = { ...(options.body && { 'Content-Type': 'application/json' }) }
    if (used) headers.Authorization = `Bearer ${used}`
    let response
    try {
      response = await fetch(path, { ...options, headers })
    } catch (error) {
      throw error.name === 'AbortError' ? error : new Problem('offline', 'offlineWords')
    }
    if (response.status !== 401) return response
    const changed = key() !== used // by another request
    if (!changed && !(await askKey(Boolean(used)))) throw new Problem('keyTitle', 'keyNeeded')
  }
}

async function json(path, options = {}, waiting = () => {}) {
  for (;;) {
    const response = await answered(path, options)
    if (response.status === 503) {
      waiting()
      await later(1000 * (Number(response.headers.get('Retry-After')) || 1), options.signal)
    } else if (response.ok) {
      return response.json()
    } else {
      throw await problem(response)
    }
  }
}

async function problem(response) {
  let said = ''
  try {
    const { error, detail } = await response.json()
    said = error?.message ?? error ?? detail ?? ''
  } catch {
    // not JSON: from something between the page and the service
  }
  const details = typeof said === 'string' && said ? said : `HTTP ${response.status}`
  return response.status === 429 ? new Problem('busy', 'busyWords') : new Problem('failed', '', details)
}

function later(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds)
    signal?.addEventListener('abort', () => {
      clearTimeout(timer)
      reject(signal.reason)
    })
  })
}
