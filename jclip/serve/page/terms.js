// Texts that are added to an image. A text alone is read by the service, in the whole of its query language.

const OPERATOR = /(?:^|\s)([+\-＋－])(?=\s|$)/
const WEIGHT = /^(\d+(?:\.\d*)?|\.\d+)[:：](?=[^\s\d])/

/** Returns the terms of "雪 - 2:人" for the service: [{text: '雪', weight: 1}, {text: '人', weight: -2}]. */
export function termsOf(text) {
  const [first, ...others] = text.split(OPERATOR)
  const signed = [['+', first]]
  for (let i = 0; i < others.length; i += 2) signed.push([others[i], others[i + 1]])
  return signed
    .map(([sign, words]) => {
      const term = words.trim()
      const weight = Number(term.match(WEIGHT)?.[1] ?? 1)
      return { text: term.replace(WEIGHT, ''), weight: '-－'.includes(sign) ? -weight : weight }
    })
    .filter(({ text }) => text)
}
