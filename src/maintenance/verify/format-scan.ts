/** holdfast.json: which format the store has. */
import { errnoOf } from '../../errors.js'
import { type Disk, readFully } from '../../file/durable.js'
import { parseFormat } from '../../file/format.js'
import type { Finding } from '../../findings.js'
import { findingOf, findingSaying } from './report.js'

const bytesMax = 1 << 16
const file = 'holdfast.json'

/** What is wrong with it; a newer format is refused by whoever opens the store, and is not damage. */
export function formatFinding(disk: Disk, path: string): Finding | undefined {
  const stat = disk.stat(path)
  // It is written last: without it the store was never finished, and whoever opens it does that.
  if (!stat) return findingSaying('unfinished-work', file, 'There is none: whoever was making the store has not come to its end.')
  if (stat.kind !== 'file') return findingSaying('not-a-file', file, `It is a ${stat.kind}.`)
  try {
    const fd = disk.open(path, 'read')
    try {
      if (parseFormat(readFully(disk, fd, 0, Math.min(stat.size, bytesMax)).toString('utf8'))) return undefined
    } finally {
      disk.close(fd)
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return findingSaying('unreadable', file, `${(error as Error).message}.`)
  }
  return findingOf('format-damaged', file, { bytes: { from: 0, to: stat.size } })
}
