/** Files that are no logs into the snapshot: unchanged ones unread, changing ones read again until they rest. */
import { systemClock } from '../../clock.js'
import { errnoOf } from '../../errors.js'
import type { FileStat } from '../../file/durable.js'
import type { FileFacts, FileRole, PreviousFile } from '../repository/repository.js'
import { type About, type Capture, isUntouched } from './capture.js'
import { linkTarget, PlainReading, walk } from './plain-files.js'

const triesMax = 4

/** A regular file. What is gone by now is no part of the snapshot. */
export async function capturePlain(capture: Capture, file: string, path: string, role: FileRole): Promise<void> {
  for (let tries = 1; !(await capturedAtRest(capture, file, path, role, tries >= triesMax)); tries++)
    await systemClock.sleep(20 * 4 ** tries, capture.options.signal)
}

/** False when it was written to meanwhile. */
async function capturedAtRest(capture: Capture, file: string, path: string, role: FileRole, anyhow: boolean): Promise<boolean> {
  const { previous, rereads, signal } = capture.options
  const reading = open(capture, file, path)
  if (!reading) return true
  try {
    const row = previous.get(path)
    const untouched = isUntouched(row, reading.stat)
    const facts = () => {
      const rests = reading.atRest()
      if (!rests && !anyhow) throw new Unrest()
      return plainFacts(capture, reading.stat, path, role, rests)
    }
    const again = rereads(path)
    const known: PreviousFile | undefined = untouched
      ? { row, keepBytes: row.bytes, ...(again ? { reread: true } : { whole: true }) }
      : undefined
    const stored = await capture.store({ path }, facts, (from) => reading.bytes(from, signal), known)
    if (untouched && stored?.changed)
      capture.note('alarm', { path }, `Bytes ${stored.changed.from} to ${stored.changed.to} have changed although nobody wrote the file.`)
    else if (stored && !reading.atRest()) capture.note('warning', { path }, 'It was written to whenever it was read: the copy may be torn.')
    return true
  } catch (error) {
    if (error instanceof Unrest) return false
    throw error
  } finally {
    reading.close()
  }
}

function open(capture: Capture, file: string, path: string): PlainReading | undefined {
  try {
    return new PlainReading(capture.options.disk, file)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === undefined) throw error
    if (errno !== 'ENOENT') capture.note('warning', { path }, `It cannot be read, and is not in the snapshot: ${(error as Error).message}.`)
    return undefined
  }
}

/** It has changed while it was read: the snapshot goes on without this reading of it. */
class Unrest extends Error {}

function plainFacts(capture: Capture, stat: FileStat, path: string, role: FileRole, rests: boolean): FileFacts {
  return {
    path,
    role,
    type: 'file',
    mode: stat.mode & 0o7777,
    mtimeMs: stat.mtimeMs ?? stat.ctimeMs,
    identity: rests ? capture.identityOf(stat) : undefined,
  }
}

/** A directory that is not a store, with everything in it.
 *  @param skip  absolute paths that are no part of it: the target, a store that is backed up by itself. */
export async function captureTree(capture: Capture, root: string, as: string, skip: readonly string[]): Promise<void> {
  const { disk, signal } = capture.options
  const problem = ({ path, message }: { path: string; message: string }) => capture.note('warning', { path: `${as}/${path}` }, message)
  const isSkipped = (path: string) => {
    if (!skip.includes(`${root}/${path}`)) return false
    capture.note('notice', { path: `${as}/${path}` }, 'It is not part of the snapshot: it is the target, or is backed up as a store.')
    return true
  }
  for (const { path, stat } of walk(disk, root, isSkipped, problem)) {
    signal?.throwIfAborted()
    await captureEntry(capture, `${root}/${path}`, `${as}/${path}`, stat, 'included')
  }
}

export async function captureEntry(capture: Capture, file: string, path: string, stat: FileStat, role: FileRole): Promise<void> {
  const about: About = { path }
  const common = { path, role, mode: stat.mode & 0o7777, mtimeMs: stat.mtimeMs ?? stat.ctimeMs }
  if (stat.kind === 'file') return capturePlain(capture, file, path, role)
  if (stat.kind === 'directory') return void (await capture.store(about, () => ({ ...common, type: 'directory' })))
  if (stat.kind === 'other')
    return capture.note('notice', about, 'It is neither file, directory nor symbolic link, and is not in the snapshot.')
  try {
    const linkTo = linkTarget(file)
    await capture.store(about, () => ({ ...common, type: 'symlink', linkTo }))
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    if (errnoOf(error) !== 'ENOENT') capture.note('warning', about, `The link cannot be read: ${(error as Error).message}.`)
  }
}
