// Runs before the page is drawn, so that a stored choice of colours and language does not flash.
(() => {
  const stored = (name) => {
    try {
      return localStorage.getItem(name)
    } catch {
      return null // storage is switched off
    }
  }
  const root = document.documentElement
  const look = stored('jclip-look')
  if (look === 'light' || look === 'dark') root.dataset.look = look
  const language = stored('jclip-language') ?? navigator.language ?? 'en'
  root.lang = language.toLowerCase().startsWith('zh') ? 'zh' : 'en'
})()
