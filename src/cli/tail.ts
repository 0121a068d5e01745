/** `holdfast tail KEY`: the last records of a session, and with `-f` those that follow, whoever writes them, across a rotation.
 *
 *  Following asks the store again every `pollMs`; a read is a few microseconds and takes no lock. A round belongs to one session id: read,
 *  then look whether the key still names that id; if not, the rest of the old transcript comes first, from where rotation has put it. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import type { Session, SessionStore, StoredRecord } from '../index.js'
import { isPostgresAddress } from '../postgres/address.js'
import { readClosed } from './closed.js'
import { onCtrlC } from './ctrl-c.js'
import { exitCodes } from './exit.js'
import { type CommonOptions, storeCommand, unknownKey, wholeNumber, withStoreToRead } from './options.js'
import { paint, plain, print, printJson, remark } from './output.js'
import { headline } from './record-text.js'

interface TailOptions extends CommonOptions {
  readonly lines: number
  readonly follow?: boolean
}

const pollMs = 100
/** Records of one round when following; bounds the memory of a reader that has fallen behind. */
const roundMax = 1_000

type Store = SessionStore<Record<string, unknown>>

export function tailCommand(): Command {
  return storeCommand('tail', 'Print the last records of a session', [
    'holdfast tail agent:main:main',
    'holdfast tail agent:main:main -n 100 --json | jq -c .record',
    'holdfast tail agent:main:main -f',
  ])
    .argument('<key>', 'session key, exactly')
    .option('-n, --lines <count>', 'how many records', wholeNumber(0, 1_000_000), 10)
    .option('-f, --follow', 'wait for more, until Ctrl-C')
    .action(tail)
}

async function tail(key: string, options: TailOptions): Promise<void> {
  await withStoreToRead(options.store, async (store) => {
    const entry = await store.get(key)
    if (!entry) throw unknownKey(key, options.store)
    const session = store.session(key)
    // One more than none: following begins after the last record, also with -n 0.
    const last = await session.tail(Math.max(1, options.lines))
    for (const record of options.lines === 0 ? [] : last) await printRecord(record, entry.sessionId, options.json)
    if (options.follow) await follow(store, session, { sessionId: entry.sessionId, after: last.at(-1)?.seq ?? 0 }, options)
  })
}

interface Place {
  readonly sessionId: string
  readonly after: number
}

async function follow(store: Store, session: Session, start: Place, options: TailOptions): Promise<void> {
  const interrupt = onCtrlC()
  try {
    let place: Place | undefined = start
    while (place && !interrupt.signal.aborted) {
      const next: Place | undefined = await followRound(store, session, place, options)
      if (next === place) await sleep(pollMs, undefined, { signal: interrupt.signal }).catch(() => {})
      place = next
    }
    if (interrupt.signal.aborted) process.exitCode = exitCodes.interrupted
  } finally {
    interrupt.release()
  }
}

/** Prints what has come; the same place when nothing has, undefined when the session is gone. */
async function followRound(store: Store, session: Session, place: Place, options: TailOptions): Promise<Place | undefined> {
  const come: StoredRecord[] = []
  for await (const record of session.read({ after: place.after, limit: roundMax })) come.push(record)
  const sessionId = (await store.get(session.key))?.sessionId
  if (sessionId !== place.sessionId) return followOn(store, session.key, place, sessionId, options)
  for (const record of come) await printRecord(record, sessionId, options.json)
  return come.length === 0 ? place : { sessionId, after: come.at(-1)!.seq }
}

/** The key names another session now: the rest of the one it named, then the one that its seal names. */
async function followOn(
  store: Store,
  key: string,
  place: Place,
  current: string | undefined,
  options: TailOptions,
): Promise<Place | undefined> {
  const inDatabase = isPostgresAddress(options.store)
  const rest = inDatabase ? readClosedRows(store, place, key) : readClosed(options.store, place.sessionId, place.after)
  let step = await rest.next()
  for (; !step.done; step = await rest.next()) await printRecord(step.value, place.sessionId, options.json)
  const next = step.value ?? current
  if (next === undefined) {
    remark(`holdfast: the session "${plain(key)}" has been deleted; its transcript is in archive/.`)
    return undefined
  }
  remark(`holdfast: "${plain(key)}" goes on in session ${next} (was ${place.sessionId}).`)
  return { sessionId: next, after: 0 }
}

/** As `readClosed`, of a store in a database. */
async function* readClosedRows(store: Store, { sessionId, after }: Place, key: string): AsyncGenerator<StoredRecord, string | undefined> {
  const closed = (await store.archives(key)).find((archive) => archive.sessionId === sessionId)
  if (!closed) return undefined
  yield* store.readArchive(closed.archive, { after })
  return closed.next
}

function printRecord(stored: StoredRecord, sessionId: string, json: boolean | undefined): Promise<void> {
  if (json)
    return printJson({
      seq: stored.seq,
      sessionId,
      id: stored.id ?? null,
      turn: stored.turn ?? null,
      request: stored.request ?? null,
      record: stored.record,
    })
  const { when, what, text } = headline(stored.record)
  if (!process.stdout.isTTY) return print([stored.seq, when, what, text].join('\t'))
  const seq = String(stored.seq).padStart(6)
  const width = Math.max(20, process.stdout.columns - seq.length - when.length - what.length - 6)
  return print(`${paint('dim', seq)}  ${paint('dim', when)}  ${paint('cyan', what)}  ${cut(text, width)}`)
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, width - 1)}…`
}
