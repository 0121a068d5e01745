/** Conversations as tests need them: turns that stay until they are told to go, and what the files say of them afterwards. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { systemHost } from '../../src/file/host.js'
import { bootTag, Chain } from '../../src/file/log/chain.js'
import { readBody, type SystemPart, type TurnEvent } from '../../src/file/log/record.js'
import type { SessionStore } from '../../src/store.js'
import type { StoredRecord, StoreOptions, Turn, TurnOptions, TurnResult } from '../../src/types.js'
import { opened, storeDirectory } from '../metadata/store-directory.js'

export const said = (text: string) => ({ type: 'message', text })
export const textsOf = (records: readonly StoredRecord[]) => records.map(({ record }) => record.text)

/** A store of its own; `process` unless told otherwise: what is asked here is who goes when. */
export async function freshStore(options: StoreOptions = {}): Promise<{ readonly directory: string; readonly store: SessionStore }> {
  const directory = storeDirectory()
  return { directory, store: await opened(directory, { durability: 'process', ...options }) }
}

export interface Staying {
  readonly turn: Turn
  readonly result: Promise<TurnResult<unknown>>
  /** Lets the function return. */
  go(value?: unknown): void
  fail(error: unknown): void
}

/** Resolves when the function is inside; it stays there until it is told to go, whatever its signal says. */
export function staying(store: SessionStore, key: string, options: TurnOptions = {}): Promise<Staying> {
  return new Promise((resolve, reject) => {
    const result = store.runTurn(
      key,
      options,
      (turn) =>
        new Promise<unknown>((go, fail) => {
          onTestFinished(() => go(undefined))
          resolve({ turn, result, go, fail })
        }),
    )
    result.catch(reject)
  })
}

/** A turn that answers its input with the same words, and notes what it has seen. */
export function answering(order: string[] = []) {
  return async (turn: Turn): Promise<string> => {
    const text = turn.inputs.map(({ record }) => String(record.text)).join('+')
    order.push(text)
    await turn.append(said(`re: ${text}`))
    return `answered ${text}`
  }
}

/** One record as it stands in a log. */
export interface Fact {
  readonly seq: number
  readonly system: SystemPart | undefined
  readonly record: Record<string, unknown>
}

/** Everything that is in a log by the chain rule. */
export function factsOf(path: string): Fact[] {
  const facts: Fact[] = []
  const chain = new Chain(bootTag(systemHost().identity.boot))
  chain.feed(readFileSync(path), {
    record(mark, bytes, start) {
      const { json, system } = readBody(bytes, start, mark)
      facts.push({ seq: mark.seq, system, record: JSON.parse(json) as Record<string, unknown> })
    },
  })
  if (chain.damage) throw new Error(`${path}: ${chain.damage.why}`)
  return facts
}

export const transcriptOf = (directory: string, sessionId: string) => join(directory, 'transcripts', `${sessionId}.jsonl`)

export function eventsOf(directory: string, sessionId: string): TurnEvent[] {
  return factsOf(transcriptOf(directory, sessionId)).flatMap(({ system }) => system?.turn ?? [])
}

/** In few words: `start 1`, `end 1 completed`, `take 1`, `withdraw`. */
export function storyOf(directory: string, sessionId: string): string[] {
  return eventsOf(directory, sessionId).map((event) => {
    if (event.event === 'withdraw') return 'withdraw'
    return `${event.event} ${event.n}${event.event === 'end' ? ` ${event.outcome}` : ''}`
  })
}

/** What turns hold, or have left, beside the transcripts: leases that somebody has, cards, marks, things half made. What is free and empty
 *  stays for a while, and goes at the latest when the store is closed. */
export function leftBehind(directory: string, kept: 'in use' | 'anything' = 'in use'): string[] {
  const turns = join(directory, 'locks', 'turns')
  const names = existsSync(turns) ? readdirSync(turns).filter((name) => name !== '.floor') : []
  if (kept === 'anything') return names
  return names.flatMap((name) => {
    const inside = readdirSync(join(turns, name)).filter((each) => !each.startsWith('free.'))
    return inside.length > 0 || name.includes('.new-') ? [`${name}: ${inside.join(' ')}`] : []
  })
}

/** Resolves when it holds; for what other calls bring about soon. */
export async function eventually(holds: () => boolean | Promise<boolean>, withinMs = 5_000): Promise<void> {
  const untilMs = performance.now() + withinMs
  while (!(await holds())) {
    if (performance.now() > untilMs) throw new Error('it has not come about')
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

/** The request's input is in the transcript. */
export async function inLog(store: SessionStore, key: string, text: string): Promise<boolean> {
  return textsOf(await store.session(key).tail(1_000)).includes(text)
}
