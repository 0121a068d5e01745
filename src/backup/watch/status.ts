/** What a watch has to say, for whoever looks later: a file beside it, and from that a verdict. */
import { z } from 'zod'
import { StoreError } from '../../errors.js'
import { nodeDisk, readFully, writeWholeFile } from '../../file/durable.js'
import type { SnapshotInfo } from '../repository/repository.js'

export const watchStatus = z.object({
  version: z.literal(1),
  store: z.string(),
  target: z.string(),
  /** How often a backup is wanted, ms. */
  everyMs: z.number(),
  /** Of the watch that writes this. */
  pid: z.number(),
  startedAt: z.number(),
  updatedAt: z.number(),
  state: z.enum(['waiting', 'backing-up', 'stopped']),
  nextAt: z.number().optional(),
  lastTriedAt: z.number().optional(),
  /** The last snapshot of all, good or not. */
  last: z.object({ id: z.string(), at: z.number(), damaged: z.boolean(), findings: z.array(z.string()) }).optional(),
  lastGood: z.object({ id: z.string(), at: z.number() }).optional(),
  /** Why there was none the last time. */
  failure: z.object({ at: z.number(), times: z.number(), code: z.string(), message: z.string() }).optional(),
})

export type WatchStatus = z.infer<typeof watchStatus>

export async function writeStatus(file: string, status: WatchStatus): Promise<void> {
  await writeWholeFile(file, Buffer.from(`${JSON.stringify(status, undefined, 2)}\n`))
}

/** @throws NOT_FOUND  no watch has ever written it · INVALID_OPTION  it is something else. */
export function readStatus(file: string): WatchStatus {
  let text: string
  try {
    const fd = nodeDisk.open(file, 'read')
    try {
      text = readFully(nodeDisk, fd, 0, nodeDisk.fstat(fd).size).toString('utf8')
    } finally {
      nodeDisk.close(fd)
    }
  } catch (error) {
    throw new StoreError('NOT_FOUND', `there is no status in ${file}: no watch has written it yet.`, {
      cause: error,
      details: { file },
      hint: 'Start `holdfast backup watch --status FILE`, or ask the target: `holdfast backup status --to TARGET`.',
    })
  }
  try {
    return watchStatus.parse(JSON.parse(text))
  } catch (error) {
    throw new StoreError('INVALID_OPTION', `${file} is not the status of a watch.`, { cause: error, details: { file } })
  }
}

export interface StatusVerdict {
  readonly ok: boolean
  /** There is no good snapshot that is young enough. */
  readonly overdue: boolean
  /** Age of the last good snapshot, ms; undefined when there is none. */
  readonly ageMs: number | undefined
  /** The last snapshot found damage or shrinkage. */
  readonly damaged: boolean
  readonly reasons: readonly string[]
}

/** A backup may come late by half its interval, and by a minute: jitter, and the time that it takes. */
export function graceMs(everyMs: number): number {
  return everyMs / 2 + 60_000
}

/** Pure. */
export function judgeStatus(
  seen: {
    readonly last: { at: number; damaged: boolean; findings: readonly string[] } | undefined
    readonly lastGoodAt: number | undefined
  },
  everyMs: number,
  nowMs: number,
): StatusVerdict {
  const { last, lastGoodAt } = seen
  const ageMs = lastGoodAt === undefined ? undefined : nowMs - lastGoodAt
  const overdue = ageMs === undefined || ageMs > everyMs + graceMs(everyMs)
  const damaged = last?.damaged === true
  const reasons: string[] = []
  if (ageMs === undefined) reasons.push('There is no good snapshot.')
  else if (overdue)
    reasons.push(
      `The last good snapshot is ${Math.round(ageMs / 60_000)} minutes old; one is wanted every ${Math.round(everyMs / 60_000)}.`,
    )
  if (damaged) reasons.push(...(last!.findings.length > 0 ? last!.findings.slice(0, 10) : ['The last snapshot is marked damaged.']))
  return { ok: !overdue && !damaged, overdue, ageMs, damaged, reasons }
}

/** The same, asked of the target. */
export function judgeSnapshots(snapshots: readonly SnapshotInfo[], everyMs: number, nowMs: number): StatusVerdict {
  const readable = snapshots.filter(({ unreadable }) => unreadable === undefined)
  const [last] = readable
  const good = readable.find(({ damaged }) => !damaged)
  return judgeStatus(
    { last: last && { at: last.time, damaged: last.damaged, findings: last.findings }, lastGoodAt: good?.time },
    everyMs,
    nowMs,
  )
}
