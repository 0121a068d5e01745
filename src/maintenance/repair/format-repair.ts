/** holdfast.json made anew: it says which format the store has, and the store's id. */
import { crc32 } from 'node:zlib'
import { errnoOf } from '../../errors.js'
import type { Inside } from '../../file/backend.js'
import { readFully } from '../../file/durable.js'
import { formatVersion } from '../../file/format.js'
import { replaceFile } from '../../file/stage.js'
import type { RepairAction, RepairPlan } from '../../repair-plan.js'
import type { Draft } from './log-plan.js'
import { assertSame } from './metadata-repair.js'
import { Quarantine } from './quarantine.js'

interface FormatFile {
  readonly bytes: Buffer
  readonly format: number | undefined
  readonly storeId: string | undefined
  readonly createdAt: number | undefined
  /** As the store writes it. */
  readonly sound: boolean
}

/** undefined when there is none. What is broken is read as far as it goes. */
export function readFormat({ host: { disk }, places }: Inside): FormatFile | undefined {
  let bytes: Buffer
  try {
    const fd = disk.open(places.format, 'read')
    try {
      bytes = readFully(disk, fd, 0, disk.fstat(fd).size)
    } finally {
      disk.close(fd)
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
  const text = bytes.toString('utf8')
  const number = (name: string) => {
    const found = new RegExp(`"${name}"\\s*:\\s*(\\d{1,15})\\s*[,}]`).exec(text)
    return found ? Number(found[1]) : undefined
  }
  const facts = {
    bytes,
    format: number('format'),
    storeId: /"storeId"\s*:\s*"([0-9a-f-]{36})"/.exec(text)?.[1],
    createdAt: number('createdAt'),
  }
  return { ...facts, sound: isJson(text) && Object.values(facts).every((fact) => fact !== undefined) }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

export function planFormat(inside: Inside): Draft | undefined {
  const { host } = inside
  const found = readFormat(inside)
  if (found?.sound || (found?.format !== undefined && found.format > formatVersion)) return undefined
  const storeId = found?.storeId ?? host.mintId()
  const createdAt = found?.createdAt ?? host.clock.wallMs()
  const lost = found?.storeId === undefined ? ['The id of the store: it gets a new one.'] : []
  const bytes = found?.bytes.length
  return {
    kind: 'remake-format',
    file: 'holdfast.json',
    key: undefined,
    sessionId: undefined,
    does: 'Writes holdfast.json anew.',
    recovers: { records: 0, keys: 0, notes: [] },
    loses: { seqs: [], keys: [], notes: lost },
    quarantines: bytes ? [{ file: 'holdfast.json', ranges: [{ from: 0, to: bytes }], bytes }] : [],
    requires: [{ file: 'holdfast.json', bytes, crc: found && crc32(found.bytes), mayGrow: false }],
    work: { kind: 'remake-format', text: `${JSON.stringify({ format: formatVersion, storeId, createdAt })}\n` },
  }
}

/** Old or new, never neither; the old one is in quarantine before. */
export async function repairFormat(inside: Inside, plan: RepairPlan, action: RepairAction, text: string): Promise<string | undefined> {
  const { host, places, metadataBaton: baton, options } = inside
  const found = readFormat(inside)
  for (const requirement of action.requires) assertSame(inside, requirement)
  const quarantine = new Quarantine(host, places.quarantine)
  try {
    if (found && action.quarantines.length > 0) {
      const [removal] = action.quarantines
      await quarantine.write('holdfast.json', found.bytes)
      await quarantine.note(plan, action, { 'holdfast.json': { file: 'holdfast.json', ranges: removal!.ranges } })
    }
    const held = await baton.acquire({ does: 'repair', waitMs: options.waitMs, deadlineMs: host.clock.monotonicMs() + options.waitMs })
    try {
      for (const requirement of action.requires) assertSame(inside, requirement)
      await replaceFile(host, held, places.format, [Buffer.from(text)])
      quarantine.needed = quarantine.noted
      await host.disk.syncDirectory(places.store)
    } finally {
      baton.release(held)
    }
    return quarantine.noted ? quarantine.label : undefined
  } finally {
    quarantine.discard()
  }
}
