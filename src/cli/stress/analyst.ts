/** A process of its own reads the store back and analyses it, so that a disk that hangs hangs only this one, and the trial ends in time. */
import fs from 'node:fs'
import { analyse, type Findings, keysOf, type ReadBack, type SeenRecord } from './analysis.js'
import { readLedgers } from './ledger.js'
import { collectOperations } from './operations.js'
import { unmarked } from './records.js'
import { type Fields, loadSubject, type StoredLine, type Subject, type SubjectOptions } from './subject.js'

export interface AnalystArgument extends SubjectOptions {
  readonly subject: string
  readonly dir: string
  readonly ledgerDirs: readonly string[]
}

export interface Analysis extends Findings {
  /** What could not be read, and what verify() found. */
  readonly damage: readonly string[]
  readonly voidLines: number
  readonly fileSystem: string
}

export type FromAnalyst = { readonly is: 'analysis'; readonly analysis: Analysis } | { readonly is: 'failed'; readonly message: string }

const damageMax = 20

async function examine({ subject, dir, ledgerDirs, ...options }: AnalystArgument): Promise<Analysis> {
  const ledgers = readLedgers(ledgerDirs)
  const { openSubject } = await loadSubject(subject)
  const store = await openSubject(dir, options)
  try {
    const damage: string[] = []
    const found = await store.verify()
    damage.push(...found.damage)
    const readBack = await readStore(store, keysOf(collectOperations(ledgers)), damage)
    return {
      ...analyse(ledgers, readBack),
      damage: damage.slice(0, damageMax),
      voidLines: found.voidLines,
      fileSystem: await nameFileSystem(dir),
    }
  } finally {
    await store.close()
  }
}

/** What cannot be read is damage; what stands before it is still judged. */
async function readStore(store: Subject, keys: { entries: Set<string>; sessions: Set<string> }, damage: string[]): Promise<ReadBack> {
  const entries = new Map<string, Fields | undefined>()
  const sessions = new Map<string, SeenRecord[]>()
  for (const key of keys.entries)
    await noting(damage, key, async () => {
      entries.set(key, await store.get(key))
    })
  for (const key of keys.sessions) {
    const records: SeenRecord[] = []
    sessions.set(key, records)
    await noting(damage, key, async () => {
      for await (const line of store.read(key)) records.push(seen(line))
    })
  }
  return { entries, sessions }
}

async function noting(damage: string[], key: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    damage.push(`${key} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function seen({ seq, record }: StoredLine): SeenRecord {
  const found = unmarked(record)
  return found
    ? { seq, op: found.mark.op, part: found.mark.part, of: found.mark.of, intact: found.intact }
    : { seq, op: undefined, part: 0, of: 1, intact: false }
}

/** Magic numbers of statfs(2). */
const fileSystems: Record<number, string> = {
  61267: 'ext2/3/4',
  16914836: 'tmpfs',
  26985: 'nfs',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  2035054128: 'overlayfs',
  4283649346: 'cifs',
  4266872130: 'smb2',
  1702057286: 'fuse',
  801189825: 'zfs',
  16914839: '9p',
  12648430: 'fat',
}

async function nameFileSystem(dir: string): Promise<string> {
  const { type } = await fs.promises.statfs(dir)
  return process.platform === 'linux' ? (fileSystems[type] ?? `type 0x${type.toString(16)}`) : `type ${type}`
}

function tell(message: FromAnalyst): Promise<void> {
  return new Promise((resolve) => process.send?.(message, () => resolve()))
}

process.on('disconnect', () => process.exit())
process.on('SIGINT', () => {})
try {
  await tell({ is: 'analysis', analysis: await examine(JSON.parse(process.argv[2] ?? '{}')) })
} catch (error) {
  await tell({ is: 'failed', message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
}
process.disconnect?.()
