/** The lock directories: what no version of this library puts there, and what processes have left that are gone. */
import { errnoOf } from '../../errors.js'
import type { Disk } from '../../file/durable.js'
import { parseEntry, parseMaker } from '../../file/lock/holder.js'
import type { Holder, Verdict } from '../../file/lock/staleness.js'
import { breathe } from '../../file/stage.js'
import type { Finding } from '../../findings.js'
import { findingSaying } from './report.js'

export interface LocksScanTools {
  readonly disk: Disk
  /** `locks/`, on the disk. */
  readonly path: string
  judge(holder: Holder): Verdict
}

/** How often a lock is looked at before what is odd about it is told: it may be changing hands. */
const looksMax = 5

export async function* scanLocks(tools: LocksScanTools): AsyncGenerator<Finding> {
  yield* scanLock(tools, 'metadata')
  yield* leftMakings(tools, '', /^metadata$/)
  for (const [directory, names] of [
    ['transcripts', /^\d\d$/],
    ['turns', /^(?:[0-9a-f]{32}|\.floor)$/],
  ] as const) {
    for (const name of list(tools.disk, `${tools.path}/${directory}`)) {
      if (names.test(name)) yield* scanLock(tools, `${directory}/${name}`)
      else if (!isOfLock(name, names)) yield foreign(`locks/${directory}`, [name])
    }
    yield* leftMakings(tools, `${directory}/`, names)
  }
}

function isOfLock(name: string, names: RegExp): boolean {
  const cut = name.indexOf('.', 1)
  if (cut < 0) return parseMaker(name) !== undefined
  return names.test(name.slice(0, cut)) || parseMaker(name) !== undefined
}

async function* scanLock({ disk, path, judge }: LocksScanTools, lock: string): AsyncGenerator<Finding> {
  const file = `locks/${lock}`
  const directory = `${path}/${lock}`
  let odd = oddIn(list(disk, directory))
  for (let looks = 1; odd.length > 0 && looks < looksMax; looks++) {
    await breathe()
    const now = oddIn(list(disk, directory))
    odd = odd.filter((name) => now.includes(name))
  }
  if (odd.length > 0) yield foreign(file, odd)
  for (const name of list(disk, directory)) {
    const entry = parseEntry(name)
    if (!entry || (entry.state === 'held' && judge(entry.holder).kind !== 'dead')) continue
    const staged = list(disk, `${directory}/${name}`)
    if (staged.length === 0) continue
    const who = entry.state === 'held' ? `pid ${entry.holder.pid} on ${entry.holder.host} (${judge(entry.holder).why})` : 'nobody'
    yield findingSaying('stage-leftover', `${file}/${name}`, `${staged.length} staged, held by ${who}.`, { count: staged.length })
  }
}

/** What is no state, and any state beside the newest one. */
function oddIn(names: readonly string[]): string[] {
  const entries = names.flatMap((name) => parseEntry(name) ?? [])
  const newest = Math.max(...entries.map(({ n }) => n))
  const older = entries.filter(({ n }) => n < newest).map(({ name }) => name)
  return [...names.filter((name) => !parseEntry(name)), ...older]
}

/** Locks that were being made by processes that are gone. */
function* leftMakings({ disk, path, judge }: LocksScanTools, directory: string, names: RegExp): Generator<Finding> {
  for (const name of list(disk, `${path}/${directory}`)) {
    const cut = name.indexOf('.', 1)
    const maker = names.test(name.slice(0, cut)) ? parseMaker(name.slice(cut + 1)) : undefined
    if (maker && judge(maker).kind === 'dead')
      yield findingSaying('stage-leftover', `locks/${directory}${name}`, `A lock in the making, by pid ${maker.pid} on ${maker.host}.`)
  }
}

function foreign(file: string, names: readonly string[]): Finding {
  const said = names.slice(0, 5).map((name) => JSON.stringify(name))
  return findingSaying('lock-foreign-entry', file, `${said.join(', ')}${names.length > 5 ? ', …' : ''}.`, { count: names.length })
}

/** Nothing where it is none, or is gone. */
function list(disk: Disk, path: string): string[] {
  try {
    return disk.stat(path)?.kind === 'directory' ? disk.readdir(path) : []
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return []
  }
}
