/** Brings one source into the store.
 *   1 look at its first readable line: whose session is it, which key
 *   2 look at what the store has under that key, and decide how they meet     nothing is written yet
 *   3 write the entry                          crash: an entry without records; the next run goes on
 *   4 append the lines that are not there      crash: a prefix of them; the next run goes on
 *   5 write into the entry how many there are  crash: the next run counts again */
import { errnoOf, isStoreError } from '../../errors.js'
import type { Session, SessionStore } from '../../index.js'
import { Flight } from './flight.js'
import { isImported, lineIds, sourcePrefix } from './identity.js'
import { type Line, readLines } from './lines.js'
import { identifyPi, type PiVerdict } from './pi.js'
import { importedOf, type Meeting, type Present, planEntry, planMeeting } from './plan.js'
import { parseRecord } from './record.js'
import type { BareSource, Imported, TranscriptSource } from './source.js'
import type { SessionTally, Tally } from './tally.js'

type Store = SessionStore<Record<string, unknown>>
type Fields = Readonly<Record<string, unknown>>

export interface ImportOptions {
  readonly merge: boolean
  readonly signal: AbortSignal
  /** Bytes of this file read so far. */
  readonly onOffset: (bytes: number) => void
}

/** Longer lines are left out unread. The store's own bound on a record is lower. */
const lineBytesMax = 64 << 20

export async function importTranscript(store: Store, source: TranscriptSource, tally: Tally, options: ImportOptions): Promise<void> {
  const verdict = await identify(source, options.signal)
  if (verdict.kind === 'refused') return tally.leaveOut({ path: source.path, line: null, key: source.key ?? null, why: verdict.why })
  const { identity } = verdict
  const session: SessionTally = {
    key: source.key ?? identity.key,
    format: source.format,
    file: source.path,
    version: identity.imported.version ?? null,
    sourceSessionId: source.described?.sessionId ?? identity.imported.sessionId,
    sessionId: null,
    added: 0,
    present: 0,
    leftOut: 0,
  }
  tally.sessions.push(session)
  if (identity.headless) tally.notes.push(`${source.path} has no session header; its session id is taken from its name.`)
  const { updatedAt, fields } = source.described ?? {}
  const facts: Imported = {
    ...identity.imported,
    format: source.format,
    sessionId: session.sourceSessionId,
    ...(updatedAt === undefined ? {} : { updatedAt }),
  }
  await confined(source.path, session, tally, () => meet(store, { source, session, facts, offered: fields ?? {} }, tally, options))
}

/** A session of which only the description is there. */
export async function importBare(store: Store, { path, format, described }: BareSource, tally: Tally): Promise<void> {
  const { key, sessionId, updatedAt, fields } = described
  const session: SessionTally = {
    key,
    format,
    file: path,
    version: null,
    sourceSessionId: sessionId,
    sessionId: null,
    added: 0,
    present: 0,
    leftOut: 1,
  }
  tally.sessions.push(session)
  const facts: Imported = { format, sessionId, ...(updatedAt === undefined ? {} : { updatedAt }) }
  await confined(path, session, tally, async () => {
    session.sessionId = await writeEntry(store, key, fields, facts, tally)
  })
}

/** Errors that concern one source alone are reported; those that would meet the next one too are thrown. */
async function confined(path: string, session: SessionTally, tally: Tally, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    const ofSource = !isStoreError(error) && errnoOf(error) !== undefined
    const ofSession = isStoreError(error) && (error.kind === 'misuse' || error.code === 'LOG_CORRUPT') && error.code !== 'STORE_CLOSED'
    if (!ofSource && !ofSession) throw error
    tally.leaveOut({ path, line: null, key: session.key, why: `could not be taken: ${(error as Error).message}` }, session)
  }
}

async function identify({ path, bytes, format, described }: TranscriptSource, signal: AbortSignal): Promise<PiVerdict> {
  let first: Fields | undefined
  try {
    for await (const line of readLines(path, lineBytesMax, signal)) {
      const parsed = line.bytes ? parseRecord(line.bytes, line.ended) : undefined
      if (parsed?.kind !== 'record') continue
      first = parsed.record
      break
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return { kind: 'refused', why: `could not be read: ${(error as Error).message}` }
  }
  if (!first && bytes === 0) return { kind: 'refused', why: 'the file is empty' }
  const verdict = identifyPi(first, path)
  // Whatever its first line looks like, sessions.json says that this is a transcript.
  if (verdict.kind === 'refused' && format === 'openclaw' && described && first && first.type !== 'session')
    return { kind: 'pi', identity: { key: described.key, imported: { format, sessionId: described.sessionId }, headless: true } }
  return verdict
}

interface Guest {
  readonly source: TranscriptSource
  readonly session: SessionTally
  readonly facts: Imported
  readonly offered: Fields
}

async function meet(store: Store, guest: Guest, tally: Tally, options: ImportOptions): Promise<void> {
  const { source, session, facts, offered } = guest
  const { key } = session
  const entry = await store.get(key)
  let present = await whatIsThere(entry ? store.session(key) : undefined, facts.sessionId)
  const meeting: Meeting = planMeeting(present, entry, { format: source.format, sessionId: facts.sessionId, merge: options.merge })
  if (meeting.kind === 'refused') return tally.leaveOut({ path: source.path, line: null, key, why: meeting.why }, session)
  if (meeting.kind === 'archived') return await compareCount(guest, meeting.records, tally, options)
  if (meeting.kind === 'rotate') {
    await store.session(key).rotate({ reason: 'import: the key names a new conversation at the source' })
    present = { ...present, mine: new Set() }
  }
  const before = importedOf(entry)
  if (
    before?.version !== undefined &&
    facts.version !== undefined &&
    before.version !== facts.version &&
    before.sessionId === facts.sessionId
  )
    tally.notes.push(
      `${source.path} was version ${before.version} when it was first imported and is ${facts.version} now; records in the store keep their form.`,
    )
  // What an earlier run has counted stands until this one has counted anew.
  const counted = before?.sessionId === facts.sessionId ? { records: before.records, into: before.into } : {}
  session.sessionId = await writeEntry(store, key, offered, withoutUndefined({ ...facts, ...counted }), tally)
  await appendLines(store.session(key), guest, present, tally, options)
  if (options.signal.aborted) return
  const sessionId = (await store.get(key))?.sessionId ?? session.sessionId
  session.sessionId = sessionId
  await writeEntry(store, key, offered, { ...facts, records: session.present + session.added, into: sessionId })
}

function withoutUndefined(facts: { [name in keyof Imported]: Imported[name] | undefined }): Imported {
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined)) as unknown as Imported
}

async function whatIsThere(session: Session | undefined, sourceId: string): Promise<Present> {
  const prefix = sourcePrefix(sourceId)
  const mine = new Set<string>()
  let othersImported = 0
  let own = 0
  if (session) {
    for await (const { id } of session.read()) {
      if (id?.startsWith(prefix)) mine.add(id)
      else if (isImported(id)) othersImported++
      else own++
    }
  }
  return { mine, othersImported, own }
}

/** Writes the entry where it is not yet as it should be; resolves to its session id. */
async function writeEntry(store: Store, key: string, offered: Fields, facts: Imported, tally?: Tally): Promise<string> {
  const entry = await store.get(key)
  const plan = planEntry(entry, offered, facts)
  if (plan.note) tally?.notes.push(`"${key}": ${plan.note}.`)
  if (entry && !plan.fields) return entry.sessionId
  // Planned again inside the lock: somebody may have written since.
  return (await store.update(key, (now) => planEntry(now, offered, facts).fields ?? { ...now })).sessionId
}

/** The records went to the archive with a rotation here; only whether the source has grown since can be said. */
async function compareCount({ source, session }: Guest, records: number, tally: Tally, options: ImportOptions): Promise<void> {
  let found = 0
  for await (const line of readLines(source.path, lineBytesMax, options.signal)) {
    if (line.bytes && parseRecord(line.bytes, line.ended).kind === 'record') found++
    options.onOffset(line.offset)
  }
  session.present = Math.min(found, records)
  if (found <= records) return
  const why = `${found - records} new records were not taken: the session was rotated here after the last import; --merge appends them to the present one`
  tally.leaveOut({ path: source.path, line: null, key: session.key, why }, session)
}

async function appendLines(
  into: Session,
  { source, session, facts }: Guest,
  present: Present,
  tally: Tally,
  options: ImportOptions,
): Promise<void> {
  const ids = lineIds(facts.sessionId)
  const flight = new Flight(options.signal)
  const leaveOut = (line: Line, why: string) => tally.leaveOut({ path: source.path, line: line.number, key: session.key, why }, session)
  try {
    for await (const line of readLines(source.path, lineBytesMax, options.signal)) {
      options.onOffset(line.offset)
      const record = recordOf(line, (why) => leaveOut(line, why))
      if (!record) continue
      const id = ids.next(record)
      if (present.mine.has(id)) {
        session.present++
        continue
      }
      await flight.send({
        bytes: line.length,
        line: line.number,
        append: (signal) => into.append(record, { id, signal }),
        landed: ({ duplicate }) => (duplicate ? session.present++ : session.added++),
        refused: (error) => {
          if (!isStoreError(error, 'RECORD_TOO_LARGE') && !isStoreError(error, 'INVALID_RECORD')) return false
          leaveOut(line, error.message)
          return true
        },
      })
      if (flight.stopped) break
    }
  } catch (error) {
    if (!options.signal.aborted) throw error
  } finally {
    await flight.land().finally(() => {
      if (flight.gap === undefined) return
      tally.notes.push(`${source.path}:${flight.gap} is not in although later lines are; the next run adds it behind them.`)
    })
  }
}

function recordOf(line: Line, leaveOut: (why: string) => void): Record<string, unknown> | undefined {
  if (!line.bytes) {
    leaveOut(`${line.length} bytes long; lines of more than ${lineBytesMax} bytes are not read`)
    return undefined
  }
  const parsed = parseRecord(line.bytes, line.ended)
  if (parsed.kind === 'refused') leaveOut(parsed.why)
  if (parsed.kind !== 'record') return undefined
  if (parsed.altered) leaveOut(`taken, but not exactly: ${parsed.altered}`)
  return parsed.record
}
