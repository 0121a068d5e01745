/** The header of a log, by reading its beginning alone. It is the first line, or stands behind somebody else's lines. */
import { type Disk, readFully } from '../durable.js'
import { type Header, headerPrefix, type LineMark, readBody, readMark, startsWith } from './record.js'

const firstBytes = 4 << 10
const bytesMax = 4 << 20

export interface HeaderFound {
  readonly crc: number
  readonly header: Header | undefined
}

/** undefined when there is none within the first 4 MiB, or it is damaged. */
export function readHeader(disk: Disk, fd: number, size: number): HeaderFound | undefined {
  for (let length = firstBytes; ; length *= 16) {
    const bytes = readFully(disk, fd, 0, Math.min(length, size, bytesMax))
    for (let start = 0, end = bytes.indexOf(0x0a); end >= 0; start = end + 1, end = bytes.indexOf(0x0a, start)) {
      const mark = startsWith(bytes, start, headerPrefix) ? readMark(bytes, start, end) : undefined
      if (mark?.prev === 0) return found(bytes, start, mark)
    }
    if (bytes.length >= size || length >= bytesMax) return undefined
  }
}

function found(bytes: Buffer, start: number, mark: LineMark): HeaderFound {
  return { crc: mark.crc, header: readBody(bytes, start, mark).system?.header }
}
