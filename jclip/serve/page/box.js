// The search box: typed text, or an image that is chosen, pasted or dropped anywhere on the page.

import { $ } from './dom.js'
import { bring, brought, showImage } from './images.js'
import { words } from './words.js'

/**
 * Starts the box. `onText(text)`, `onImage(name)` and `onProblem(problem)` say what the user gives, and `onNoImage(text)`
 * that the image is removed.
 */
export function startBox({ onText, onImage, onNoImage, onProblem }) {
  const take = async (file) => {
    try {
      onImage(await bring(file))
    } catch (problem) {
      onProblem(problem)
    }
  }
  $('search').addEventListener('submit', (event) => {
    event.preventDefault()
    onText($('text').value)
  })
  $('choose').addEventListener('click', () => $('file').click())
  $('file').addEventListener('change', () => {
    if ($('file').files.length) take($('file').files[0])
    $('file').value = '' // so that the same file can be chosen again
  })
  $('query-image-remove').addEventListener('click', () => {
    onNoImage($('text').value)
    $('text').focus()
  })
  $('text').addEventListener('keydown', (event) => {
    const removes = event.key === 'Backspace' || event.key === 'Escape'
    if (removes && !$('text').value && !$('query-image').hidden && !event.isComposing) $('query-image-remove').click()
  })
  document.addEventListener('paste', (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith('image/'))
    if (!file) return
    event.preventDefault()
    take(file)
  })
  startDrop(take)
}

function startDrop(take) {
  const holdsFiles = (event) => event.dataTransfer?.types.includes('Files')
  let depth = 0 // a dragged file enters and leaves every element on its way
  const show = (deeper) => {
    depth = Math.max(0, depth + deeper)
    $('drop').classList.toggle('shown', depth > 0)
  }
  document.addEventListener('dragenter', (event) => holdsFiles(event) && show(1))
  document.addEventListener('dragleave', (event) => holdsFiles(event) && show(-1))
  document.addEventListener('dragover', (event) => holdsFiles(event) && event.preventDefault())
  document.addEventListener('drop', (event) => {
    if (!holdsFiles(event)) return
    event.preventDefault()
    show(-depth)
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0])
  })
}

/** Shows the query of a view in the box. */
export function showQuery(view) {
  const image = brought.get(view.image)
  const ofIndex = view.like !== null
  $('text').value = view.text
  $('query-image').hidden = !(ofIndex || image)
  const seen = $('query-image-seen')
  if (ofIndex) showImage(seen, `thumb/${view.like}`)
  else if (image) seen.src = image.data
  else seen.removeAttribute('src')
  nameQuery(view)
}

/** Writes the names of the box, in the page's language. */
export function nameQuery(view) {
  const image = brought.get(view.image)
  const name = view.like !== null ? `#${view.like}` : (image?.name ?? '')
  $('query-image-name').textContent = name && words('queryImage', { name })
  $('text').placeholder = words(name ? 'placeholderImage' : 'placeholder')
}
