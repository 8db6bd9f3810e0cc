// Elements. Text from outside becomes text and nothing else: no function here reads markup.

export const $ = (id) => document.getElementById(id)

/** Returns a copy of the only element of a template. */
export const fromTemplate = (id) => $(id).content.firstElementChild.cloneNode(true)

/** Returns a new element with properties, and with children: elements or text. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties)
  element.append(...children)
  return element
}

// Controls, line and paragraph separators, marks that change the direction of text, unpaired surrogates.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]|\p{Surrogate}/gu

/** Returns text on one line, with invisible characters escaped: a file's name may hold any. */
export const shown = (text) =>
  String(text).replace(HIDDEN, (letter) => {
    const code = letter.charCodeAt(0)
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`
  })

/** Returns the last part of a path. */
export const nameOf = (path) => shown(path.split(/[/\\]/).filter(Boolean).at(-1) ?? path)
