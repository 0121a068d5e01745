/** A card says that somebody waits for a turn, or has it: a small file in the queue of its key. Its name says the order, whose it is and in
 *  which state, as a lock's entry does; so the line, and who of it lives, is known from a listing. Each line in it is a JSON object, and the
 *  last one that speaks of the state in the name counts.
 *
 *      <queue>/held.<order>.<holder, with the state as what it does>.<tag><nonce>    tag: of the request id, so that one is found unopened
 *      <queue>/interrupt.<tag><nonce>                                                 somebody wants that card's turn to stop
 *
 *  draw     create, write a line       between the two it has a place and says nothing
 *  update   append a line, rename      between the two everybody sees what was said before
 *  remove   unlink
 *
 *  Each waiter watches its own card, and only that: were it the queue, every change of anybody's card would wake all who wait. Whoever
 *  gives the turn back writes an empty line to the next card.
 *
 *  Cards are a courtesy, and are not synced: without one a waiter is not seen and may lose its place, and nothing that is promised depends
 *  on them. So no failure of the disk is told to whoever draws one. */
import { crc32 } from 'node:zlib'
import { z } from 'zod'
import { errnoOf } from '../../errors.js'
import type { WhenBusy } from '../../types.js'
import { makeDirectories, readFully, writeFully } from '../durable.js'
import type { Host } from '../host.js'
import { heldName, holderPrefix, makerName, parseEntry } from '../lock/holder.js'
import type { HeldEntry } from '../lock/observer.js'

/** What is known when the request arrives. */
export interface CardFacts {
  readonly key: string
  readonly requestId: string
  readonly channelId: string | undefined
  readonly lane: string
  readonly whenBusy: WhenBusy
  readonly sessionId?: string | undefined
  readonly turn?: number | undefined
}

export type CardState = 'queued' | 'active'

export interface CardChanges {
  readonly state?: CardState
  readonly sessionId?: string
  readonly turn?: number
}

export interface Interruption {
  readonly by: string
  /** Epoch ms. */
  readonly since: number
}

const line = z.object({
  state: z.enum(['queued', 'active']),
  key: z.string(),
  requestId: z.string(),
  channelId: z.string().optional(),
  lane: z.string(),
  whenBusy: z.enum(['queue', 'reject', 'coalesce', 'interrupt']),
  sessionId: z.string().optional(),
  turn: z.number().optional(),
  since: z.number(),
})

export type CardLine = z.infer<typeof line>

const interruption = z.object({ by: z.string(), since: z.number() })

/** For ever: a card goes with its process or by its owner's hand, not by time. */
const cardMs = 1_000_000_000_000
const bytesMax = 1 << 16
/** How often a queue may be removed while a card is put into it. */
const triesMax = 20

export const tagLength = 8

/** What a card's nonce begins with. */
export function tagOf(requestId: string): string {
  return crc32(requestId).toString(16).padStart(tagLength, '0')
}

export function markName(card: string): string {
  return `interrupt.${card}`
}

export function isMark(name: string): boolean {
  return name.startsWith('interrupt.')
}

/** A card as its name tells; undefined for anything else that stands in a queue. */
export function parseCard(name: string): HeldEntry | undefined {
  const entry = parseEntry(name)
  return entry?.state === 'held' ? entry : undefined
}

export function readCard(host: Host, path: string, state: CardState): CardLine | undefined {
  return readLines(host, path)
    .flatMap((json) => line.safeParse(json).data ?? [])
    .findLast((each) => each.state === state)
}

/** What is none of ours, or torn, is left out. */
function readLines(host: Host, path: string): unknown[] {
  let text = ''
  quietly(() => {
    const fd = host.disk.open(path, 'read')
    try {
      text = readFully(host.disk, fd, 0, Math.min(host.disk.fstat(fd).size, bytesMax)).toString('utf8')
    } finally {
      host.disk.close(fd)
    }
  })
  return text.split('\n').flatMap((each) => {
    try {
      return each ? [JSON.parse(each)] : []
    } catch {
      return []
    }
  })
}

export interface CardEvents {
  /** It has become active. */
  begins(): void
  /** It has been removed, and was in that state. */
  goes(from: CardState): void
  /** It should have been, but the system refused. */
  stays(path: string): void
}

/** Wakes whoever watches this card: the system tells of a change. */
export function nudge(host: Host, path: string): void {
  quietly(() => append(host, path, 'appendExisting', '\n'))
}

function append(host: Host, path: string, how: 'create' | 'appendExisting', text: string): void {
  const fd = host.disk.open(path, how)
  try {
    writeFully(host.disk, fd, Buffer.from(text))
  } finally {
    host.disk.close(fd)
  }
}

export class Card {
  readonly order: number
  readonly nonce: string
  #host: Host
  #queue: string
  #drawnAtMs: number
  #line: CardLine
  /** What it is called now; undefined when it could not be put there, or has been removed. */
  #name: string | undefined
  #removed = false
  #changes: CardEvents

  constructor(host: Host, queue: string, facts: CardFacts, changes: CardEvents) {
    this.#host = host
    this.#changes = changes
    this.#queue = queue
    this.#drawnAtMs = host.clock.monotonicMs()
    this.order = Math.floor(this.#drawnAtMs * 1_000)
    this.nonce = `${tagOf(facts.requestId)}${host.nonce(12)}`
    this.#line = { ...facts, state: 'queued', since: host.clock.wallMs() }
  }

  /** From now on others see it; who never has to wait need not be seen waiting. */
  show(): void {
    if (!this.#name && !this.#removed) this.#put()
  }

  get key(): string {
    return this.#line.key
  }

  /** Where it is now; undefined when it could not be put there, or has been removed. */
  get path(): string | undefined {
    return this.#name && !this.#removed ? `${this.#queue}/${this.#name}` : undefined
  }

  get state(): CardState {
    return this.#line.state
  }

  /** Others see the new state and all that is said with it, or the old one with all that was said before. */
  update(changes: CardChanges): void {
    if (this.#removed) return
    const before = this.#line
    const changed = changes.state !== undefined && changes.state !== before.state
    this.#line = { ...before, ...changes, since: changed ? this.#host.clock.wallMs() : before.since }
    this.#put()
    if (changed && changes.state === 'active') this.#changes.begins()
  }

  /** Call it after giving the lease back: if it was active, the next in line is woken by it. */
  remove(): void {
    if (this.#removed) return
    this.#removed = true
    if (!this.#name) return
    if (!this.#unlink(this.#name)) this.#changes.stays(`${this.#queue}/${this.#name}`)
    if (isThere(this.#host, `${this.#queue}/${markName(this.nonce)}`)) this.#unlink(markName(this.nonce))
    this.#changes.goes(this.#line.state)
  }

  /** Who wants this card's turn to stop, if anybody does. */
  interruption(): Interruption | undefined {
    const path = `${this.#queue}/${markName(this.nonce)}`
    return isThere(this.#host, path) ? interruption.safeParse(readLines(this.#host, path)[0]).data : undefined
  }

  #put(): void {
    const { identity, disk } = this.#host
    const name = heldName(this.order, holderPrefix(identity), this.#drawnAtMs, cardMs, this.#line.state, identity.host, this.nonce)
    const before = this.#name
    const text = `\n${JSON.stringify(this.#line)}\n` // On a line of its own, even after one that did not fit on the disk.
    if (before === undefined) {
      if (intoQueue(this.#host, this.#queue, () => append(this.#host, `${this.#queue}/${name}`, 'create', text))) this.#name = name
      else this.#unlink(name) // Made, perhaps, but without a word in it.
      return
    }
    quietly(() => append(this.#host, `${this.#queue}/${before}`, 'appendExisting', text))
    if (name !== before && quietly(() => disk.rename(`${this.#queue}/${before}`, `${this.#queue}/${name}`))) this.#name = name
  }

  #unlink(name: string): boolean {
    return quietly(() => this.#host.disk.unlink(`${this.#queue}/${name}`))
  }
}

/** Makes something in a queue that may not be there yet, or be removed just now. False when the disk would not have it. */
export function intoQueue(host: Host, queue: string, work: () => void): boolean {
  for (let tries = 0; tries < triesMax; tries++) {
    try {
      work()
      return true
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      if (errnoOf(error) !== 'ENOENT' || !quietly(() => makeDirectories(host.disk, queue))) return false
    }
  }
  return false
}

/** Appears whole. False when the disk would not have it. */
export function putMark(host: Host, queue: string, card: string, mark: Interruption): boolean {
  const made = `${queue}/${makerName(host.identity, host.nonce(12))}`
  return quietly(() => {
    append(host, made, 'create', JSON.stringify(mark))
    host.disk.rename(made, `${queue}/${markName(card)}`)
  })
}

/** It stays while anything is in it. */
export function removeQueue(host: Host, queue: string): void {
  quietly(() => host.disk.rmdir(queue))
}

export function isThere(host: Host, path: string): boolean {
  let there = false
  quietly(() => {
    there = host.disk.stat(path) !== undefined
  })
  return there
}

/** False when the system refused. */
export function quietly(work: () => void): boolean {
  try {
    work()
    return true
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return false
  }
}
