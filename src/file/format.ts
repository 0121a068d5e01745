/** holdfast.json and the birth of a store. A store is born under the metadata lock, in an order in which a crash leaves either nothing that
 *  looks like a store in use, or one that the next comer completes: snapshot, journal, and last the format file. */
import { z } from 'zod'
import { errnoOf, StoreError } from '../errors.js'
import { makeDirectories, readFully } from './durable.js'
import type { Host } from './host.js'
import type { Baton, Held } from './lock/baton.js'
import { newJournal } from './metadata/checkpoint.js'
import { emptySnapshot, hashOf } from './metadata/snapshot.js'
import { replaceFile } from './stage.js'

export const formatVersion = 1

export interface StorePlaces {
  readonly store: string
  readonly format: string
  readonly snapshot: string
  readonly journal: string
  readonly previousSnapshot: string
  readonly previousJournal: string
  readonly transcripts: string
  readonly archive: string
  readonly quarantine: string
  readonly locks: string
}

export function placesIn(store: string): StorePlaces {
  return {
    store,
    format: `${store}/holdfast.json`,
    snapshot: `${store}/sessions.json`,
    journal: `${store}/sessions.journal.jsonl`,
    previousSnapshot: `${store}/sessions.prev.json`,
    previousJournal: `${store}/sessions.prev.journal.jsonl`,
    transcripts: `${store}/transcripts`,
    archive: `${store}/archive`,
    quarantine: `${store}/quarantine`,
    locks: `${store}/locks`,
  }
}

const formatFile = z.object({ format: z.number().int().positive(), storeId: z.string(), createdAt: z.number() })

/** undefined for what is no such file. */
export function parseFormat(text: string): z.infer<typeof formatFile> | undefined {
  try {
    return formatFile.safeParse(JSON.parse(text)).data
  } catch {
    return undefined
  }
}

/** @throws STORE_FORMAT_UNSUPPORTED  written by a newer version · STORE_CORRUPT  not readable. Effect none. False when there is none. */
export function checkFormat(host: Host, places: StorePlaces): boolean {
  const text = readText(host, places.format)
  if (text === undefined) return false
  const parsed = parseFormat(text)
  if (!parsed)
    throw new StoreError('STORE_CORRUPT', 'holdfast.json cannot be read.', {
      details: { file: 'holdfast.json' },
      hint: 'Nothing was written. It holds {"format":1,"storeId":…,"createdAt":…}; `holdfast repair` makes it anew.',
    })
  if (parsed.format > formatVersion)
    throw new StoreError(
      'STORE_FORMAT_UNSUPPORTED',
      `the store has format ${parsed.format}; this version of the library knows up to ${formatVersion}.`,
      {
        details: { found: parsed.format, supported: formatVersion },
        hint: 'Nothing was written. Open it with the version that wrote it, or a newer one.',
      },
    )
  return true
}

function readText(host: Host, path: string): string | undefined {
  const { disk } = host
  try {
    const fd = disk.open(path, 'read')
    try {
      return readFully(disk, fd, 0, disk.fstat(fd).size).toString('utf8')
    } finally {
      disk.close(fd)
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

export function makeStoreDirectories(host: Host, places: StorePlaces): void {
  for (const path of [places.transcripts, places.archive, places.quarantine, `${places.locks}/transcripts`])
    makeDirectories(host.disk, path)
}

export function isComplete(host: Host, places: StorePlaces): boolean {
  return [places.format, places.snapshot, places.journal].every((path) => host.disk.stat(path) !== undefined)
}

/** Brings a new store into being, or completes one whose maker died. */
export async function giveBirth(host: Host, places: StorePlaces, baton: Baton, waitMs: number, tag: string): Promise<void> {
  for (let tries = 0; tries < 20; tries++) {
    const held = await baton.acquire({ does: 'create', waitMs, deadlineMs: host.clock.monotonicMs() + waitMs })
    try {
      if (isComplete(host, places)) return
      await complete(host, places, held, tag)
    } catch (error) {
      // Somebody to whom the lock was lost does the same: then the stage is gone, or what we saw was half of what is there by now.
      if (errnoOf(error) !== 'ENOENT' && !isComplete(host, places) && host.disk.stat(held.stage)) throw error
    } finally {
      baton.release(held)
    }
  }
}

async function complete(host: Host, places: StorePlaces, held: Held, tag: string): Promise<void> {
  const { clock, disk } = host
  const snapshot = readText(host, places.snapshot)
  const hasJournal = disk.stat(places.journal) !== undefined
  const inUse = checkFormat(host, places)
  if (inUse || (snapshot === undefined && (hasJournal || hasTranscripts(host, places))))
    throw missingFile(snapshot === undefined ? 'sessions.json' : 'sessions.journal.jsonl')
  if (snapshot !== undefined && !hasJournal && snapshot !== emptySnapshot.toString())
    throw new StoreError('STORE_CORRUPT', `${places.snapshot} was not written by this library.`, {
      details: { file: 'sessions.json' },
      hint: 'Nothing was written. To take over sessions of another program, import them: holdfast import DIR --store NEWDIR.',
    })
  if (snapshot === undefined) {
    await replaceFile(host, held, places.snapshot, [emptySnapshot])
    await disk.syncDirectory(places.store)
  }
  if (!hasJournal) {
    await replaceFile(host, held, places.journal, [newJournal(hashOf(emptySnapshot), 0, clock.wallMs(), tag + host.nonce(8))])
    await disk.syncDirectory(places.store)
  }
  await replaceFile(host, held, places.format, [
    Buffer.from(`${JSON.stringify({ format: formatVersion, storeId: host.mintId(), createdAt: clock.wallMs() })}\n`),
  ])
  await disk.syncDirectory(places.store)
}

function hasTranscripts(host: Host, places: StorePlaces): boolean {
  return host.disk.readdir(places.transcripts).some((name) => name.endsWith('.jsonl'))
}

function missingFile(file: string): StoreError {
  return new StoreError('STORE_CORRUPT', `${file} is missing from a store that has been in use.`, {
    details: { file },
    hint: 'Nothing was written: missing is not empty. Restore it together with its sibling from the same moment; `holdfast repair` shows what can be made from the generation before (sessions.prev.*) and from the transcripts.',
  })
}
