/** Where metadata and transcripts do not agree: what is to become of each. */
import { crc32 } from 'node:zlib'
import type { Inside } from '../../file/backend.js'
import { type Disk, readFully } from '../../file/durable.js'
import { Chain } from '../../file/log/chain.js'
import { readInPieces } from '../../file/log/pieces.js'
import { type Header, hex8 } from '../../file/log/record.js'
import type { Finding } from '../../findings.js'
import type { Requirement } from '../../repair-plan.js'
import type { Draft } from './log-plan.js'
import type { Owner, Owners } from './owners.js'

const nothing = { seqs: [], keys: [], notes: [] } as const

export interface SessionsFacts {
  readonly owners: Owners
  readonly keys: ReadonlySet<string>
  /** Sessions that were deleted or rotated away, as far as the journals tell. */
  readonly dropped: ReadonlySet<string>
}

/** undefined when there is nothing to be done. */
export async function planSession(
  inside: Inside,
  finding: Finding,
  facts: SessionsFacts,
  signal?: AbortSignal,
): Promise<Draft | undefined> {
  const { kind, file, sessionId } = finding
  if (sessionId === undefined) return undefined
  if (kind === 'unfinished-work') return { ...draft(finding), kind: 'finish-work', does: finding.meaning, work: { kind: 'finish-work' } }
  if (kind === 'transcript-missing') return missing(inside, finding, facts.owners.get(sessionId))
  if (kind === 'transcript-orphan') return orphan(inside, finding, file, sessionId, facts, signal)
  return undefined
}

function draft({ file, key, sessionId }: Finding): Omit<Draft, 'kind' | 'does' | 'work'> {
  return { file, key, sessionId, recovers: { records: 0, keys: 0, notes: [] }, loses: nothing, quarantines: [], requires: [] }
}

/** From the archive, if a copy lies there that was never closed; else anew, behind the numbers that were given. */
function missing(inside: Inside, finding: Finding, owner: Owner | undefined): Draft | undefined {
  const { file, sessionId, key } = finding
  if (!owner?.mark || sessionId === undefined) return undefined
  const { seq, header: crc } = owner.mark
  const absent: Requirement = { file, bytes: undefined, crc: undefined, mayGrow: false }
  const from = `archive/${sessionId}.jsonl`
  const copy = openCopy(inside, from)
  if (copy)
    return {
      ...draft(finding),
      kind: 'restore-transcript',
      does: `Moves ${from} back to ${file}.`,
      loses: copy.upTo >= seq ? nothing : { ...nothing, seqs: [{ from: copy.upTo + 1, to: seq }], notes: [shortCopy] },
      requires: [absent, copy.requirement],
      work: { kind: 'restore-transcript', from },
    }
  const header: Header = {
    log: 'transcript',
    version: 1,
    ...(key !== undefined && { key }),
    sessionId,
    replaces: [hex8(crc)],
    createdAt: owner.entry.createdAt,
  }
  return {
    ...draft(finding),
    kind: 'begin-anew',
    does: `Makes ${file} anew, without records; the next one gets the number ${seq + 1}.`,
    loses: { seqs: [{ from: 1, to: seq }], keys: [], notes: ['The transcript is gone. If a copy of it turns up, put it there instead.'] },
    requires: [absent],
    work: { kind: 'begin-anew', header: header as unknown as Record<string, unknown>, headerSeq: seq },
  }
}

const shortCopy =
  'The copy is older than what was lost. Plan once more afterwards: then each record that is missing gets a mark in its place.'

interface OpenCopy {
  readonly requirement: Requirement
  readonly upTo: number
}

function openCopy({ host: { disk }, places, tag }: Inside, file: string): OpenCopy | undefined {
  const path = `${places.store}/${file}`
  if (disk.stat(path)?.kind !== 'file') return undefined
  const fd = disk.open(path, 'read')
  try {
    const bytes = readFully(disk, fd, 0, disk.fstat(fd).size)
    const chain = new Chain(tag)
    chain.feed(bytes)
    if (chain.seal || chain.damage) return undefined
    return { requirement: { file, bytes: bytes.length, crc: crc32(bytes), mayGrow: false }, upTo: chain.seq }
  } finally {
    disk.close(fd)
  }
}

/** To its key, if that is free and nobody has deleted the session; else to the archive. */
async function orphan(
  inside: Inside,
  finding: Finding,
  file: string,
  sessionId: string,
  { keys, dropped }: SessionsFacts,
  signal?: AbortSignal,
): Promise<Draft | undefined> {
  const { disk } = inside.host
  const path = `${inside.places.store}/${file}`
  if (disk.stat(path)?.kind !== 'file') return undefined
  const { key, createdAt, requirement } = await headerIn(disk, path, file, inside.tag, signal)
  if (key === undefined || createdAt === undefined) return undefined
  const base = { ...draft({ ...finding, key }), requires: [requirement] }
  if (dropped.has(sessionId) || keys.has(key)) {
    const why = dropped.has(sessionId) ? 'it was deleted' : 'its key names another session'
    return { ...base, kind: 'archive-transcript', does: `Moves ${file} to the archive: ${why}.`, work: { kind: 'archive-transcript' } }
  }
  const entry = JSON.stringify({ sessionId, createdAt, updatedAt: inside.host.clock.wallMs(), revision: 1 })
  return {
    ...base,
    kind: 'attach-transcript',
    does: `Gives ${JSON.stringify(key)} an entry that names this transcript. Leave it out if the session was deleted on purpose.`,
    recovers: { records: 0, keys: 1, notes: [] },
    loses: { ...nothing, notes: ['All other fields of the entry.'] },
    work: { kind: 'attach-transcript', entry },
  }
}

async function headerIn(disk: Disk, path: string, file: string, tag: string, signal?: AbortSignal) {
  const fd = disk.open(path, 'read')
  try {
    const { size } = disk.fstat(fd)
    const chain = new Chain(tag)
    await readInPieces(disk, fd, size, chain, {}, signal)
    // Its beginning is enough to know it again; others may append to it.
    const bytes = Math.min(size, 64 << 10)
    const requirement = { file, bytes, crc: crc32(readFully(disk, fd, 0, bytes)), mayGrow: true }
    return { key: chain.damage ? undefined : chain.header?.key, createdAt: chain.header?.createdAt, requirement }
  } finally {
    disk.close(fd)
  }
}
