// Keys: "/" to the box, arrows through the tiles, S for similar images, Escape back.

import { $ } from './dom.js'

const results = () => $('results')
const tiles = () => [...results().querySelectorAll('.tile:not(.waiting)')]
const openOf = (tile) => tile.querySelector('.open')

/** Starts the keys. */
export function startKeyboard() {
  document.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.isComposing || document.querySelector('dialog[open]')) return
    const typing = event.target.closest('input, select, textarea')
    if (event.key === '/' && !typing) {
      event.preventDefault()
      $('text').focus()
      $('text').select()
    } else if (event.key === 'ArrowDown' && event.target === $('text') && tiles().length) {
      event.preventDefault()
      focus(tiles()[0])
    }
  })
  results().addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return
    const tile = event.target.closest('.tile')
    if (!tile) return
    if (event.key.toLowerCase() === 's') tile.querySelector('.similar').click()
    else if (event.key === 'Escape') $('text').focus()
    else if (!move(tile, event.key)) return
    event.preventDefault()
  })
  results().addEventListener('focusin', (event) => {
    const tile = event.target.closest('.tile')
    if (tile) onlyStop(tile)
  })
}

/** Makes one tile the only one that the Tab key reaches; the arrows reach the others. */
export function onlyStop(tile) {
  for (const each of results().querySelectorAll('.tile.stop')) stops(each, false)
  if (tile) stops(tile, true)
}

function stops(tile, is) {
  tile.classList.toggle('stop', is)
  for (const each of tile.querySelectorAll('button, a')) each.tabIndex = is ? 0 : -1
}

/** Focuses the tile of a hit or the first one, if there is any. */
export function focusTile(tile = tiles()[0]) {
  if (tile) focus(tile)
}

function focus(tile) {
  openOf(tile).focus()
  tile.scrollIntoView({ block: 'nearest' })
}

function move(tile, key) {
  const all = tiles()
  const at = all.indexOf(tile)
  const right = getComputedStyle(tile).direction === 'rtl' ? -1 : 1
  const to = {
    ArrowLeft: () => all[at - right],
    ArrowRight: () => all[at + right],
    ArrowDown: () => below(tile, all.slice(at + 1)),
    ArrowUp: () => below(tile, all.slice(0, at).reverse()) ?? $('text'),
    Home: () => all[0],
    End: () => all.at(-1),
  }[key]
  if (!to) return false
  const target = to()
  if (target === $('text')) target.focus()
  else if (target) focus(target)
  return true
}

/** Returns the tile of the nearest other row in the same column; `others` are in the order of their distance. */
function below(tile, others) {
  const place = tile.getBoundingClientRect()
  const top = others.map((each) => each.getBoundingClientRect().top).find((each) => Math.abs(each - place.top) > 4)
  const row = others.filter((each) => Math.abs(each.getBoundingClientRect().top - top) <= 4)
  const distance = (each) => Math.abs(each.getBoundingClientRect().left - place.left)
  return row.sort((a, b) => distance(a) - distance(b))[0]
}
