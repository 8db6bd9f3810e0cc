// The viewer: one image at its size, with its facts, over the results.

import { $, make, nameOf, shown } from './dom.js'
import { saveImage, showImage } from './images.js'
import { key } from './key.js'
import { addressOfSimilar, labelOf } from './tiles.js'
import { score, words } from './words.js'

let hit = null
let neighbours = null

/** Starts the viewer. `step(hit, by)` returns the hit before (-1) or after (1) another, or undefined. */
export function startViewer(step) {
  neighbours = step
  const viewer = $('viewer')
  const go = (by) => {
    const next = neighbours(hit, by)
    if (next) view(next)
  }
  $('viewer-before').addEventListener('click', () => go(-1))
  $('viewer-after').addEventListener('click', () => go(1))
  $('viewer-close').addEventListener('click', () => viewer.close())
  viewer.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
    if (!by || event.altKey || event.ctrlKey || event.metaKey) return
    event.preventDefault()
    go(by)
  })
  viewer.addEventListener('click', (event) => event.target === viewer && viewer.close()) // beside its content
  $('viewer-copy').addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(hit.path)
      $('viewer-copy').textContent = words('copied')
    } catch {
      getSelection().selectAllChildren($('viewer-facts').querySelector('dd')) // plain HTTP elsewhere than on localhost
    }
  })
  $('viewer-original').addEventListener('click', (event) => {
    if (!key()) return
    event.preventDefault()
    saveImage(`image/${hit.id}`, nameOf(hit.path)).catch((problem) => ($('viewer-caption').textContent = words(problem.title)))
  })
  $('viewer-image').addEventListener('error', () => {
    const thumb = `thumb/${hit.id}` // of a format that the browser does not show
    if ($('viewer-image').dataset.path !== thumb) showImage($('viewer-image'), thumb)
  })
}

/** Opens the viewer with a hit. `closed(hit)` is called with the last one shown. */
export function openViewer(opened, closed) {
  view(opened)
  $('viewer').showModal()
  $('viewer').addEventListener('close', () => closed(hit), { once: true })
}

/** Shows the hit again, after a change of language. */
export const redrawViewer = () => hit && view(hit)

function view(shownHit) {
  hit = shownHit
  const isImage = hit.kind === 'image'
  const img = $('viewer-image')
  img.hidden = !isImage
  img.removeAttribute('src')
  if (isImage) {
    img.alt = labelOf(hit)
    img.style.setProperty('--width', hit.width || 4096) // small images are enlarged, to twice their size at most
    img.style.setProperty('--height', hit.height || 4096)
    showImage(img, `image/${hit.id}`)
  }
  $('viewer-text').hidden = isImage
  $('viewer-text').textContent = isImage ? '' : shown(hit.text)
  $('viewer-title').firstElementChild.textContent = nameOf(hit.path)
  $('viewer-caption').textContent = isImage && hit.text ? shown(hit.text) : ''
  $('viewer-similar').href = addressOfSimilar(hit)
  $('viewer-original').href = `image/${hit.id}`
  $('viewer-original').hidden = !isImage
  $('viewer-copy').textContent = words('copyPath')
  const facts = [[words('factPath'), hit.path]]
  if (hit.width) facts.push([words('factSize'), words('pixels', { width: hit.width, height: hit.height })])
  facts.push([words('factScore'), score(hit.score)])
  facts.push(...Object.entries(hit.meta ?? {}).filter(([, value]) => value !== '' && value !== null))
  $('viewer-facts').replaceChildren(
    ...facts.flatMap(([name, value]) => {
      const said = typeof value === 'object' ? JSON.stringify(value) : value
      return [make('dt', { textContent: shown(name) }), make('dd', { textContent: shown(said), dir: 'auto' })]
    }),
  )
  $('viewer-before').disabled = !neighbours(hit, -1)
  $('viewer-after').disabled = !neighbours(hit, 1)
}
