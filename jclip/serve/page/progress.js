// Progress of indexing, asked for while something is indexed.

import { progress } from './api.js'
import { $, shown } from './dom.js'
import { duration, number, words } from './words.js'

const BUSY = 1000 // milliseconds between two questions
const IDLE = 30_000

let last = null

/** Watches the progress. `grown()` is called when indexing has ended, or the index has changed. */
export function startProgress(grown) {
  let timer = 0
  const ask = async () => {
    clearTimeout(timer)
    if (document.hidden) return
    try {
      const before = last
      last = await progress()
      drawProgress()
      if (before && last.state === 'idle' && (before.state !== 'idle' || before.entries !== last.entries)) grown()
    } catch {
      // the search says what is wrong; here a later answer will do
    }
    clearTimeout(timer)
    timer = setTimeout(ask, last && last.state !== 'idle' ? BUSY : IDLE)
  }
  document.addEventListener('visibilitychange', ask)
  return ask()
}

/** Returns the number of entries of the index, or null if it is not known. */
export const entries = () => last?.entries ?? null

/** Draws the last known progress, in the page's language. */
export function drawProgress() {
  if (!last) return
  const { state, done, total, rate, seconds_left: left, skipped, error } = last
  const busy = state !== 'idle'
  $('indexing').hidden = !busy && !error
  $('indexing-bar').hidden = !busy
  $('indexed').textContent = words('indexed', { count: number(last.entries) })
  if (error) $('indexing-words').textContent = `${words('indexingFailed')}: ${shown(error)}`
  if (!busy) return
  const bar = $('indexing-bar')
  if (total) bar.value = done / total
  else bar.removeAttribute('value')
  const parts = total ? [words('indexingWords', { done: number(done), total: number(total) })] : ['…']
  if (rate) parts.push(words('rate', { rate: number(Math.round(rate)) }))
  if (left) parts.push(words('left', { time: duration(left) }))
  if (skipped) parts.push(words('skipped', { count: number(skipped) }))
  $('indexing-words').textContent = `${words('indexing')}: ${parts.join(' · ')}`
}
