// Tiles of the grid: an image or a text that was found, with its name and its similarity.

import { fromTemplate, make, nameOf, shown } from './dom.js'
import { showImage } from './images.js'
import { score, words } from './words.js'

const hits = new WeakMap() // tile -> hit

/** Returns the hit of a tile, or of the tile that an element is in. */
export const hitOf = (element) => hits.get(element.closest('.tile'))

/** Returns what an image is called for those who do not see it. */
export const labelOf = (hit) => (hit.text ? shown(hit.text) : nameOf(hit.path))

export const addressOfSimilar = (hit) => `?like=${hit.id}`

/** Returns the tile of a hit. */
export function tileOf(hit) {
  const tile = fromTemplate('tile')
  hits.set(tile, hit)
  const frame = tile.querySelector('.frame')
  const img = tile.querySelector('img')
  if (hit.kind === 'image') {
    const ratio = hit.width / hit.height
    if (ratio > 0.66 && ratio < 1.5) frame.classList.add('filled')
    img.addEventListener('error', () => frame.classList.add('broken'))
    showImage(img, `thumb/${hit.id}`)
  } else {
    img.remove()
    tile.querySelector('.said').textContent = shown(hit.text)
  }
  tile.querySelector('.name').textContent = nameOf(hit.path)
  tile.querySelector('.caption').title = shown(hit.path)
  tile.querySelector('.score').textContent = score(hit.score)
  tile.querySelector('.similar').href = addressOfSimilar(hit)
  label(tile)
  return tile
}

/** Writes the labels of a tile, in the page's language. */
export function label(tile) {
  const hit = hits.get(tile)
  const name = labelOf(hit)
  const img = tile.querySelector('img')
  if (img) img.alt = name
  tile.querySelector('.open').setAttribute('aria-label', words('open', { name, score: score(hit.score) }))
  const similar = tile.querySelector('.similar')
  similar.title = words('similar')
  similar.setAttribute('aria-label', words('similarTo', { name }))
}

/** Returns placeholders, shown while the first results are on their way. */
export const placeholders = (count) =>
  Array.from({ length: count }, () => {
    const parts = [make('span', { className: 'frame' }), make('p', { className: 'caption' })]
    return make('li', { className: 'tile waiting', ariaHidden: 'true' }, ...parts)
  })
