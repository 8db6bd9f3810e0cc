// Images: those of the service, with its key if it wants one, and those that the user brings.

import { answered, limits, Problem } from './api.js'
import { make, shown } from './dom.js'
import { key } from './key.js'

const SIDE = 2048 // pixels, of an image that is too large to be sent as it is
const most = () => Math.min(8_000_000, 0.7 * limits.max_body) // bytes; base64 takes a third more

const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue
      near.unobserve(target)
      fetched(target)
    }
  },
  { rootMargin: '800px' },
)

/** Shows an image of the service. An <img> cannot send a key, so with a key it is fetched, as it comes near. */
export function showImage(img, path) {
  img.dataset.path = path
  if (!key()) img.src = path
  else if (img.loading === 'lazy') near.observe(img)
  else fetched(img)
}

async function fetched(img) {
  const { path } = img.dataset
  try {
    const response = await answered(path)
    if (!response.ok) throw new Error(`HTTP ${response.status}`)
    const url = URL.createObjectURL(await response.blob())
    if (img.dataset.path !== path) return URL.revokeObjectURL(url) // another image is wanted meanwhile
    const done = () => URL.revokeObjectURL(url)
    img.addEventListener('load', done, { once: true })
    img.addEventListener('error', done, { once: true })
    img.src = url
  } catch {
    img.dispatchEvent(new Event('error'))
  }
}

/** Saves an image of the service under a name: with a key, a link cannot open it. Throws a Problem if it is gone. */
export async function saveImage(path, name) {
  const response = await answered(path)
  if (!response.ok) throw new Problem('gone')
  const url = URL.createObjectURL(await response.blob())
  make('a', { href: url, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

/** Images of the user, by the name in the address. They last until the page is left. */
export const brought = new Map()

/** Keeps a file as a query; returns the name for the address. Throws a Problem if it is not a possible image. */
export async function bring(file) {
  const name = shown(file.name || 'image')
  const named = /\.(heic|heif|avif|tiff?|jp2|qoi|psd|tga)$/i.test(file.name)
  if (!file.type.startsWith('image/') && !named) throw new Problem('notImage', 'notImageWords', '', { name })
  const data = file.size <= most() ? await dataOf(file) : await smaller(file, name)
  const address = `${brought.size + 1}-${name}`
  brought.set(address, { data, name })
  return address
}

/** Returns a large image as a JPEG that the service takes. */
async function smaller(file, name) {
  let bitmap
  try {
    bitmap = await createImageBitmap(file) // upright: it applies the camera's orientation
  } catch {
    throw new Problem('tooLarge', 'tooLargeWords', '', { name, limit: most() / 1e6 })
  }
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height))
  const canvas = new OffscreenCanvas(Math.ceil(bitmap.width * scale), Math.ceil(bitmap.height * scale))
  const context = canvas.getContext('2d')
  context.fillStyle = 'white'
  context.fillRect(0, 0, canvas.width, canvas.height)
  context.imageSmoothingQuality = 'high'
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height)
  bitmap.close()
  return dataOf(await canvas.convertToBlob({ type: 'image/jpeg', quality: 0.92 }))
}

function dataOf(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.addEventListener('load', () => resolve(reader.result))
    reader.addEventListener('error', () => reject(reader.error))
    reader.readAsDataURL(blob)
  })
}
