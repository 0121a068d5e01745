/** What is in the archive, told from headers, ends and notes; no file is read through. */
import type { ArchiveInfo } from '../../archives.js'
import { errnoOf, isStoreError } from '../../errors.js'
import { type Facts, factsOfLog, factsOfPacked, infoOf, readNote } from '../../file/archives/archive-facts.js'
import { type ArchiveName, parseArchiveFile, parseTranscriptFile } from '../../file/archives/archive-name.js'
import type { Inside } from '../../file/backend.js'
import { Pace } from '../pace.js'
import { namedSessions } from './place.js'

/** Newest first. @param key  only what that key has named. */
export async function listArchives(inside: Inside, key: string | undefined): Promise<ArchiveInfo[]> {
  const { places, host } = inside
  const pace = new Pace(host.clock)
  const found = new Map<string, ArchiveInfo>()
  for (const file of list(inside, places.archive)) {
    const name = parseArchiveFile(file)
    // Both stand there while one is compressed.
    if (!name || (name.compressed && found.has(name.archive))) continue
    const facts = await factsOf(inside, places.archive, file, name)
    if (facts !== 'gone') found.set(name.archive, infoOf(name, `archive/${file}`, facts, false))
    await pace.breathe()
  }
  for (const info of await unfinished(inside)) if (!found.has(info.archive)) found.set(info.archive, info)
  const all = [...found.values()].filter((info) => key === undefined || info.key === key)
  return all.sort((a, b) => (b.at ?? 0) - (a.at ?? 0) || (a.archive < b.archive ? 1 : -1))
}

/** Closed, and not moved: named by no key any more, and sealed for good. */
async function unfinished(inside: Inside): Promise<ArchiveInfo[]> {
  const { places, host } = inside
  const pace = new Pace(host.clock)
  const files = list(inside, places.transcripts)
  const named = await namedSessions(inside)
  const infos: ArchiveInfo[] = []
  for (const file of files) {
    const sessionId = parseTranscriptFile(file)
    if (!sessionId || named.has(sessionId)) continue
    const name = { archive: sessionId, sessionId, lastSeq: undefined, compressed: false }
    const facts = await factsOf(inside, places.transcripts, file, name)
    if (facts !== 'gone' && (facts?.reason === 'rotated' || facts?.reason === 'deleted'))
      infos.push(infoOf(name, `transcripts/${file}`, facts, true))
    await pace.breathe()
  }
  return infos
}

function list({ host }: Inside, directory: string): string[] {
  return host.disk.stat(directory) ? host.disk.readdir(directory).sort() : []
}

/** undefined for one that is damaged. */
async function factsOf(inside: Inside, directory: string, file: string, name: ArchiveName): Promise<Facts | 'gone' | undefined> {
  const { disk } = inside.host
  const path = `${directory}/${file}`
  try {
    if (name.compressed)
      return (
        readNote(disk, directory, name.archive) ??
        (await factsOfPacked({ disk, path, label: `archive/${file}`, compressed: true }, inside.tag))
      )
    const fd = disk.open(path, 'read')
    try {
      return factsOfLog(disk, fd, inside.tag)
    } finally {
      disk.close(fd)
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return 'gone'
    if (isStoreError(error, 'LOG_CORRUPT') || errnoOf(error) !== undefined) return undefined
    throw error
  }
}
