// Light and dark: as the system, or as chosen.

import { $ } from './dom.js'
import { settings } from './storage.js'
import { words } from './words.js'

const LOOKS = ['auto', 'light', 'dark']
const root = document.documentElement
const current = () => root.dataset.look ?? 'auto'

/** Makes the button go through the looks. */
export function startLook() {
  $('look').addEventListener('click', () => {
    const next = LOOKS[(LOOKS.indexOf(current()) + 1) % LOOKS.length]
    if (next === 'auto') delete root.dataset.look
    else root.dataset.look = next
    settings.set('jclip-look', next)
    nameLook()
  })
}

/** Writes the current look into the button's label. */
export function nameLook() {
  const name = words({ auto: 'lookAuto', light: 'lookLight', dark: 'lookDark' }[current()])
  $('look').title = words('look', { name })
  $('look').setAttribute('aria-label', words('look', { name }))
}
