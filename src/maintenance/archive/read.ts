/** Reads an archived transcript as a session is read, from the first record that is in it; by the chain rule, and held against its note. */

import { archiveBytes, feedAll } from '../../file/archives/archive-bytes.js'
import { readNote } from '../../file/archives/archive-facts.js'
import type { Inside } from '../../file/backend.js'
import { Chain } from '../../file/log/chain.js'
import { logCorrupt } from '../../file/log/log-file.js'
import { isSystemOnly } from '../../file/log/record.js'
import { parsed, type Raw, rawOf } from '../../file/transcripts/reading.js'
import type { ReadOptions, StoredRecord } from '../../types.js'
import { locate } from './place.js'

/** @throws NOT_FOUND · LOG_CORRUPT  after everything before the damage has been handed out. */
export async function* readArchive(inside: Inside, archive: string, options: ReadOptions): AsyncGenerator<StoredRecord> {
  const { after = 0, limit = Number.POSITIVE_INFINITY, signal } = options
  let left = limit
  for await (const raw of rawsOf(inside, archive, signal)) {
    if (raw.seq <= after) continue
    if (left-- <= 0) return
    yield parsed(raw)
  }
}

async function* rawsOf(inside: Inside, archive: string, signal: AbortSignal | undefined): AsyncGenerator<Raw> {
  const file = await locate(inside, archive)
  const chain = new Chain(inside.tag)
  const foreign: string[] = []
  const raws: Raw[] = []
  const sink = {
    record(mark: Parameters<typeof rawOf>[0], bytes: Buffer, start: number) {
      if (!isSystemOnly(bytes, start)) raws.push(rawOf(mark, bytes, start))
    },
    foreignLine: (json: string) => void foreign.push(json),
  }
  let begun = false
  for await (const _ of feedAll(archiveBytes(file, signal), chain, sink)) {
    // Only the header says whether the lines before it count.
    if (!begun && chain.seq < 0) continue
    if (!begun) yield* foreignRaws(chain, foreign)
    begun = true
    yield* raws.splice(0)
    if (chain.damage) throw logCorrupt(file.label, chain.damage)
  }
  if (!begun) yield* foreignRaws(chain, foreign)
  if (chain.damage) throw logCorrupt(file.label, chain.damage)
  const note = file.compressed ? readNote(file.disk, inside.places.archive, archive) : undefined
  if (note && note.lastSeq !== chain.seq)
    throw logCorrupt(file.label, {
      why: `it ends at seq ${chain.seq}, not at ${note.lastSeq} as its note says`,
      byte: chain.end,
      seq: chain.seq + 1,
    })
}

function foreignRaws(chain: Chain, foreign: readonly string[]): Raw[] {
  return foreign.slice(0, chain.foreign.lines).map((json, at) => ({ seq: at + 1, json, system: undefined }))
}
