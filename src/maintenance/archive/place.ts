/** Where an archived transcript is: in `archive/`, compressed or not, or still in `transcripts/`, closed by somebody who died over it. */
import { StoreError } from '../../errors.js'
import type { ArchiveFile } from '../../file/archives/archive-bytes.js'
import { parseArchive } from '../../file/archives/archive-name.js'
import type { Inside } from '../../file/backend.js'
import { type Cell, passingEntryOf } from '../../file/metadata/cells.js'
import { Pace } from '../pace.js'

/** The places to look at, in this order: what is being compressed stands in two of them, and goes from the first. */
function placesOf({ places, host }: Inside, archive: string): ArchiveFile[] {
  const { disk } = host
  const file = (directory: string, folder: string, ending: string): ArchiveFile => ({
    disk,
    path: `${directory}/${archive}${ending}`,
    label: `${folder}/${archive}${ending}`,
    compressed: ending.endsWith('.gz'),
  })
  const name = parseArchive(archive)
  return [
    file(places.archive, 'archive', '.jsonl'),
    file(places.archive, 'archive', '.jsonl.gz'),
    ...(name && name.lastSeq === undefined ? [file(places.transcripts, 'transcripts', '.jsonl')] : []),
  ]
}

/** @throws NOT_FOUND  there is no archive of that name; a session in use is none. */
export async function locate(inside: Inside, archive: string): Promise<ArchiveFile> {
  if (parseArchive(archive)) {
    for (const place of placesOf(inside, archive)) {
      if (!inside.host.disk.stat(place.path)) continue
      if (place.label.startsWith('archive/') || !(await namedSessions(inside)).has(archive)) return place
    }
  }
  throw new StoreError('NOT_FOUND', `there is no archive ${JSON.stringify(archive)}.`, {
    details: { archive },
    hint: 'Nothing was done. `holdfast archives` lists those there are; a session that is in use is read by its key.',
  })
}

/** Session ids that a key names now, with the key. */
export async function namedSessions({ metadata, host }: Inside): Promise<Map<string, string>> {
  const named = new Map<string, string>()
  const pace = new Pace(host.clock)
  for (const [key, cell] of await metadata.cells()) {
    named.set(sessionIdIn(cell), key)
    await pace.breathe()
  }
  return named
}

/** Without parsing the entry: its own members come first. */
function sessionIdIn(cell: Cell): string {
  const { bytes, start } = cell
  const at = start + front.length
  if (bytes.toString('latin1', start, at) === front && bytes[at + idLength] === 0x22) return bytes.toString('latin1', at, at + idLength)
  return passingEntryOf(cell).sessionId
}

const front = '{"sessionId":"'
const idLength = 36
