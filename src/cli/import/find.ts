/** Finds what there is to import under a path: a pi session file, an OpenClaw sessions.json or its directory, or a directory tree of either. */
import fs from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { CommandError, exitCodes } from '../exit.js'
import { idOfFileName, judgeFileName, parseSessionsJson } from './openclaw.js'
import type { BareSource, Described, Found, LeftOut, TranscriptSource } from './source.js'

const depthMax = 6

class Finds implements Found {
  readonly transcripts: TranscriptSource[] = []
  readonly bare: BareSource[] = []
  readonly leftOut: LeftOut[] = []
  readonly notes: string[] = []
}

/** @param unreferenced  also take transcripts of an OpenClaw directory that no session key names any more */
export function findSources(given: string, unreferenced: boolean): Found {
  const path = resolve(given)
  const stat = fs.statSync(path, { throwIfNoEntry: false })
  if (!stat) throw new CommandError(exitCodes.usage, `There is nothing at ${path}.`, 'Name a session file, a sessions.json or a directory.')
  const finds = new Finds()
  if (stat.isDirectory()) findInDirectory(path, unreferenced, depthMax, finds)
  else if (basename(path) === 'sessions.json') findOpenClaw(dirname(path), unreferenced, finds)
  else finds.transcripts.push({ format: 'pi', path, bytes: stat.size, key: undefined, described: undefined })
  if (finds.transcripts.length + finds.bare.length + finds.leftOut.length === 0) {
    const next = 'Looked for *.jsonl and sessions.json there and in the directories below.'
    throw new CommandError(exitCodes.usage, `Nothing to import was found in ${path}.`, next)
  }
  return finds
}

function findInDirectory(dir: string, unreferenced: boolean, depth: number, finds: Finds): void {
  const items = fs.readdirSync(dir, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))
  const names = new Set(items.map((item) => item.name))
  if (names.has('holdfast.json')) {
    const next = 'Open it with --store; copy it with `cp -a` while nothing writes to it.'
    throw new CommandError(exitCodes.usage, `${dir} is itself a Holdfast store.`, next)
  }
  if (names.has('sessions.json')) {
    findOpenClaw(dir, unreferenced, finds)
    return
  }
  for (const item of items) {
    const path = join(dir, item.name)
    if (item.isDirectory()) {
      if (depth > 0) findInDirectory(path, unreferenced, depth - 1, finds)
      else finds.leftOut.push({ path, line: null, key: null, why: `more than ${depthMax} directories deep` })
    } else if (item.name.endsWith('.jsonl')) {
      const bytes = sizeOf(path)
      if (bytes !== undefined) finds.transcripts.push({ format: 'pi', path, bytes, key: undefined, described: undefined })
    }
  }
}

function findOpenClaw(dir: string, unreferenced: boolean, finds: Finds): void {
  const path = join(dir, 'sessions.json')
  const parsed = parseSessionsJson(fs.readFileSync(path, 'utf8'))
  const named = new Map<string, string>()
  if (parsed.kind === 'damaged') {
    finds.leftOut.push({ path, line: null, key: null, why: `damaged: ${parsed.why}. Its transcripts can be taken with --unreferenced` })
  } else {
    for (const { key, why } of parsed.refused) finds.leftOut.push({ path, line: null, key, why })
    for (const described of parsed.described) findDescribed(dir, described, named, finds)
  }
  findUnreferenced(dir, new Set(named.keys()), unreferenced, finds)
}

function findDescribed(dir: string, described: Described, named: Map<string, string>, finds: Finds): void {
  const sizes = described.fileNames.map((name) => ({ name, path: join(dir, name), bytes: sizeOf(join(dir, name)) }))
  const file = sizes.find(({ bytes }) => bytes !== undefined)
  if (!file || file.bytes === undefined) {
    const path = join(dir, described.fileNames[0] ?? `${described.sessionId}.jsonl`)
    finds.bare.push({ format: 'openclaw', path, described })
    finds.leftOut.push({
      path,
      line: null,
      key: described.key,
      why: 'the transcript is missing; only the fields of the session were taken',
    })
    return
  }
  const other = named.get(file.name)
  if (other !== undefined) finds.notes.push(`${file.path} is named by two keys, "${other}" and "${described.key}"; each got its own copy.`)
  named.set(file.name, described.key)
  finds.transcripts.push({ format: 'openclaw', path: file.path, bytes: file.bytes, key: described.key, described })
}

function findUnreferenced(dir: string, named: ReadonlySet<string>, taken: boolean, finds: Finds): void {
  const names = fs.readdirSync(dir).filter((name) => !named.has(name) && name.includes('.jsonl'))
  const conversations = names.filter((name) => judgeFileName(name) !== 'other').sort()
  if (!taken) {
    if (conversations.length === 0) return
    const one = conversations.length === 1
    finds.notes.push(
      `${conversations.length} transcript${one ? '' : 's'} in ${dir} ${one ? 'is' : 'are'} named by no session key (earlier conversations); --unreferenced takes ${one ? 'it' : 'them'} too.`,
    )
    return
  }
  for (const name of conversations) {
    const path = join(dir, name)
    const bytes = sizeOf(path)
    if (bytes === undefined) continue
    const key = `openclaw:${idOfFileName(name).replace(/[\p{Cc}\p{Cs}]/gu, '-')}`
    finds.transcripts.push({ format: 'openclaw', path, bytes, key, described: undefined })
  }
}

/** Of a file; undefined of anything else, and of what has just gone. */
function sizeOf(path: string): number | undefined {
  const stat = fs.statSync(path, { throwIfNoEntry: false })
  return stat?.isFile() ? stat.size : undefined
}
