// Texts of the page in English and Chinese.

import { settings } from './storage.js'

const WORDS = {
  en: {
    pages: 'Pages', results: 'Results',
    title: 'Find images by a sentence', subtitle: 'In any language the model reads, by an image, or by both added up.',
    searchLabel: 'Search for images', placeholder: 'Describe an image, or drop one here',
    placeholderImage: 'Add words, such as “- people”', go: 'Search',
    chooseImage: 'Search by an image', removeImage: 'Remove the image', queryImage: 'Searching by the image {name}',
    try: 'Try', dropHint: 'Or drop, paste or choose an image.', drop: 'Drop the image to search with it',
    duplicates: 'Near duplicates', duplicatesWords: 'Groups of images that are almost the same: copies, edits, bursts.',
    threshold: 'Least similarity', group: '{count} images',
    filters: 'Filters', activeFilters: 'Active filters', removeFilter: 'Remove the filter {name}',
    folder: 'Folder', after: 'From', before: 'Until', any: 'Any',
    similar: 'Find similar', similarTo: 'Find images similar to {name}', original: 'Open the original',
    copyPath: 'Copy the path', copied: 'Copied', gone: 'The file is gone, or has changed since it was indexed', previous: 'Previous', next: 'Next',
    close: 'Close', open: 'Open {name}, similarity {score}',
    factPath: 'Path', factSize: 'Size', factScore: 'Similarity', pixels: '{width} × {height} pixels',
    searching: 'Searching', found: '{count} shown; scroll for more', foundAll: '{count} shown; these are all',
    foundGroups: '{count} groups shown', none: 'Nothing found',
    noneWords: 'No image fits these filters. Remove one, or search for something else.',
    noneDuplicates: 'No two images are this similar. Lower the least similarity.',
    noneIndexed: 'The index is empty so far.',
    retry: 'Try again', failed: 'The search failed', offline: 'The service does not answer',
    offlineWords: 'Is it still running? Start it again, then try again.',
    busy: 'The service is busy', busyWords: 'It has more requests than it can queue. Try again in a moment.',
    warming: 'The service is being prepared; the search starts by itself.',
    keyTitle: 'This service needs a key', keyWords: 'Enter the key that the service was started with. It is kept until this tab is closed.',
    keyWrong: 'The service did not accept that key. Check it, and enter it again.',
    key: 'Key', useKey: 'Use this key', cancel: 'Cancel', keyNeeded: 'Without the key, the service does not search.',
    notImage: '{name} is not an image', notImageWords: 'Choose a file such as a JPEG, PNG, WebP or GIF.',
    tooLarge: '{name} is too large', tooLargeWords: 'Choose an image of at most {limit} MB.',
    imageGone: 'That image is not kept', imageGoneWords: 'The page keeps an image only until it is reloaded. Drop it again.',
    indexing: 'Indexing', indexingFailed: 'Indexing has failed', indexingWords: '{done} of {total} images', rate: '{rate} a second', left: '{time} left',
    skipped: '{count} skipped', indexed: '{count} images', model: 'Model: {name}', api: 'Interface (OpenAPI)',
    noIndex: 'This service has no index', noIndexWords: 'Start it with --index INDEX to search images.',
    help: 'Help', helpQueries: 'Queries', helpKeys: 'Keys',
    helpSum: 'dogs with snow, without people: terms are added and subtracted', helpWeight: 'a term that counts twice',
    helpSlash: 'to the search box', helpArrows: 'from image to image', helpEnter: 'opens an image',
    helpSimilar: 'finds similar images', helpEscape: 'closes, or returns to the search box',
    look: 'Colours: {name}', lookAuto: 'as the system', lookLight: 'light', lookDark: 'dark', otherLanguage: '中文',
  },
  zh: {
    pages: '页面', results: '搜索结果',
    title: '用一句话找图片', subtitle: '可以用模型懂的任何语言，用一张图片，或者把它们加起来。',
    searchLabel: '搜索图片', placeholder: '描述一张图片，或把图片拖到这里', placeholderImage: '可以再加文字，例如“- 人”', go: '搜索',
    chooseImage: '用图片搜索', removeImage: '移除图片', queryImage: '正在用图片 {name} 搜索',
    try: '试一试', dropHint: '也可以拖入、粘贴或选择一张图片。', drop: '松开鼠标，用这张图片搜索',
    duplicates: '近似重复', duplicatesWords: '几乎相同的图片：副本、修改过的版本、连拍。',
    threshold: '最低相似度', group: '{count} 张图片',
    filters: '筛选', activeFilters: '已选筛选', removeFilter: '移除筛选 {name}',
    folder: '文件夹', after: '从', before: '到', any: '不限',
    similar: '找相似图片', similarTo: '查找与 {name} 相似的图片', original: '打开原图',
    copyPath: '复制路径', copied: '已复制', gone: '文件已不存在，或在建立索引后被修改', previous: '上一张', next: '下一张',
    close: '关闭', open: '打开 {name}，相似度 {score}',
    factPath: '路径', factSize: '尺寸', factScore: '相似度', pixels: '{width} × {height} 像素',
    searching: '正在搜索', found: '已显示 {count} 张，向下滚动加载更多', foundAll: '共 {count} 张',
    foundGroups: '已显示 {count} 组', none: '没有结果',
    noneWords: '没有图片符合这些筛选。移除一个筛选，或者换个说法。',
    noneDuplicates: '没有两张图片这么相似。请降低最低相似度。',
    noneIndexed: '索引还是空的。',
    retry: '重试', failed: '搜索失败', offline: '服务没有响应', offlineWords: '它还在运行吗？请启动后重试。',
    busy: '服务繁忙', busyWords: '排队的请求太多。请稍后再试。', warming: '服务正在准备，随后会自动搜索。',
    keyTitle: '此服务需要密钥', keyWords: '请输入启动服务时设置的密钥。它只保留到关闭此标签页为止。',
    keyWrong: '服务不接受这个密钥。请检查后重新输入。',
    key: '密钥', useKey: '使用此密钥', cancel: '取消', keyNeeded: '没有密钥，服务不提供搜索。',
    notImage: '{name} 不是图片', notImageWords: '请选择 JPEG、PNG、WebP 或 GIF 等图片文件。',
    tooLarge: '{name} 太大', tooLargeWords: '请选择不超过 {limit} MB 的图片。',
    imageGone: '这张图片没有保留', imageGoneWords: '刷新页面后图片不再保留。请重新拖入。',
    indexing: '正在建立索引', indexingFailed: '建立索引失败', indexingWords: '{done} / {total} 张图片', rate: '每秒 {rate} 张', left: '剩余 {time}',
    skipped: '跳过 {count} 张', indexed: '{count} 张图片', model: '模型：{name}', api: '接口（OpenAPI）',
    noIndex: '此服务没有索引', noIndexWords: '启动时加上 --index INDEX，即可搜索图片。',
    help: '帮助', helpQueries: '查询', helpKeys: '快捷键',
    helpSum: '有雪有狗，没有人：各项相加、相减', helpWeight: '这一项的权重是两倍',
    helpSlash: '到搜索框', helpArrows: '在图片之间移动', helpEnter: '打开图片',
    helpSimilar: '查找相似图片', helpEscape: '关闭，或回到搜索框',
    look: '颜色：{name}', lookAuto: '跟随系统', lookLight: '浅色', lookDark: '深色', otherLanguage: 'English',
  },
}

/** Queries that the start page offers. */
export const EXAMPLES = ['红色的汽车', 'a smiling cat', '狗 + 雪 - 人', 'un oiseau bleu', '夜晚的城市']

export const language = () => document.documentElement.lang

/** Returns a text of the page, with each {name} replaced by a value. */
export function words(key, values = {}) {
  return WORDS[language()][key].replace(/\{(\w+)\}/g, (_, name) => values[name])
}

export const number = (value) => new Intl.NumberFormat(language()).format(value)

/** Returns a similarity with three decimals. */
export const score = (value) => value.toFixed(3)

/** Returns a duration such as "3 min". */
export function duration(seconds) {
  const [value, unit] =
    seconds < 90 ? [seconds, 'second'] : seconds < 5400 ? [seconds / 60, 'minute'] : [seconds / 3600, 'hour']
  return new Intl.NumberFormat(language(), { style: 'unit', unit, unitDisplay: 'short', maximumFractionDigits: 0 }).format(value)
}

/** Writes the texts of all elements that name one: data-words for the content, data-label for the label and tooltip. */
export function writeWords(root = document) {
  for (const element of root.querySelectorAll('[data-words]')) element.textContent = words(element.dataset.words)
  for (const element of root.querySelectorAll('[data-label]')) {
    element.setAttribute('aria-label', words(element.dataset.label))
    if (element.matches('button')) element.title = words(element.dataset.label)
  }
}

/** Switches to the other language. */
export function switchLanguage() {
  document.documentElement.lang = language() === 'zh' ? 'en' : 'zh'
  settings.set('jclip-language', language())
}
