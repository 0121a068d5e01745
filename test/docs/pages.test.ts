/** What the pages say of the project: names, links, dependencies. */
import fs from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { errorCodes } from '../../src/errors.js'
import { Session, SessionStore } from '../../src/index.js'
import { anchorsOf, blocksOf, linksOf, readPage, root } from './markdown.js'

const folder = fileURLToPath(root)
const pages = ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'examples/README.md', 'bench/README.md']
  .concat(fs.readdirSync(join(folder, 'docs')).map((name) => `docs/${name}`))
  .filter((page) => page.endsWith('.md') && fs.existsSync(join(folder, page)))

describe('every link leads somewhere', () => {
  test.each(pages)('%s', (page) => {
    const broken = linksOf(page).filter((link) => {
      const [path, anchor] = link.split('#')
      const target = path ? join(dirname(page), path) : page
      if (!fs.existsSync(join(folder, target))) return true
      return anchor !== undefined && !anchorsOf(target).has(anchor)
    })
    expect(broken).toEqual([])
  })
})

test('the README names every method of the store and of a session', () => {
  const readme = readPage('README.md')
  const methods = [SessionStore, Session].flatMap(({ prototype }) => Object.getOwnPropertyNames(prototype))
  const missing = methods.filter((name) => name !== 'constructor' && !new RegExp(`\`${name}[(\`]`).test(readme))
  expect(missing).toEqual([])
})

test('a hint that names a page names one that is there', () => {
  const named = fs
    .readdirSync(join(folder, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => [...fs.readFileSync(join(folder, 'src', name), 'utf8').matchAll(/docs\/([\w-]+\.md)(?:#([\w-]+))?/g)])
  expect(named.length).toBeGreaterThan(0)
  for (const [, page, anchor] of named) {
    expect(fs.existsSync(join(folder, 'docs', page!)), page).toBe(true)
    if (anchor) expect(anchorsOf(`docs/${page}`)).toContain(anchor)
  }
})

test('every dependency has its reason in ARCHITECTURE.md', () => {
  const { dependencies, devDependencies } = JSON.parse(readPage('package.json')) as Record<string, Record<string, string>>
  const page = readPage('ARCHITECTURE.md')
  const unnamed = [...Object.keys(dependencies!), ...Object.keys(devDependencies!)].filter(
    (name) => !name.startsWith('@types/') && !page.includes(`\`${name}\``),
  )
  expect(unnamed).toEqual([])
})

test('the map of the house shows files that are there', () => {
  const map = blocksOf('ARCHITECTURE.md').find(({ text }) => text.startsWith('src/\n'))!.text
  const files = fs.readdirSync(join(folder, 'src'), { recursive: true, encoding: 'utf8' })
  const named = [...map.matchAll(/([\w-]+\.ts|[\w-]+\/)(?=[\s,;])/g)].map(([, name]) => name!).filter((name) => name !== 'src/')
  const gone = named.filter(
    (name) => !files.some((file) => file === name.replace(/\/$/, '') || file.endsWith(`/${name.replace(/\/$/, '')}`)),
  )
  expect(gone).toEqual([])
})

test('the pages speak of no error code that is not there', () => {
  const known = new Set<string>([...errorCodes, 'O_APPEND', 'O_EXCL', 'NO_COLOR', 'FORCE_COLOR', 'TEST_DATABASE_URL'])
  for (const page of pages) {
    const words = readPage(page).match(/\b[A-Z]{3,}(?:_[A-Z]+)+\b/g) ?? []
    expect(words.filter((word) => !known.has(word) && !/^(HOLDFAST|OPENAI)_/.test(word))).toEqual([])
  }
})
