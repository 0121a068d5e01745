/** The chain rule once more, from its description alone and as naive as can be: whole files, strings, a table-less CRC. It shares no code
 *  with src, so that a mistake has to be made twice to go unseen.
 *
 *  A record is a line that ends exactly in `"}` and a newline and whose crc fits. A batch is the records that one write carried: same writer,
 *  consecutive, each with the crc of the one before, `left` counting down to 0. It belongs to the log when its first record has
 *  seq = last + 1 and prev = last crc (the first batch of all: prev 0, and a header as its first record). After a seal nothing belongs. A line
 *  that breaks a batch is tried as the start of the next. What stands behind the last newline, and a batch that may still go on there, are
 *  undecided. All else is void. */

export interface ReferenceRecord {
  readonly seq: number
  readonly left: number
  readonly synced: number
  readonly writer: string
  readonly prev: string
  readonly crc: string
  /** The whole line, without its newline, one character a byte. */
  readonly line: string
}

export interface ReferenceLog {
  readonly records: readonly ReferenceRecord[]
  readonly voidLines: number
  /** Where the undecided part begins. */
  readonly settled: number
  readonly openTail: boolean
  readonly sealed: boolean
  /** Lines of JSON without `$` that the header names, or that stand alone. */
  readonly foreignLines: number
}

/** CRC-32 as the standard defines it, bit by bit. */
export function referenceCrc(bytes: string): string {
  let crc = 0xffffffff
  for (let at = 0; at < bytes.length; at++) {
    crc ^= bytes.charCodeAt(at)
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
  }
  return ((crc ^ 0xffffffff) >>> 0).toString(16).padStart(8, '0')
}

const ending = /[{,]"\$":"(\d+)\.(\d+)\.(-1|\d+)\.([^."]+)\.([0-9a-f]{8})\.([0-9a-f]{8})"\}$/

const known = new Map<string, ReferenceRecord | undefined>()

function recordOf(line: string): ReferenceRecord | undefined {
  if (!known.has(line)) {
    if (known.size > 5_000) known.clear()
    known.set(line, parsedRecord(line))
  }
  return known.get(line)
}

function parsedRecord(line: string): ReferenceRecord | undefined {
  const found = ending.exec(line)
  if (!found || referenceCrc(line.slice(0, -10)) !== found[6]) return undefined
  return {
    seq: Number(found[1]),
    left: Number(found[2]),
    synced: Number(found[3]),
    writer: found[4]!,
    prev: found[5]!,
    crc: found[6]!,
    line,
  }
}

function isForeign(line: string): boolean {
  try {
    const value: unknown = JSON.parse(Buffer.from(line, 'latin1').toString('utf8'))
    return typeof value === 'object' && value !== null && !Array.isArray(value) && !Object.hasOwn(value, '$')
  } catch {
    return false
  }
}

export function referenceLog(bytes: Buffer): ReferenceLog {
  const text = bytes.toString('latin1')
  const lines = text.split('\n')
  const tail = lines.pop()!
  const parsed = lines.map((line) => recordOf(line))
  const records: ReferenceRecord[] = []
  let settled = 0
  let voidLines = 0
  let foreign = 0
  let foreignGoesOn = true
  let sealed = false

  for (let at = 0; at < lines.length; ) {
    const first = parsed[at]
    if (!first) {
      const line = lines[at]!
      if (records.length === 0 && foreignGoesOn && (line === '' || isForeign(line))) foreign += line === '' ? 0 : 1
      else if (line !== '') {
        voidLines++
        if (records.length === 0) foreignGoesOn = false
      }
      settled += line.length + 1
      at++
      continue
    }
    const batch = [first]
    let broken = false
    while (batch[batch.length - 1]!.left > 0 && at + batch.length < lines.length && !broken) {
      const last = batch[batch.length - 1]!
      const next = parsed[at + batch.length]
      if (next && next.writer === last.writer && next.seq === last.seq + 1 && next.left === last.left - 1 && next.prev === last.crc)
        batch.push(next)
      else broken = true
    }
    if (!broken && batch[batch.length - 1]!.left > 0) break
    const last = records[records.length - 1]
    const chains = last
      ? first.seq === last.seq + 1 && first.prev === last.crc
      : first.prev === '00000000' && first.line.startsWith('{"$$":{"header":')
    if (!broken && chains && !sealed) {
      if (!last && !first.line.includes('"foreign":')) {
        voidLines += foreign
        foreign = 0
      }
      records.push(...batch)
      sealed = batch.some(({ line }) => line.startsWith('{"$$":{"seal":'))
    } else voidLines += batch.length
    for (const { line } of batch) settled += line.length + 1
    at += batch.length
  }
  return { records, voidLines, settled, openTail: tail !== '', sealed, foreignLines: foreign }
}
