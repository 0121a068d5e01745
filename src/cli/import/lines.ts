/** A file's lines as bytes, read once from front to back in bounded memory. */
import fs from 'node:fs'

export interface Line {
  /** From 1. */
  readonly number: number
  /** Without the line break; undefined when the line is longer than `lineBytesMax`. */
  readonly bytes: Buffer | undefined
  readonly length: number
  /** False only of a last line without a line break: its writer was killed, or is still at it. */
  readonly ended: boolean
  /** Bytes of the file read so far. */
  readonly offset: number
}

const newline = 0x0a

export async function* readLines(path: string, lineBytesMax: number, signal: AbortSignal): AsyncGenerator<Line> {
  let parts: Buffer[] = []
  let length = 0
  let number = 0
  let offset = 0
  const keep = (bytes: Buffer) => {
    length += bytes.length
    if (length <= lineBytesMax) parts.push(bytes)
    else parts = []
  }
  const take = (ended: boolean): Line => {
    const bytes = length > lineBytesMax ? undefined : parts.length === 1 ? parts[0] : Buffer.concat(parts)
    const line = { number: ++number, bytes, length, ended, offset }
    parts = []
    length = 0
    return line
  }
  for await (const chunk of fs.createReadStream(path, { highWaterMark: 1 << 18, signal }) as AsyncIterable<Buffer>) {
    let from = 0
    for (let to = chunk.indexOf(newline); to >= 0; to = chunk.indexOf(newline, from)) {
      keep(chunk.subarray(from, to))
      offset += to + 1 - from
      from = to + 1
      yield take(true)
    }
    keep(chunk.subarray(from))
    offset += chunk.length - from
  }
  if (length > 0) yield take(false)
}
