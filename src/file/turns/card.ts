/** A card says that somebody waits for a turn, or has it: a small JSON file in the queue of its key. Its name says the order, whose it is and
 *  in which state, as a lock's entry does; so the line, and who of it lives, is known from a listing.
 *
 *      <queue>/held.<order>.<holder, with the state as what it does>.<tag><nonce>    tag: of the request id, so that one is found unopened
 *      <queue>/interrupt.<tag><nonce>                                                 somebody wants that card's turn to stop
 *
 *  draw     write <tmp>, rename(<tmp>, <queued>)                       it appears whole
 *  update   write <tmp>, rename(<tmp>, <active>), unlink(<queued>)     crash between: both, of one nonce; the later state counts
 *  remove   unlink; rmdir of the queue, which fails while others stand in it
 *
 *  Each waiter watches its own card, and only that: were it the queue, every change of anybody's card would wake all who wait (eight
 *  processes spent ten times as long waking as working). Whoever gives the turn back writes a line end to the next card.
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

const content = z.object({
  key: z.string(),
  requestId: z.string(),
  channelId: z.string().optional(),
  lane: z.string(),
  whenBusy: z.enum(['queue', 'reject', 'coalesce', 'interrupt']),
  sessionId: z.string().optional(),
  turn: z.number().optional(),
  since: z.number(),
})

export type CardContent = z.infer<typeof content>

const interruption = z.object({ by: z.string(), since: z.number() })

/** For ever: a card goes with its process or by its owner's hand, not by time. */
const cardMs = 1_000_000_000_000
const contentBytesMax = 1 << 16
/** A queue that is removed while a card is put into it is made again. */
const triesMax = 20

/** What a card's nonce begins with. */
export function tagOf(requestId: string): string {
  return crc32(requestId).toString(16).padStart(8, '0')
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

export function readContent(host: Host, path: string): CardContent | undefined {
  return content.safeParse(readJson(host, path)).data
}

function readJson(host: Host, path: string): unknown {
  const { disk } = host
  try {
    const fd = disk.open(path, 'read')
    try {
      return JSON.parse(readFully(disk, fd, 0, Math.min(disk.fstat(fd).size, contentBytesMax)).toString('utf8'))
    } finally {
      disk.close(fd)
    }
  } catch (error) {
    if (errnoOf(error) === undefined && !(error instanceof SyntaxError)) throw error
    return undefined // Gone meanwhile, or nothing that we have written.
  }
}

export interface CardEvents {
  /** It has become active. */
  begins(): void
  /** It was active, and has been removed. */
  ends(): void
}

/** Wakes whoever watches this card: the system tells of a change. One more line end does not change what the card says. */
export function nudge(host: Host, path: string): void {
  quietly(() => {
    const fd = host.disk.open(path, 'appendExisting')
    try {
      host.disk.write(fd, Buffer.from('\n'))
    } finally {
      host.disk.close(fd)
    }
  })
}

export class Card {
  readonly order: number
  readonly nonce: string
  #host: Host
  #queue: string
  #drawnAtMs: number
  #content: CardContent
  #state: CardState = 'queued'
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
    this.#content = { ...facts, since: host.clock.wallMs() }
    this.#put()
  }

  get key(): string {
    return this.#content.key
  }

  /** Where it is now; undefined when it could not be put there, or has been removed. */
  get path(): string | undefined {
    return this.#name && !this.#removed ? `${this.#queue}/${this.#name}` : undefined
  }

  get state(): CardState {
    return this.#state
  }

  /** Others see the new state and all that is said with it, or the old one with all that was said before. */
  update({ state = this.#state, ...changes }: CardChanges): void {
    if (this.#removed) return
    const changed = state !== this.#state
    const since = changed ? this.#host.clock.wallMs() : this.#content.since
    this.#content = { ...this.#content, ...changes, since }
    this.#state = state
    this.#put()
    if (changed && state === 'active') this.#changes.begins()
  }

  /** Call it after giving the lease back: if it was active, the next in line is woken by it. */
  remove(): void {
    if (this.#removed) return
    this.#removed = true
    if (this.#name) this.#unlink(this.#name)
    this.#unlink(markName(this.nonce))
    if (this.#state === 'active') this.#changes.ends()
    removeQueue(this.#host, this.#queue)
  }

  /** Who wants this card's turn to stop, if anybody does. */
  interruption(): Interruption | undefined {
    const path = `${this.#queue}/${markName(this.nonce)}`
    return isThere(this.#host, path) ? interruption.safeParse(readJson(this.#host, path)).data : undefined
  }

  #put(): void {
    const { identity } = this.#host
    const before = this.#name
    const name = heldName(this.order, holderPrefix(identity), this.#drawnAtMs, cardMs, this.#state, identity.host, this.nonce)
    const put = putFile(this.#host, this.#queue, name, this.#content)
    // On a full disk at least the state, which is in the name.
    if (!put && (before === undefined || !quietly(() => this.#host.disk.rename(`${this.#queue}/${before}`, `${this.#queue}/${name}`))))
      return
    this.#name = name
    if (put && before !== undefined && before !== name) this.#unlink(before)
  }

  #unlink(name: string): void {
    quietly(() => this.#host.disk.unlink(`${this.#queue}/${name}`))
  }
}

/** A file that appears whole. False when the disk would not have it. */
export function putFile(host: Host, queue: string, name: string, value: unknown): boolean {
  const { disk, identity } = host
  const made = `${queue}/${makerName(identity, host.nonce(12))}`
  const bytes = Buffer.from(JSON.stringify(value))
  for (let tries = 0; tries < triesMax; tries++) {
    try {
      const fd = disk.open(made, 'create')
      try {
        writeFully(disk, fd, bytes)
      } finally {
        disk.close(fd)
      }
      disk.rename(made, `${queue}/${name}`)
      return true
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      quietly(() => disk.unlink(made))
      // No queue yet, or it was just removed with its last card.
      if (errnoOf(error) !== 'ENOENT' || !quietly(() => makeDirectories(disk, queue))) return false
    }
  }
  return false
}

/** With its last card; it stays while anything is in it. */
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
