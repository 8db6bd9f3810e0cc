// Filters on folder, date and metadata, with those values that the index has.

import { filters } from './api.js'
import { $, make, shown } from './dom.js'
import { words } from './words.js'

let known = { folders: [], meta: {}, dates: [] }
let current = {}
let onChange = () => {}

/** Starts the filters. `changed(filter)` is called when the user changes them. */
export function startFilters(changed) {
  onChange = changed
  $('filters-open').addEventListener('click', () => open($('filters').hidden))
}

/** Reads from the service what there is to filter by. */
export async function loadFilters() {
  known = await filters()
  $('filters-open').hidden = !fields().length
  drawFilters()
}

/** Shows the filter of a view. */
export function showFilter(filter) {
  current = filter
  drawFilters()
}

function open(shown) {
  $('filters').hidden = !shown
  $('filters-open').setAttribute('aria-expanded', shown)
}

/** A filter: its label, its value, the form's element for it, and the filter with another value. */
function fields() {
  const found = []
  const plain = (name, element) =>
    found.push({ name, label: words(name), value: current[name] ?? '', element, set: (value) => without(current, name, value) })
  if (known.folders.length > 1) plain('folder', () => choice(known.folders))
  if (known.dates?.[0]) for (const name of ['after', 'before']) plain(name, () => day(known.dates))
  for (const [name, values] of Object.entries(known.meta)) {
    if (!values.length) continue
    const set = (value) => {
      const meta = without(current.meta ?? {}, name, value)
      return without(current, 'meta', Object.keys(meta).length ? meta : '')
    }
    const value = current.meta?.[name] ?? ''
    found.push({ name: `meta.${name}`, label: shown(name), value, element: () => choice(values), set })
  }
  return found
}

/** Returns a copy of an object with a field changed; '' removes it. */
function without(object, name, value) {
  const { [name]: _, ...others } = object
  return value === '' ? others : { ...others, [name]: value }
}

function choice(values) {
  const any = make('option', { value: '', textContent: words('any') })
  return make('select', {}, any, ...values.map((value) => make('option', { value, textContent: shown(value) })))
}

const day = ([min, max]) => make('input', { type: 'date', min: min.slice(0, 10), max: max.slice(0, 10) })

/** Draws the fields and the chips, in the page's language. */
export function drawFilters() {
  const all = fields()
  const focused = document.activeElement?.id
  $('fields').replaceChildren(
    ...all.map(({ name, label, value, element, set }) => {
      const control = element()
      control.id = `filter-${name}`
      if (value && control.tagName === 'SELECT' && ![...control.options].some((each) => each.value === value)) {
        control.append(make('option', { value, textContent: shown(value) })) // of an older link
      }
      control.value = value
      control.addEventListener('change', () => onChange(set(control.value)))
      return make('div', { className: 'field' }, make('label', { htmlFor: control.id, textContent: label }), control)
    }),
  )
  if (focused?.startsWith('filter-')) $(focused)?.focus()
  $('chips').replaceChildren(
    ...all.filter(({ value }) => value).map(({ label, value, set }) => {
      const said = `${label}: ${shown(value)}`
      const cross = make('span', { textContent: '×', ariaHidden: 'true' })
      const button = make('button', { type: 'button', className: 'chip' }, make('bdi', { textContent: said }), cross)
      button.setAttribute('aria-label', words('removeFilter', { name: said }))
      button.addEventListener('click', () => {
        onChange(set(''))
        $('text').focus()
      })
      return make('li', {}, button)
    }),
  )
}
