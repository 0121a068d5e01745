/** sessions.json: a plain JSON object, one entry a line, in the order in which the keys came. The bytes are a function of the entries, so that
 *  two processes that fold the same journal write the same file.
 *
 *      {
 *      "agent:main:main":{"sessionId":"0198…",…},
 *      "agent:main:cron":{…}
 *      } */
import { createHash, type Hash } from 'node:crypto'
import { StoreError } from '../../errors.js'
import { breathe } from '../stage.js'
import { type Cells, stringAt, stringEnd } from './cells.js'

const sliceBytes = 512 << 10

export function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

export const emptySnapshot = Buffer.from('{\n}\n')

/** The file's bytes, in slices, and their hash. */
export async function renderSnapshot(cells: Cells): Promise<{ slices: Buffer[]; hash: string; bytes: number }> {
  const hash = createHash('sha256')
  const slices: Buffer[] = []
  let parts: Uint8Array[] = [Buffer.from('{\n')]
  let pending = 2
  let bytes = 0
  const flush = () => {
    bytes += take(slices, hash, parts, pending)
    parts = []
    pending = 0
  }
  let left = cells.size
  for (const [key, cell] of cells) {
    const name = Buffer.from(`${JSON.stringify(key)}:`)
    const entry = cell.bytes.subarray(cell.start, cell.end)
    const end = --left > 0 ? between : last
    parts.push(name, entry, end)
    pending += name.length + entry.length + end.length
    if (pending >= sliceBytes) {
      flush()
      await breathe()
    }
  }
  parts.push(Buffer.from('}\n'))
  pending += 2
  flush()
  return { slices, hash: hash.digest('hex'), bytes }
}

const between = Buffer.from(',\n')
const last = Buffer.from('\n')

function take(slices: Buffer[], hash: Hash, parts: readonly Uint8Array[], length: number): number {
  const slice = Buffer.concat(parts, length)
  hash.update(slice)
  slices.push(slice)
  return length
}

/** Finds the entries in a snapshot whose hash has been checked; parses none of them. */
export async function parseSnapshot(bytes: Buffer): Promise<Cells> {
  const cells: Cells = new Map()
  const wrong = (at: number): never => {
    throw new StoreError('STORE_CORRUPT', `sessions.json is not as this library writes it, near byte ${at}.`, {
      details: { file: 'sessions.json', byte: at },
      hint: 'Nothing was written. Restore sessions.json and sessions.journal.jsonl together from the same moment, or run `holdfast repair` (see docs/errors.md).',
    })
  }
  if (bytes.toString('latin1', 0, 2) !== '{\n' || bytes.toString('latin1', bytes.length - 2) !== '}\n') wrong(0)
  let sinceMs = performance.now()
  for (let start = 2; start < bytes.length - 2; ) {
    const lineEnd = bytes.indexOf(0x0a, start)
    const key = stringEnd(bytes, start)
    if (lineEnd < 0 || key.end < 0 || key.end > lineEnd || bytes[start] !== 0x22 || bytes[key.end + 1] !== 0x3a) wrong(start)
    const end = bytes[lineEnd - 1] === 0x2c ? lineEnd - 1 : lineEnd
    cells.set(stringAt(bytes, start, key), { bytes, start: key.end + 2, end, entry: undefined })
    start = lineEnd + 1
    if ((cells.size & 1023) === 0 && performance.now() - sinceMs > 8) {
      await breathe()
      sinceMs = performance.now()
    }
  }
  return cells
}
