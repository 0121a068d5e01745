/** The map in ARCHITECTURE.md, "The house", as far as a scan of the sources can see it. */
import fs from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { describe, expect, test } from 'vitest'

const root = join(import.meta.dirname, '..', 'src')

interface Source {
  /** From `src/`, with its extension. */
  readonly file: string
  readonly code: string
  /** Sources that it imports, types included. */
  readonly imports: readonly string[]
  /** Everything else that it imports. */
  readonly modules: readonly string[]
}

/** Import, export and `import()`; a specifier is a string, so comments must be gone before. */
const specifierPattern = /\b(?:from|import)\s*\(?\s*(['"])([^'"\n]+)\1/g

/** A string that holds `//` stays whole: strings and templates are matched first. */
const commentPattern = /('(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g

function scan(file: string, text: string): Source {
  const code = text.replace(commentPattern, (_, literal: string | undefined) => literal ?? ' ')
  const specifiers = [...code.matchAll(specifierPattern)].map(([, , specifier]) => specifier!)
  const isLocal = (specifier: string) => specifier.startsWith('.')
  const resolved = (specifier: string) => join(dirname(file), specifier).replace(/\.js$/, '.ts')
  return { file, code, imports: specifiers.filter(isLocal).map(resolved), modules: specifiers.filter((it) => !isLocal(it)) }
}

function sourcesIn(directory: string): string[] {
  return fs
    .readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
    .sort()
}

const sources = sourcesIn(root).map((file) => scan(file, fs.readFileSync(join(root, file), 'utf8')))

/** Imports run down this list. What stands in one line are siblings; `peers` may import each other, others may not. */
const layers: readonly { readonly parts: readonly string[]; readonly peers?: true }[] = [
  { parts: ['cli'] },
  { parts: ['gateway'] },
  { parts: ['index.ts', 'postgres.ts'] },
  { parts: ['store.ts', 'session.ts', 'input.ts'], peers: true },
  { parts: ['turns', 'maintenance', 'backup'] },
  { parts: ['file', 'postgres'] },
  { parts: ['backend.ts'] },
  { parts: ['archives.ts'] },
  { parts: ['errors.ts', 'types.ts', 'clock.ts'] },
  { parts: ['repair-plan.ts'] },
  { parts: ['findings.ts', 'upkeep.ts'] },
]

const partOf = (file: string) => file.split('/')[0]!
const layerOf = (file: string) => layers.findIndex(({ parts }) => parts.includes(partOf(file)))

function runsDown(from: string, to: string): boolean {
  const [above, below] = [layerOf(from), layerOf(to)]
  return partOf(from) === partOf(to) || above < below || (above === below && layers[above]!.peers === true)
}

const under = (folder: string) => sources.filter(({ file }) => file.startsWith(`${folder}/`))
const storeSide = sources.filter(({ file }) => !file.startsWith('cli/') && !file.startsWith('gateway/'))

describe('the scan sees what it is there to see', () => {
  const seen = scan(
    'file/log/sample.ts',
    `/** import a from './not.js' */ // import b from './nor.js'
     import { type A, b } from '../a.js'
     import type { C } from "./c.js"
     import '../side-effect.js'
     export * from '../../d.js'
     export type {
       E,
     } from '../e.js'
     const url = 'https://example.org' // from './nowhere.js'
     const lazy = await import('./lazy.js'); import fs from 'node:fs'`,
  )

  test('imports of every kind, and none in comments', () => {
    expect(seen.imports).toEqual(['file/a', 'file/log/c', 'file/side-effect', 'd', 'file/e', 'file/log/lazy'].map((name) => `${name}.ts`))
    expect(seen.modules).toEqual(['node:fs'])
  })

  test('every import of the sources leads to a source', () => {
    const files = new Set(sources.map(({ file }) => file))
    expect(sources.flatMap(({ file, imports }) => imports.filter((to) => !files.has(to)).map((to) => `${file} -> ${to}`))).toEqual([])
    expect(sources.flatMap(({ imports }) => imports).length).toBeGreaterThan(200)
  })

  test('a cycle is found, whole', () => {
    expect(cycleIn(new Map(Object.entries({ a: ['b'], b: ['c', 'd'], c: [], d: ['b'] })))).toEqual(['b', 'd', 'b'])
    expect(cycleIn(new Map(Object.entries({ a: ['b', 'c'], b: ['c'], c: [] })))).toBeUndefined()
  })
})

describe('imports', () => {
  test('every source has its place in the house', () => {
    expect(sources.map(({ file }) => file).filter((file) => layerOf(file) < 0)).toEqual([])
  })

  test('run downwards only', () => {
    expect(sources.flatMap(({ file, imports }) => imports.filter((to) => !runsDown(file, to)).map((to) => `${file} -> ${to}`))).toEqual([])
  })

  test('form no cycle, those of types included', () => {
    expect(cycleIn(new Map(sources.map(({ file, imports }) => [file, imports])))).toBeUndefined()
  })

  test('within file/: lock and log do not know each other, nor what is built on them; the metadata does not know transcripts', () => {
    const forbidden: readonly (readonly [from: string, to: string])[] = [
      ['file/lock', 'file/log'],
      ['file/log', 'file/lock'],
      ['file/lock', 'file/metadata'],
      ['file/log', 'file/metadata'],
      ['file/lock', 'file/transcripts'],
      ['file/log', 'file/transcripts'],
      ['file/metadata', 'file/transcripts'],
    ]
    const found = forbidden.flatMap(([from, to]) =>
      under(from).flatMap(({ file, imports }) => imports.filter((it) => it.startsWith(`${to}/`)).map((it) => `${file} -> ${it}`)),
    )
    expect(found).toEqual([])
  })

  test('whoever imports holdfast loads neither the gateway nor what it needs', () => {
    const loaded = new Map<string, Source>()
    const load = (file: string) => {
      const source = sources.find((it) => it.file === file)!
      if (loaded.has(file)) return
      loaded.set(file, source)
      for (const to of source.imports) load(to)
    }
    load('index.ts')
    expect(loaded.size).toBeGreaterThan(20)
    expect([...loaded.keys()].filter((file) => /^(gateway|cli)\//.test(file))).toEqual([])
    const theirs = new Set([...loaded.values()].flatMap(({ modules }) => modules))
    const gateways = under('gateway').flatMap(({ modules }) => modules)
    expect(gateways).toEqual(expect.arrayContaining(['srvx/node', 'eventsource-parser']))
    expect([...theirs].filter((it) => /^(srvx|eventsource-parser|commander|node:http)/.test(it))).toEqual([])
  })

  test('index.ts re-exports and does nothing else', () => {
    const { code } = sources.find(({ file }) => file === 'index.ts')!
    expect(code.replace(/export\s+(?:type\s+)?(?:\*|\{[^}]*\})\s+from\s+'[^']+'/g, '').trim()).toBe('')
  })
})

describe('the disk', () => {
  /** Functions of node:fs that change nothing. */
  const readers = new Set(['readlinkSync', 'readFileSync', 'realpathSync', 'lstatSync', 'statSync', 'readdirSync', 'existsSync', 'watch'])

  /** What a source uses of node:fs; the module itself, handed on or taken apart, counts as a use that nobody can judge. */
  function usesOfFs(code: string): string[] {
    const uses: string[] = []
    for (const [, clause] of code.matchAll(/import\s+([^'"]+?)\s+from\s+'(?:node:)?fs'/g)) {
      const named = /\{([^}]*)\}/.exec(clause!)
      for (const name of named?.[1]?.split(',') ?? []) if (name.trim()) uses.push(name.trim().split(/\s+as\s+/)[0]!)
      const whole = /^(?:\*\s+as\s+)?([A-Za-z_$][\w$]*)/.exec(clause!)?.[1]
      if (!whole || whole === 'type') continue
      const rest = code.replace(/import\s[^'"]+?\sfrom\s+'[^']+'/g, '')
      for (const [, name] of rest.matchAll(new RegExp(`(?<![\\w$.])${whole}\\b(?:\\s*\\??\\.\\s*([\\w$]+))?`, 'g')))
        uses.push(name ?? whole)
    }
    return uses
  }

  const writersIn = (all: readonly Source[]) =>
    all.flatMap(({ file, code }) =>
      usesOfFs(code)
        .filter((name) => !readers.has(name))
        .map((name) => `${file}: ${name}`),
    )

  test('the scan tells writing from reading', () => {
    const code = `import fs, { rmSync as gone, readFileSync } from 'node:fs'; fs.watch(a); fs.openSync(b, 'a'); const { x } = fs; disk.fs.y()`
    expect(writersIn([scan('file/a.ts', code)])).toEqual(['file/a.ts: rmSync', 'file/a.ts: openSync', 'file/a.ts: fs'])
    expect(writersIn([scan('file/b.ts', `import * as disk from 'node:fs'\ndisk.promises.rm(a)`)])).toEqual(['file/b.ts: promises'])
  })

  test('is written by durable.ts alone', () => {
    expect(writersIn(storeSide.filter(({ file }) => file !== 'file/durable.ts'))).toEqual([])
    expect(writersIn(storeSide).length).toBeGreaterThan(10)
  })

  test('has no second way in', () => {
    const ways = ['fs/promises', 'node:fs/promises', 'write-file-atomic', 'node:module', 'module']
    const found = storeSide.flatMap(({ file, modules }) => modules.filter((it) => ways.includes(it)).map((it) => `${file}: ${it}`))
    // heartbeat.ts looks up what proper-lockfile has loaded, to unload it; there is nothing of the disk in that.
    expect(found).toEqual(['file/durable.ts: write-file-atomic', 'file/lock/heartbeat.ts: node:module'])
  })

  test('is no business of the gateway', () => {
    const ways = under('gateway').flatMap(({ file, modules }) =>
      modules.filter((it) => /^(node:)?(fs|module|child_process)\b/.test(it)).map((it) => `${file}: ${it}`),
    )
    expect(ways).toEqual([])
  })

  test('is not touched at all by what only checks and hands on', () => {
    const above = sources.filter(({ file }) => ['store.ts', 'session.ts', 'input.ts', 'index.ts', 'errors.ts', 'types.ts'].includes(file))
    expect(above.flatMap(({ modules }) => modules.filter((it) => it.startsWith('node:')))).toEqual([])
  })
})

describe('names and sizes', () => {
  test('no file is longer than 400 lines', () => {
    const lines = (file: string) => fs.readFileSync(join(root, file), 'utf8').split('\n').length - 1
    expect(sources.map(({ file }) => `${file}: ${lines(file)}`).filter((it) => Number(it.split(': ')[1]) > 400)).toEqual([])
  })

  test('files are kebab-case, and nothing is called utils, helpers, common or core', () => {
    const parts = sources.flatMap(({ file }) => file.replace(/\.ts$/, '').split('/'))
    expect(parts.filter((part) => !/^[a-z0-9]+(-[a-z0-9]+)*$/.test(part))).toEqual([])
    expect(parts.filter((part) => /^(utils?|helpers?|common|core|misc|shared)$/.test(part))).toEqual([])
  })
})

/** The first cycle that a walk comes across, as the way round it. */
function cycleIn(graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>()
  const way: string[] = []
  const walk = (at: string): string[] | undefined => {
    if (way.includes(at)) return [...way.slice(way.indexOf(at)), at]
    if (done.has(at)) return undefined
    way.push(at)
    for (const to of graph.get(at) ?? []) {
      const cycle = walk(to)
      if (cycle) return cycle
    }
    way.pop()
    done.add(at)
    return undefined
  }
  for (const start of graph.keys()) {
    const cycle = walk(start)
    if (cycle) return cycle
  }
  return undefined
}
