/** Who waits for a turn and who has one, across processes: cards (card.ts) in one queue per key, beside the key's lease.
 *
 *      <directory>/<name of the key>          the lease (lock/lease.ts)
 *      <directory>/<name of the key>.queue/   its cards; removed when it has been empty for a while
 *
 *  The board advises; it decides nothing. Who has the turn says the lease, what was said says the log. Cards of the dead are taken away by
 *  whoever comes across them; that of a turn stays, as interrupted, until the next turn of the key begins. */
import { createHash } from 'node:crypto'
import { errnoOf, ioError, isStoreError } from '../../errors.js'
import type { TurnStatus, WhenBusy } from '../../types.js'
import type { Host } from '../host.js'
import { Idle } from '../idle.js'
import { parseMaker } from '../lock/holder.js'
import { type HeldEntry, judgeAtOnce } from '../lock/observer.js'
import type { Holder, Verdict } from '../lock/staleness.js'
import {
  Card,
  type CardFacts,
  isMark,
  isThere,
  markName,
  nudge,
  parseCard,
  putMark,
  quietly,
  readCard,
  removeQueue,
  tagLength,
  tagOf,
} from './card.js'

export type { Card, CardChanges, CardFacts, CardState, Interruption } from './card.js'

export interface CardStatus extends TurnStatus {
  readonly whenBusy: WhenBusy
}

/** How long those behind leave a free lease to each process before them. */
const politenessMs = 50
const pollMsDefault = 50
const idleMsDefault = 2_000
const queuePattern = /^([0-9a-f]{32})\.queue$/

/** The name of a key's lease and queue. A key itself never becomes a path. */
export function leaseNameOf(key: string): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 32)
}

interface Seen {
  readonly entry: HeldEntry
  readonly verdict: Verdict
}

export class Board {
  #host: Host
  #directory: string
  #idle: Idle
  /** Cards of ours that could not be removed: everybody would go on to see somebody waiting who is not. */
  #stuck = new Set<string>()

  /** @param idleMs  how long an empty queue is left */
  constructor(host: Host, directory: string, idleMs = idleMsDefault) {
    this.#host = host
    this.#directory = directory
    this.#idle = new Idle(host, idleMs, (queue) => {
      this.#removeStuck()
      removeQueue(host, queue)
    })
  }

  /** Puts up a card at the end of the key's line. Never fails: a card that cannot be written is only not seen.
   *  @param shown  else its place is taken now, and it is seen from `show()` or its first update on */
  draw(facts: CardFacts, shown = true): Card {
    const queue = this.#queueOf(facts.key)
    const card = new Card(this.#host, queue, facts, {
      begins: () => this.#tidy(queue, this.#glance(queue)),
      goes: (from) => {
        if (from === 'active') this.#wakeNext(queue)
        this.#idle.add(queue)
      },
      stays: (path) => this.#stuck.add(path),
    })
    this.#removeStuck()
    if (shown) card.show()
    return card
  }

  /** How many living wait before this card, of all processes. */
  ahead(card: Card): number {
    return this.#before(card).length
  }

  /** Whether it is this card's turn to try the lease, that has been seen free for so long. The oldest may at once; those behind leave some time
   *  to each process before them. So one that is frozen at the head of the line delays the others, and stops nobody. */
  mayTry(card: Card, freeForMs: number): boolean {
    const before = this.#before(card)
    if (before.length === 0) return true
    const processes = new Set(before.map(({ entry }) => processOf(entry.holder)))
    return freeForMs > politenessMs * processes.size
  }

  /** Looks, and changes nothing. Those of one key in order: active, then waiting, then interrupted. Without a key all of them. */
  list(key?: string): CardStatus[] {
    if (key !== undefined) return this.#statuses(this.#queueOf(key))
    return this.#queues().flatMap((queue) => this.#statuses(queue))
  }

  /** Of a lease by its name: how many living wait for it, and whose conversation it is, when a card says so. */
  about(name: string): { readonly waiting: number; readonly key?: string } {
    const cards = this.#statuses(`${this.#directory}/${name}.queue`)
    const waiting = cards.filter(({ state }) => state === 'queued').length
    return cards[0] ? { waiting, key: cards[0].key } : { waiting }
  }

  /** A living card of that request, the active one first. */
  find(key: string, requestId: string): CardStatus | undefined {
    return this.#statuses(this.#queueOf(key), tagOf(requestId)).find((card) => card.requestId === requestId && card.state !== 'interrupted')
  }

  /** One look at the line: whether somebody alive waits there with that request. */
  waiting(key: string): (requestId: string) => boolean {
    const living = this.#glance(this.#queueOf(key)).filter(
      ({ entry, verdict }) => entry.holder.does === 'queued' && verdict.kind !== 'dead',
    )
    const tags = new Set(living.map(({ entry }) => entry.holder.nonce.slice(0, tagLength)))
    return (requestId) => tags.has(tagOf(requestId))
  }

  /** Leaves a mark for the active turn of that key; its owner sees it in `card.interruption()`. False when none is active. */
  requestInterrupt(key: string, by: string): boolean {
    const queue = this.#queueOf(key)
    let marked = false
    for (const { entry, verdict } of this.#look(queue)) {
      if (entry.holder.does !== 'active' || verdict.kind === 'dead') continue
      const mark = markName(entry.holder.nonce)
      if (!putMark(this.#host, queue, entry.holder.nonce, { by, since: this.#host.clock.wallMs() })) continue
      // A card goes before its mark: what its owner has not seen to remove, is seen here.
      if (isThere(this.#host, `${queue}/${entry.name}`)) {
        nudge(this.#host, `${queue}/${entry.name}`)
        marked = true
      } else this.#removeMark(queue, mark)
    }
    return marked
  }

  /** Calls back when it may be this card's turn, or somebody may want it to stop: at each hint of the system, and every `pollMs` at least,
   *  since hints come late or never. Returns the way to stop it. */
  watchCard(card: Card, changed: () => void, pollMs = pollMsDefault): () => void {
    return this.#watch(card.path, changed, pollMs)
  }

  /** The same without the system's hints: cheap to begin and to stop, and late by up to `pollMs`. */
  pollCard(changed: () => void, pollMs = pollMsDefault): () => void {
    return this.#watch(undefined, changed, pollMs)
  }

  /** The same for everything that happens in the key's queue: for one who wants to know what others do, not for many who wait. */
  watch(key: string, changed: () => void, pollMs = pollMsDefault): () => void {
    return this.#watch(this.#queueOf(key), changed, pollMs)
  }

  /** Removes the queues that this handle has left empty. Cards that stand are not touched. */
  close(): void {
    this.#removeStuck()
    this.#idle.removeAll()
  }

  /** Takes away what the dead have left, those of turns included. Anybody may do it at any time. */
  sweep(): void {
    for (const _ of this.sweeping());
  }

  /** The same, with a halt after each queue. */
  *sweeping(): Generator<void> {
    for (const queue of this.#queues()) {
      this.#tidy(queue, this.#look(queue))
      this.#sweepStrays(queue)
      removeQueue(this.#host, queue)
      yield
    }
  }

  #watch(path: string | undefined, changed: () => void, pollMs: number): () => void {
    const over = new AbortController()
    const hinted = () => {
      if (!over.signal.aborted) changed()
    }
    const unwatch = path === undefined ? () => {} : this.#host.watch(path, hinted)
    void this.#poll(changed, pollMs, over.signal)
    return () => {
      over.abort(null)
      unwatch()
    }
  }

  #wakeNext(queue: string): void {
    const next = this.#glance(queue).find(({ entry, verdict }) => entry.holder.does === 'queued' && verdict.kind !== 'dead')
    if (next) nudge(this.#host, `${queue}/${next.entry.name}`)
  }

  async #poll(changed: () => void, pollMs: number, over: AbortSignal): Promise<void> {
    for (;;) {
      await this.#host.clock.sleep(pollMs, over)
      if (over.aborted) return
      changed()
    }
  }

  // — looking —

  /** Each card once, oldest first: a listing that is made during a rename may show both names. */
  #look(queue: string): Seen[] {
    const judge = judgeAtOnce(this.#host)
    const cards = new Map<string, HeldEntry>()
    for (const name of this.#names(queue)) {
      const entry = parseCard(name)
      if (entry && (entry.holder.does === 'active' || !cards.has(entry.holder.nonce))) cards.set(entry.holder.nonce, entry)
    }
    return [...cards.values()].sort(inOrder).map((entry) => ({ entry, verdict: judge(entry.holder) }))
  }

  /** For what is only courtesy: a queue that cannot be read counts as empty. */
  #glance(queue: string): Seen[] {
    try {
      return this.#look(queue)
    } catch (error) {
      if (!isStoreError(error)) throw error
      return []
    }
  }

  #before(card: Card): Seen[] {
    const queue = this.#queueOf(card.key)
    const waiting = this.#glance(queue).filter(({ entry }) => entry.holder.does === 'queued' && entry.holder.nonce !== card.nonce)
    const dead = this.#tidy(queue, waiting)
    return waiting.filter(
      (seen) => !dead.has(seen) && (seen.entry.n < card.order || (seen.entry.n === card.order && seen.entry.holder.nonce < card.nonce)),
    )
  }

  #statuses(queue: string, tag = ''): CardStatus[] {
    const nowMs = this.#host.clock.wallMs()
    const [active, waiting, interrupted]: CardStatus[][] = [[], [], []]
    let position = 0
    for (const { entry, verdict } of this.#look(queue)) {
      const { does, pid, host, nonce } = entry.holder
      const dead = verdict.kind === 'dead'
      if (does === 'queued' && dead) continue
      if (does === 'queued') position++
      if (!nonce.startsWith(tag)) continue
      const content = readCard(this.#host, `${queue}/${entry.name}`, does === 'active' ? 'active' : 'queued')
      if (!content) continue
      const rest = {
        ...content,
        sessionId: content.sessionId,
        turn: content.turn,
        channelId: content.channelId,
        ageMs: Math.max(0, nowMs - content.since),
      }
      const holder = { pid, host, verdict: verdict.kind, why: verdict.why }
      if (does === 'queued') waiting!.push({ ...rest, state: 'queued', position, holder })
      else if (dead) interrupted!.push({ ...rest, state: 'interrupted', position: undefined, holder })
      else active!.push({ ...rest, state: 'active', position: 0, holder })
    }
    return [...active!, ...waiting!, ...interrupted!]
  }

  // — tidying —

  /** Removes the cards of the dead; returns which those were. */
  #tidy(queue: string, cards: readonly Seen[]): Set<Seen> {
    const dead = new Set(cards.filter(({ verdict }) => verdict.kind === 'dead'))
    for (const { entry } of dead) {
      quietly(() => this.#host.disk.unlink(`${queue}/${entry.name}`))
      quietly(() => this.#host.disk.unlink(`${queue}/${markName(entry.holder.nonce)}`))
    }
    return dead
  }

  /** Marks without a card, and files that were just being made by somebody dead. */
  #sweepStrays(queue: string): void {
    const judge = judgeAtOnce(this.#host)
    // Twice: one that is just being renamed may be missing from a listing.
    const cards = new Set([...this.#look(queue), ...this.#look(queue)].map(({ entry }) => markName(entry.holder.nonce)))
    for (const name of this.#names(queue)) {
      const maker = parseMaker(name)
      if (maker ? judge(maker).kind === 'dead' : isMark(name) && !cards.has(name)) quietly(() => this.#host.disk.unlink(`${queue}/${name}`))
    }
  }

  /** Once more; what is not there any more is done with. */
  #removeStuck(): void {
    for (const path of this.#stuck) if (quietly(() => this.#host.disk.unlink(path)) || !isThere(this.#host, path)) this.#stuck.delete(path)
  }

  #removeMark(queue: string, mark: string): void {
    quietly(() => this.#host.disk.unlink(`${queue}/${mark}`))
    removeQueue(this.#host, queue)
  }

  #queueOf(key: string): string {
    return `${this.#directory}/${leaseNameOf(key)}.queue`
  }

  #queues(): string[] {
    return this.#names(this.#directory)
      .filter((name) => queuePattern.test(name))
      .map((name) => `${this.#directory}/${name}`)
  }

  #names(path: string): string[] {
    try {
      return this.#host.disk.readdir(path)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw ioError(error, 'reading who waits for a turn', 'none')
    }
  }
}

function inOrder(a: HeldEntry, b: HeldEntry): number {
  return a.n - b.n || (a.holder.nonce < b.holder.nonce ? -1 : 1)
}

function processOf({ boot, machine, pidNamespace, pid, startTime }: Holder): string {
  return [boot, machine, pidNamespace, pid, startTime].join('.')
}
