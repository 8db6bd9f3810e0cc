// The address of a view. A view is what the page shows:
//
//   name       'start', 'search' or 'duplicates'
//   text       the query as it was typed
//   like       id of an indexed image that is searched with, or null
//   image      name under which the page keeps an image of the user that is searched with, or null
//   filter     {folder, after, before, meta: {name: value}}, each only if set
//   threshold  least similarity of near duplicates

export const THRESHOLD = 0.95
const META = 'meta.'

/** Returns the view of an address such as "?q=猫&folder=holiday". */
export function viewOf(address) {
  const given = new URLSearchParams(address)
  const like = /^\d+$/.test(given.get('like') ?? '') ? Number(given.get('like')) : null
  const image = like === null ? given.get('image') : null
  const view = { text: given.get('q') ?? '', like, image, filter: filterOf(given) }
  const threshold = Number(given.get('threshold') ?? THRESHOLD)
  view.threshold = threshold >= 0.5 && threshold <= 1 ? threshold : THRESHOLD
  const asked = view.text.trim() || like !== null || view.image
  return { name: given.get('view') === 'duplicates' ? 'duplicates' : asked ? 'search' : 'start', ...view }
}

/** Returns the address of a view. */
export function addressOf(view) {
  const given = new URLSearchParams()
  if (view.name === 'duplicates') {
    given.set('view', 'duplicates')
    if (view.threshold !== THRESHOLD) given.set('threshold', view.threshold)
  } else {
    if (view.text) given.set('q', view.text)
    if (view.like !== null) given.set('like', view.like)
    if (view.image) given.set('image', view.image)
    const { meta = {}, ...others } = view.filter
    for (const [name, value] of Object.entries(others)) given.set(name, value)
    for (const [name, value] of Object.entries(meta)) given.set(META + name, value)
  }
  return given.size ? `?${given}` : './'
}

function filterOf(given) {
  const filter = {}
  if (given.get('folder')) filter.folder = given.get('folder')
  for (const name of ['after', 'before']) {
    if (/^\d{4}-\d\d-\d\d$/.test(given.get(name) ?? '')) filter[name] = given.get(name)
  }
  const meta = [...given].filter(([name]) => name.startsWith(META)).map(([name, value]) => [name.slice(META.length), value])
  if (meta.length) filter.meta = Object.fromEntries(meta)
  return filter
}
