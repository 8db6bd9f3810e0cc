// The page: shows the view that the address names, and goes to others.

import { addressOf, viewOf } from './address.js'
import { duplicates, info, Problem, search } from './api.js'
import { nameQuery, showQuery, startBox } from './box.js'
import { $, fromTemplate, make, shown } from './dom.js'
import { Feed, Feeds, Watch } from './feed.js'
import { drawFilters, loadFilters, showFilter, startFilters } from './filters.js'
import { brought } from './images.js'
import { askAgain } from './key.js'
import { focusTile, onlyStop, startKeyboard } from './keyboard.js'
import { nameLook, startLook } from './look.js'
import { drawProgress, entries, startProgress } from './progress.js'
import { hitOf, label, placeholders, tileOf } from './tiles.js'
import { openViewer, redrawViewer, startViewer } from './viewer.js'
import { EXAMPLES, language, number, switchLanguage, words, writeWords } from './words.js'

let view = viewOf(location.search)
let feed = null
let problem = null
let model = ''
let focusFirst = false
const feeds = new Feeds()
const watch = new Watch($('sentinel'), () => feed?.more && !feed.loading && !problem?.stops && grow())

/** Goes to another view, as a new step of the browser's history. */
function go(next, { replace = false, focus = false } = {}) {
  askAgain()
  if (feed) feed.scroll = scrollY
  history[replace || history.state?.viewer ? 'replaceState' : 'pushState'](null, '', addressOf(next))
  show({ focus })
}

/** Shows the view that the address names; `kept`: with the results that it had. */
function show({ kept = false, focus = false } = {}) {
  feed?.stop()
  view = viewOf(location.search)
  focusFirst = focus
  document.body.dataset.view = view.name
  for (const each of document.querySelectorAll('[data-in]')) each.hidden = !each.dataset.in.split(' ').includes(view.name)
  showQuery(view)
  showFilter(view.filter)
  $('threshold').value = view.threshold
  $('threshold-seen').textContent = Number(view.threshold).toFixed(3)
  report(null)
  $('grid').replaceChildren()
  $('groups').replaceChildren()
  feed = null
  name()
  if (view.name === 'start') {
    if (matchMedia('(hover: hover)').matches) $('text').focus()
    return
  }
  if (view.image && !brought.has(view.image)) {
    report(new Problem('imageGone', 'imageGoneWords'))
    return
  }
  const address = addressOf(view)
  feed = (kept && feeds.get(address)) || new Feed(loading(view))
  feeds.put(address, feed)
  place(feed.items)
  scrollTo(0, feed.scroll)
  if (feed.items.length) watch.again()
  else grow()
}

/** Returns the function that loads results of a view. */
function loading(of) {
  const waiting = () => ($('status').textContent = words('warming'))
  return of.name === 'duplicates'
    ? (offset, signal) => duplicates(of, offset, signal, waiting)
    : (offset, signal) => search(of, brought.get(of.image), offset, signal, waiting)
}

/** Loads the next results and shows them. */
async function grow() {
  const grown = feed
  busy(true)
  try {
    const items = await grown.next()
    if (grown !== feed) return
    busy(false)
    place(items)
    if (focusFirst) focusTile()
    focusFirst = false
    watch.again()
  } catch (error) {
    if (grown !== feed || error.name === 'AbortError') return
    busy(false)
    report(Object.assign(asProblem(error), { stops: true }))
  }
}

const asProblem = (error) => (error instanceof Problem ? error : new Problem('failed', '', String(error)))

function busy(is) {
  $('results').ariaBusy = is
  for (const each of document.querySelectorAll('.waiting')) each.remove()
  if (!is) return
  $('status').textContent = words('searching')
  if (!feed.items.length && view.name === 'search') $('grid').append(...placeholders(12))
}

/** Adds results to the page. */
function place(items) {
  if (view.name === 'duplicates') $('groups').append(...items.map(groupOf))
  else $('grid').append(...items.map(tileOf))
  if (!document.querySelector('.tile.stop')) onlyStop(document.querySelector('.tile:not(.waiting)'))
  say()
}

function groupOf(hits) {
  const section = fromTemplate('group')
  section.dataset.count = hits.length
  section.classList.add(hits.length > 4 ? 'whole' : hits.length > 2 ? 'half' : 'pair')
  section.querySelector('.grid').append(...hits.map(tileOf))
  nameGroup(section)
  return section
}

function nameGroup(section) {
  section.querySelector('h2').textContent = words('group', { count: number(Number(section.dataset.count)) })
}

/** Says how many results there are, or why there are none. */
function say() {
  const count = number(feed.items.length)
  const groups = view.name === 'duplicates'
  const key = groups ? 'foundGroups' : feed.more ? 'found' : 'foundAll'
  $('status').textContent = feed.items.length ? words(key, { count }) : ''
  if (feed.items.length || feed.more) return
  const why = entries() === 0 ? 'noneIndexed' : groups ? 'noneDuplicates' : 'noneWords'
  report(new Problem('none', why))
}

/** Shows a problem under the results, or none. One that `stops` the results can be tried again. */
function report(found) {
  problem = found
  $('note').hidden = !found
  if (!found) return
  $('status').textContent = ''
  $('note-title').textContent = words(found.title, found.values)
  const why = found.explanation && words(found.explanation, found.values)
  $('note-words').textContent = [why, shown(found.message === found.title ? '' : found.message)].filter(Boolean).join(' ')
  $('note-retry').hidden = !found.stops
}

/** Writes all that depends on the language, except what is written when it is drawn. */
function name() {
  const query = view.name === 'duplicates' ? words('duplicates') : view.text
  document.title = query ? `${shown(query)} – jclip` : 'jclip'
  $('footer').replaceChildren(
    ...(model ? [make('span', { textContent: words('model', { name: shown(model) }) })] : []),
    make('a', { href: 'openapi.json', textContent: words('api') }),
  )
}

function changeLanguage() {
  switchLanguage()
  writeAll()
}

function writeAll() {
  writeWords()
  $('language').textContent = words('otherLanguage')
  $('language').lang = language() === 'zh' ? 'en' : 'zh'
  nameLook()
  nameQuery(view)
  drawFilters()
  drawProgress()
  name()
  document.querySelectorAll('.tile:not(.waiting)').forEach(label)
  document.querySelectorAll('.group').forEach(nameGroup)
  redrawViewer()
  if (problem) report(problem)
  else if (feed && !feed.loading) say()
}

/** Opens the viewer when a tile is clicked, and follows links inside the page without loading it anew. */
function startClicks() {
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return
    const link = event.target.closest('a[data-inside]')
    const tile = event.target.closest('.tile .open')
    if (link) {
      event.preventDefault()
      const fromResults = Boolean(link.closest('.tile, dialog'))
      closeDialogs()
      go(viewOf(new URL(link.href).search), { focus: fromResults })
    } else if (tile) {
      history.pushState({ viewer: true }, '') // so that the way back closes the viewer
      openViewer(hitOf(tile), (last) => {
        const focus = () => {
          const found = [...document.querySelectorAll('.tile:not(.waiting)')].find((each) => hitOf(each) === last)
          if (found) focusTile(found)
        }
        if (history.state?.viewer) leaveViewer(focus)
        else focus()
      })
    }
  })
}

/** Removes the viewer's step from the browser's history, after it was closed otherwise. `then`: the step takes the focus. */
function leaveViewer(then) {
  const left = (event) => {
    event.stopImmediatePropagation()
    then()
  }
  addEventListener('popstate', left, { once: true, capture: true })
  history.back()
}

const closeDialogs = () => document.querySelectorAll('dialog[open]').forEach((each) => each.close())

function stepFrom(hit, by) {
  const all = feed?.items.flat() ?? []
  const at = all.indexOf(hit) + by
  if (at > all.length - 10 && feed?.more && !feed.loading && !problem?.stops) grow()
  return all[at]
}

function start() {
  history.scrollRestoration = 'manual'
  history.replaceState(null, '') // a viewer that was open before a reload is not
  for (const text of EXAMPLES) {
    const link = make('a', { href: addressOf({ ...viewOf(''), text }), textContent: text, className: 'chip' })
    link.dataset.inside = ''
    $('examples').append(make('li', {}, link))
  }
  startLook()
  startKeyboard()
  startClicks()
  startViewer(stepFrom)
  startBox({
    onText: (text) => go({ ...view, name: 'search', text }),
    onImage: (image) => go({ ...view, name: 'search', text: '', like: null, image }),
    onNoImage: (text) => go({ ...view, name: 'search', text, like: null, image: null }),
    onProblem: (error) => report(asProblem(error)),
  })
  startFilters((filter) => go({ ...view, filter }))
  $('language').addEventListener('click', changeLanguage)
  $('help').addEventListener('click', () => $('help-dialog').showModal())
  $('help-dialog').addEventListener('click', (event) => event.target === $('help-dialog') && $('help-dialog').close())
  $('threshold').addEventListener('input', () => ($('threshold-seen').textContent = Number($('threshold').value).toFixed(3)))
  $('threshold').addEventListener('change', () => go({ ...view, threshold: $('threshold').value }, { replace: true }))
  $('note-retry').addEventListener('click', () => {
    askAgain()
    report(null)
    grow()
  })
  addEventListener('popstate', () => {
    const { open } = $('viewer')
    closeDialogs()
    if (open) return // the step back was out of the viewer
    if (feed) feed.scroll = scrollY
    show({ kept: true })
  })
  writeAll()
  show()
  startIndex()
}

/** Reads what the index holds, now and when it has grown. */
async function startIndex() {
  startProgress(() => {
    feeds.clear()
    loadFilters().catch(() => {})
  })
  try {
    const said = await info()
    model = said.model.name
    name()
    if (said.index) {
      $('to-duplicates').hidden = false
      await loadFilters()
    } else {
      report(new Problem('noIndex', 'noIndexWords'))
    }
  } catch {
    // the search says what is wrong
  }
}

start()
