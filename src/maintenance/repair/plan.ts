/** From what verify finds to what is to be done about it. Reads, and changes nothing. */
import type { Inside } from '../../file/backend.js'
import { entryOf } from '../../file/metadata/cells.js'
import { markIn } from '../../file/metadata/mark.js'
import type { Finding } from '../../findings.js'
import type { RepairAction, RepairPlan } from '../../repair-plan.js'
import type { VerifyReport } from '../../types.js'
import { planFormat, readFormat } from './format-repair.js'
import { type Draft, type LogAbout, planLog } from './log-plan.js'
import { planMetadata } from './metadata-plan.js'
import type { StoredEntry } from './snapshot-source.js'

/** Whose a transcript is, by its session id. */
export type Owners = ReadonlyMap<string, { readonly key: string; readonly entry: StoredEntry }>

export interface PlanOptions {
  readonly signal?: AbortSignal | undefined
}

export async function planStore(inside: Inside, report: VerifyReport, options: PlanOptions): Promise<RepairPlan> {
  const { host, places } = inside
  const findings = findingsOf(report)
  const drafts: Draft[] = []
  const format = planFormat(inside)
  if (format) drafts.push(format)
  const metadata = await planMetadata(inside, options.signal)
  if (metadata) drafts.push(metadata.draft)
  const owners = metadata ? ownersOf(metadata.entries) : await ownersIn(inside)
  for (const file of damagedLogs(findings)) {
    const path = `${places.store}/${file}`
    const there = host.disk.stat(path)
    // One that is gone is made anew, of nothing but what the metadata knows.
    if (there && there.kind !== 'file') continue
    drafts.push(await planLog(host.disk, path, file, aboutLog(inside, file, owners), options.signal))
  }
  return {
    version: 1,
    planId: host.mintId(),
    storeId: readFormat(inside)?.storeId,
    madeAt: host.clock.wallMs(),
    findings,
    actions: drafts.map((draft, at): RepairAction => ({ id: at + 1, ...draft })),
  }
}

/** What verify has noticed; what it calls damage stands among it. */
function findingsOf({ findings, damage }: VerifyReport): readonly Finding[] {
  const told = new Set(findings.map(({ file }) => file))
  const others = damage.filter(({ file }) => !told.has(file))
  return [
    ...findings,
    ...others.map(
      ({ file, message, byte, seq }): Finding => ({
        kind: 'missing-bytes',
        severity: 'damage',
        file,
        bytes: byte === undefined ? undefined : { from: byte, to: byte },
        seqs: seq === undefined ? undefined : { from: seq, to: seq },
        key: undefined,
        sessionId: undefined,
        meaning: message,
        repairable: true,
        count: 1,
      }),
    ),
  ]
}

const logPattern = /^(?:transcripts|archive)\/([0-9a-f-]{36})(?:\.\d+)?\.jsonl$/

function damagedLogs(findings: readonly Finding[]): string[] {
  const files = findings.filter(({ severity, repairable }) => severity === 'damage' && repairable).map(({ file }) => file)
  return [...new Set(files)].filter((file) => logPattern.test(file))
}

async function ownersIn({ metadata }: Inside): Promise<Owners> {
  const entries = new Map<string, StoredEntry>()
  for (const [key, cell] of await metadata.cells()) {
    const { sessionId, createdAt, updatedAt, revision } = entryOf(cell)
    entries.set(key, { sessionId, createdAt, updatedAt, revision, json: cell.bytes.toString('utf8', cell.start, cell.end) })
  }
  return ownersOf(entries)
}

function ownersOf(entries: ReadonlyMap<string, StoredEntry>): Owners {
  return new Map([...entries].map(([key, entry]) => [entry.sessionId, { key, entry }]))
}

export function aboutLog({ host, places }: Inside, file: string, owners: Owners): LogAbout {
  const sessionId = logPattern.exec(file)?.[1] ?? ''
  const owner = owners.get(sessionId)
  // Of the transcript that the key has, not of what was moved to the archive.
  const known = owner && file.startsWith('transcripts/') ? markIn(owner.entry.json) : undefined
  const archived = host.disk.stat(places.archive) ? host.disk.readdir(places.archive) : []
  return {
    sessionId,
    key: owner?.key,
    createdAt: owner?.entry.createdAt ?? host.clock.wallMs(),
    knownSeq: known?.seq ?? -1,
    knownHeader: known?.header,
    hasEarlier: archived.some((name) => name.startsWith(`${sessionId}.`) && /^\.\d+\.jsonl(?:\.gz)?$/.test(name.slice(sessionId.length))),
  }
}
