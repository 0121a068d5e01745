import type { ByteSource } from '../../src/file/log/scan.js'

/** Bytes in memory, as a scan reads them. */
export function bytesSource(bytes: Buffer): ByteSource {
  let position = 0
  return {
    read(into, offset, length) {
      const got = bytes.copy(into, offset, position, Math.min(bytes.length, position + length))
      position += got
      return got
    },
  }
}
