/** `holdfast stats`: how much there is in a store and how worn it is, counted from its files. What a running process has done (commits,
 *  waits, takeovers) only that process can say: `store.stats()`. */
import fs from 'node:fs'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import type { Entry, FileReport, LockStatus, VerifyReport } from '../index.js'
import { isPostgresAddress } from '../postgres/address.js'
import { onCtrlC } from './ctrl-c.js'
import { exitCodes } from './exit.js'
import { type CommonOptions, placeText, storeCommand } from './options.js'
import { bytesText, count, moment, printFacts, printJson } from './output.js'
import { progressBar } from './progress.js'
import { withReport } from './report.js'

interface LogFacts {
  readonly files: number
  readonly records: number
  readonly bytes: number
  readonly voidLines: number
  readonly tornTailBytes: number
}

interface Stats {
  readonly sessions: { readonly count: number; readonly oldestUpdatedAt: number | null; readonly newestUpdatedAt: number | null }
  readonly metadata: {
    readonly snapshotBytes: number
    readonly journalBytes: number
    readonly journalRecords: number
    /** Journal bytes by snapshot bytes; a checkpoint is due when it outgrows it. */
    readonly journalToSnapshot: number | null
    readonly voidLines: number
  }
  readonly transcripts: LogFacts
  readonly archive: LogFacts
  readonly quarantine: { readonly files: number; readonly bytes: number }
  readonly bytesOnDisk: number
  readonly locks: { readonly held: number; readonly stale: number; readonly waiting: number }
  readonly damage: number
}

export function statsCommand(): Command {
  return storeCommand('stats', 'Count sessions, records, bytes and wear, from the files', [
    'holdfast stats',
    "holdfast stats --json | jq '.bytesOnDisk'",
  ])
    .addHelpText('after', '\nReads every file once, as `verify` does. Counters of a running process are in its own store.stats().')
    .action(stats)
}

async function stats({ store: dir, json }: CommonOptions): Promise<void> {
  const facts = await readFacts(dir)
  if (!facts) {
    process.exitCode = exitCodes.interrupted
    return
  }
  process.exitCode = facts.damage === 0 ? exitCodes.ok : exitCodes.found
  await (json ? printJson(facts) : printFacts(lines(facts, dir)))
}

async function readFacts(dir: string): Promise<Stats | undefined> {
  const interrupt = onCtrlC()
  const bar = progressBar('stats')
  try {
    return await withReport(dir, { onProgress: (done, total) => bar.at(done, total), signal: interrupt.signal }, async (report, store) => {
      const entries: Entry[] = []
      // A store that could not be opened cannot be listed; the sizes are still worth knowing, and `damage` says why the count is 0.
      if (store) for await (const [, entry] of store.entries()) entries.push(entry)
      const locks = (await store?.locks()) ?? []
      return factsOf(report, entries, locks, weightOf(dir, report))
    })
  } catch (error) {
    if (interrupt.signal.aborted) return undefined
    throw error
  } finally {
    bar.stop()
    interrupt.release()
  }
}

/** In a database there is nothing beside the logs that only it could weigh. */
function weightOf(place: string, { files }: VerifyReport): { quarantine: Weight; whole: Weight } {
  if (!isPostgresAddress(place)) return { quarantine: weigh(join(place, 'quarantine')), whole: weigh(place) }
  const bytes = files.reduce((total, file) => total + file.bytes, 0)
  return { quarantine: { files: 0, bytes: 0 }, whole: { files: files.length, bytes } }
}

interface Weight {
  readonly files: number
  readonly bytes: number
}

function factsOf(
  report: VerifyReport,
  entries: readonly Entry[],
  locks: readonly LockStatus[],
  weight: { quarantine: Weight; whole: Weight },
): Stats {
  const of = (kind: FileReport['kind']) => report.files.filter((file) => file.kind === kind)
  const bytes = (files: readonly FileReport[]) => files.reduce((total, file) => total + file.bytes, 0)
  const journal = logFacts(of('journal'))
  const snapshotBytes = bytes(of('snapshot'))
  const times = entries.map((entry) => entry.updatedAt)
  const held = locks.filter((lock) => lock.state === 'held')
  return {
    sessions: {
      count: entries.length,
      oldestUpdatedAt: times.reduce<number | null>((a, b) => (a === null || b < a ? b : a), null),
      newestUpdatedAt: times.reduce<number | null>((a, b) => (a === null || b > a ? b : a), null),
    },
    metadata: {
      snapshotBytes,
      journalBytes: journal.bytes,
      journalRecords: journal.records,
      journalToSnapshot: snapshotBytes > 0 ? Math.round((journal.bytes / snapshotBytes) * 1_000) / 1_000 : null,
      voidLines: journal.voidLines,
    },
    transcripts: logFacts(of('transcript')),
    archive: logFacts(of('archive')),
    quarantine: weight.quarantine,
    bytesOnDisk: weight.whole.bytes,
    locks: {
      held: held.length,
      stale: held.filter((lock) => lock.holder?.verdict === 'dead' || lock.holder?.verdict === 'expired').length,
      waiting: locks.reduce((total, lock) => total + lock.waiting, 0),
    },
    damage: report.damage.length,
  }
}

function logFacts(files: readonly FileReport[]): LogFacts {
  const sum = (of: (file: FileReport) => number) => files.reduce((total, file) => total + of(file), 0)
  return {
    files: files.length,
    records: sum((file) => file.records),
    bytes: sum((file) => file.bytes),
    voidLines: sum((file) => file.voidLines),
    tornTailBytes: sum((file) => file.tornTailBytes),
  }
}

/** Files below a directory, and their bytes; one that goes away meanwhile weighs nothing. A file with two names counts once. */
function weigh(dir: string): Weight {
  const seen = new Set<string>()
  let bytes = 0
  for (const item of readAll(resolve(dir))) {
    const stat = item.isFile() ? fs.lstatSync(join(item.parentPath, item.name), { throwIfNoEntry: false }) : undefined
    const inode = stat && `${stat.dev}.${stat.ino}`
    if (!stat || !inode || seen.has(inode)) continue
    seen.add(inode)
    bytes += stat.size
  }
  return { files: seen.size, bytes }
}

function* readAll(dir: string): Generator<fs.Dirent> {
  let items: fs.Dirent[]
  try {
    items = fs.readdirSync(dir, { withFileTypes: true })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  for (const item of items) {
    yield item
    if (item.isDirectory()) yield* readAll(join(dir, item.name))
  }
}

function lines(facts: Stats, dir: string): [string, string][] {
  const { sessions, metadata, transcripts, archive, quarantine, locks } = facts
  const log = (of: LogFacts) => `${count(of.records, 'record')} in ${count(of.files, 'file')}, ${bytesText(of.bytes)}`
  const wear = (of: LogFacts) => `${count(of.voidLines, 'void line')}, ${of.tornTailBytes} bytes of torn tail`
  const ratio = metadata.journalToSnapshot === null ? '' : `, ${metadata.journalToSnapshot} of the snapshot`
  return [
    ['store', placeText(dir)],
    ['sessions', String(sessions.count)],
    ['last change', moment(sessions.newestUpdatedAt ?? undefined)],
    ['oldest change', moment(sessions.oldestUpdatedAt ?? undefined)],
    ['snapshot', bytesText(metadata.snapshotBytes)],
    [
      'journal',
      `${count(metadata.journalRecords, 'record')}, ${bytesText(metadata.journalBytes)}${ratio}; ${count(metadata.voidLines, 'void line')}`,
    ],
    ['transcripts', log(transcripts)],
    ['transcript wear', wear(transcripts)],
    ['archive', log(archive)],
    ['quarantine', `${count(quarantine.files, 'file')}, ${bytesText(quarantine.bytes)}`],
    ['on disk', bytesText(facts.bytesOnDisk)],
    ['locks', `${locks.held} held, ${locks.stale} of them stale; ${locks.waiting} waiting`],
    ['damage', facts.damage === 0 ? 'none' : `${count(facts.damage, 'place')}; see \`holdfast verify\``],
  ]
}
