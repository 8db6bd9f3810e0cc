// The service's key: asked for when the service wants one, and kept until the tab is closed.

import { $ } from './dom.js'
import { secrets } from './storage.js'
import { words } from './words.js'

const NAME = 'jclip-key'
let asking = null
let declined = false

export const key = () => secrets.get(NAME)

/** Lets `askKey` ask again after a refusal: call it when the user starts something. */
export function askAgain() {
  declined = false
}

/** Asks for a key, once for all requests that wait; returns whether one was given. `wrong`: the last was refused. */
export function askKey(wrong) {
  if (declined) return Promise.resolve(false)
  asking ??= answer(wrong).finally(() => (asking = null))
  return asking
}

function answer(wrong) {
  const dialog = $('key')
  $('key-words').textContent = words(wrong ? 'keyWrong' : 'keyWords')
  $('key-text').value = ''
  dialog.returnValue = ''
  dialog.showModal()
  return new Promise((resolve) => {
    dialog.addEventListener(
      'close',
      () => {
        const given = dialog.returnValue === 'use' ? $('key-text').value.trim() : ''
        if (given) secrets.set(NAME, given)
        declined = !given
        resolve(Boolean(given))
      },
      { once: true },
    )
  })
}
