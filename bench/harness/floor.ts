/** The floors: what the machine itself takes for the same bytes, without format, lock or check. No store can be faster that keeps the same
 *  promise with the same call. */
import fs from 'node:fs'
import { type Contestant, sliceSync } from './measure.js'

/** F1: the bytes by one O_APPEND write on an open descriptor. They are with the kernel, not on the disk. */
export function floorWrite(path: string, line: Buffer, name = 'floor F1 (write)'): Contestant {
  const fd = fs.openSync(path, 'a', 0o600)
  const burst = line.length < 16_384 ? 16 : 1
  return {
    name,
    slice(sliceMs) {
      keepSmall(fd)
      return sliceSync(() => fs.writeSync(fd, line), sliceMs, burst)
    },
  }
}

/** F2: the same, and fdatasync. */
export function floorSync(path: string, line: Buffer, name = 'floor F2 (write + fdatasync)'): Contestant {
  const fd = fs.openSync(path, 'a', 0o600)
  return { name, slice: (sliceMs) => sliceSync(() => writeAndSync(fd, line), sliceMs) }
}

export function writeAndSync(fd: number, line: Buffer): void {
  fs.writeSync(fd, line)
  fs.fdatasyncSync(fd)
}

/** Nobody reads what a floor wrote; left to grow it would fill the page cache, and its write-back would slow the others' slices. */
function keepSmall(fd: number): void {
  if (fs.fstatSync(fd).size > floorBytesMax) fs.ftruncateSync(fd, 0)
}

const floorBytesMax = 32 << 20
