/** From what verify finds to what is to be done about it. Reads, and changes nothing. */
import type { Inside } from '../../file/backend.js'
import type { Finding } from '../../findings.js'
import type { RepairAction, RepairPlan } from '../../repair-plan.js'
import type { VerifyReport } from '../../types.js'
import { planFormat, readFormat } from './format-repair.js'
import { droppedIn } from './journal-source.js'
import { type Draft, type LogAbout, planLog } from './log-plan.js'
import { type MetadataDraft, planMetadata } from './metadata-plan.js'
import { type Owners, ownersIn, ownersOf } from './owners.js'
import { planSession } from './sessions-plan.js'
import { planSurroundings } from './surroundings.js'

export interface PlanOptions {
  readonly signal?: AbortSignal | undefined
}

export async function planStore(inside: Inside, report: VerifyReport, { signal }: PlanOptions): Promise<RepairPlan> {
  const { host } = inside
  const findings = findingsOf(report)
  const drafts: Draft[] = []
  const format = planFormat(inside)
  if (format) drafts.push(format)
  const metadata = await damagedMetadata(inside, findings, signal)
  if (metadata) drafts.push(metadata.draft)
  const owners = metadata ? ownersOf([...metadata.entries].map(([key, { json }]) => [key, Buffer.from(json)])) : await ownersIn(inside)
  drafts.push(...(await planLogs(inside, findings, owners ?? new Map(), signal)))
  const keys = new Set([...(owners?.values() ?? [])].map(({ key }) => key))
  const facts = owners && { owners, keys, dropped: await droppedIn(inside, signal) }
  for (const finding of [...findings, ...(metadata && owners ? disagreements(inside, findings, owners) : [])]) {
    const draft = (facts && (await planSession(inside, finding, facts, signal))) ?? planSurroundings(inside, finding)
    if (draft) drafts.push(draft)
    // Of two orphans of one key, one gets it.
    if (draft?.kind === 'attach-transcript' && draft.key !== undefined) keys.add(draft.key)
  }
  const files = new Set(drafts.map(({ file }) => file))
  return {
    version: 1,
    planId: host.mintId(),
    storeId: readFormat(inside)?.storeId,
    madeAt: host.clock.wallMs(),
    findings: findings.filter(({ severity, file }) => severity === 'damage' || files.has(file)),
    actions: drafts.map((draft, at): RepairAction => ({ id: at + 1, ...draft })),
  }
}

/** What verify has noticed; damage that is told of nowhere else stands among it. */
function findingsOf({ findings, damage }: VerifyReport): readonly Finding[] {
  const told = new Set(findings.map(({ file }) => file))
  const others = damage.filter(({ file }) => !told.has(file))
  return [
    ...findings,
    ...others.map(
      ({ file, message, byte, seq }): Finding => ({
        kind: 'unreadable',
        severity: 'damage',
        file,
        bytes: byte === undefined ? undefined : { from: byte, to: byte },
        seqs: seq === undefined ? undefined : { from: seq, to: seq },
        key: undefined,
        sessionId: undefined,
        meaning: message,
        repairable: false,
        count: 1,
      }),
    ),
  ]
}

const transcriptPattern = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl$/

/** What verify could not tell without sound metadata, held against what they will be. */
function disagreements({ host: { disk }, places }: Inside, findings: readonly Finding[], owners: Owners): Finding[] {
  const unfinished = findings.filter(({ kind }) => kind === 'unfinished-work')
  // The session that a rotation leads to is named by whoever finishes it.
  const isTold = (sessionId: string) => unfinished.some((it) => it.sessionId === sessionId || it.meaning.includes(sessionId))
  const names = disk.stat(places.transcripts) ? disk.readdir(places.transcripts).sort() : []
  const there = new Set(names.flatMap((name) => transcriptPattern.exec(name)?.[1] ?? []))
  const of = (kind: 'transcript-orphan' | 'transcript-missing', sessionId: string, key: string | undefined): Finding => ({
    kind,
    severity: kind === 'transcript-orphan' ? 'warning' : 'damage',
    file: `transcripts/${sessionId}.jsonl`,
    bytes: undefined,
    seqs: undefined,
    key,
    sessionId,
    meaning: 'Found when the metadata were put together again.',
    repairable: true,
    count: 1,
  })
  return [
    ...[...there].filter((id) => !owners.has(id) && !isTold(id)).map((id) => of('transcript-orphan', id, undefined)),
    ...[...owners].filter(([id, { mark }]) => mark && !there.has(id)).map(([id, { key }]) => of('transcript-missing', id, key)),
  ]
}

const metadataFiles = ['sessions.json', 'sessions.journal.jsonl']

/** Asked only when verify has found damage there: it reads the two at one moment, whoever is folding them meanwhile. */
async function damagedMetadata(inside: Inside, findings: readonly Finding[], signal?: AbortSignal): Promise<MetadataDraft | undefined> {
  const damaged = findings.filter(({ severity, file }) => severity === 'damage' && metadataFiles.includes(file))
  if (damaged.length === 0 || damaged.some(({ kind }) => kind === 'not-a-file' || kind === 'unreadable')) return undefined
  return planMetadata(inside, signal)
}

const logPattern = /^(?:transcripts|archive)\/([0-9a-f-]{36})(?:\.\d+)?\.jsonl$/
/** Said of a log, but nothing of it is damaged. */
const elsewhere = new Set(['transcript-missing', 'transcript-orphan'])

async function planLogs(inside: Inside, findings: readonly Finding[], owners: Owners, signal?: AbortSignal): Promise<Draft[]> {
  const { host, places } = inside
  const damaged = findings.filter(({ severity, repairable, kind }) => severity === 'damage' && repairable && !elsewhere.has(kind))
  const drafts: Draft[] = []
  for (const file of new Set(damaged.map((it) => it.file))) {
    const path = `${places.store}/${file}`
    if (!logPattern.test(file) || host.disk.stat(path)?.kind !== 'file') continue
    drafts.push(await planLog(host.disk, path, file, aboutLog(inside, file, owners), signal))
  }
  return drafts
}

export function aboutLog({ host, places }: Inside, file: string, owners: Owners): LogAbout {
  const sessionId = logPattern.exec(file)?.[1] ?? ''
  const owner = file.startsWith('transcripts/') ? owners.get(sessionId) : undefined
  const archived = host.disk.stat(places.archive) ? host.disk.readdir(places.archive) : []
  return {
    sessionId,
    key: owner?.key,
    createdAt: owner?.entry.createdAt ?? host.clock.wallMs(),
    knownSeq: owner?.mark?.seq ?? -1,
    knownHeader: owner?.mark?.header,
    hasEarlier: archived.some((name) => name.startsWith(`${sessionId}.`) && /^\.\d+\.jsonl(?:\.gz)?$/.test(name.slice(sessionId.length))),
  }
}
