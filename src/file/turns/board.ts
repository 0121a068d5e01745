/** Who waits for a conversation and who is active in it, as all processes can see: one small file per request, its *card*, beside the key's
 *  lease. Cards are a courtesy, like tickets: they order, show and wake, and nothing that is promised depends on one.
 *
 *      <locks>/turns/<hash of the key>.queue/<card>        JSON; the name says who and since when, so that order and life need no reading
 *      <locks>/turns/<hash of the key>.queue/<card>.stop   somebody asks its turn to stop */
import { createHash } from 'node:crypto'
import type { RequestFacts } from '../../backend.js'
import { errnoOf } from '../../errors.js'
import { makeDirectories, readFully, writeFully } from '../durable.js'
import type { Host } from '../host.js'
import { heldName, holderPrefix, parseEntry } from '../lock/holder.js'
import { type Holder, judge, type Verdict } from '../lock/staleness.js'

export interface CardFacts {
  readonly key: string
  readonly requestId: string
  readonly channelId: string | undefined
  readonly lane: string
  readonly whenBusy: string
  readonly state: 'queued' | 'active'
  readonly sessionId: string | undefined
  readonly turn: number | undefined
  /** Since when it is in this state, epoch ms. */
  readonly since: number
}

export interface SeenCard extends CardFacts {
  readonly name: string
  readonly drawn: number
  readonly holder: Holder
  readonly verdict: Verdict
}

/** A card outlives its process only until the next look; one of another machine, for a day. */
const cardMs = 86_400_000
const pollMs = 50
const cardBytesMax = 64 << 10

/** Keys never become paths. */
export function keyHash(key: string): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 32)
}

export class Board {
  #host: Host
  #path: string

  /** @param path  where the leases are */
  constructor(host: Host, path: string) {
    this.#host = host
    this.#path = path
  }

  directoryOf(key: string): string {
    return `${this.#path}/${keyHash(key)}.queue`
  }

  draw(key: string, { requestId, channelId, lane, whenBusy }: RequestFacts): Card {
    const { clock, identity } = this.#host
    const nowMs = clock.monotonicMs()
    const drawn = Math.floor(nowMs * 1000)
    const name = heldName(drawn, holderPrefix(identity), nowMs, cardMs, 'turn', identity.host, this.#host.nonce(12))
    const facts: CardFacts = {
      key,
      requestId,
      channelId,
      lane,
      whenBusy,
      state: 'queued',
      sessionId: undefined,
      turn: undefined,
      since: clock.wallMs(),
    }
    return new Card(this.#host, this.directoryOf(key), name, drawn, facts)
  }

  /** The cards of a key, oldest first; of all keys when none is named. */
  list(key?: string): SeenCard[] {
    if (key !== undefined) return this.#listIn(this.directoryOf(key)).filter((card) => card.key === key)
    return this.#names(this.#path)
      .filter((name) => name.endsWith('.queue'))
      .flatMap((name) => this.#listIn(`${this.#path}/${name}`))
      .sort(byAge)
  }

  /** Of a lease by its name: how many who live wait for it, and whose conversation it is when a card says so. */
  about(name: string): { waiting: number; key?: string } {
    const cards = this.#listIn(`${this.#path}/${name}.queue`)
    const waiting = cards.filter(({ state, verdict }) => state === 'queued' && verdict.kind !== 'dead').length
    return cards[0] ? { waiting, key: cards[0].key } : { waiting }
  }

  /** How many who live stand before it. */
  ahead(card: Card): number {
    return this.#holders(this.directoryOf(card.facts.key)).filter(
      ({ drawn, name, verdict }) => isBefore(drawn, name, card) && verdict.kind !== 'dead',
    ).length
  }

  /** A card of the request whose process lives, other than this one. */
  find(key: string, requestId: string, except?: string): SeenCard | undefined {
    return this.list(key).find((card) => card.requestId === requestId && card.name !== except && card.verdict.kind !== 'dead')
  }

  /** Leaves word for the active turn of the key. False when there is none. */
  requestInterrupt(key: string, by: string): boolean {
    const active = this.list(key).find(({ state, verdict }) => state === 'active' && verdict.kind !== 'dead')
    if (!active) return false
    return put(this.#host, `${this.directoryOf(key)}/${active.name}.stop`, Buffer.from(JSON.stringify({ by: by.slice(0, 500) })))
  }

  /** Takes away what processes have left that are no more. Whoever has the key's lease may. */
  removeDead(key: string): void {
    const directory = this.directoryOf(key)
    for (const { name, verdict } of this.#holders(directory)) if (verdict.kind === 'dead') removeCard(this.#host, directory, name)
  }

  #holders(directory: string): { name: string; drawn: number; holder: Holder; verdict: Verdict }[] {
    const { identity, clock } = this.#host
    const probed = new Map<number, ReturnType<Host['probe']>>()
    const probe = (pid: number) => {
      const known = probed.get(pid) ?? this.#host.probe(pid)
      probed.set(pid, known)
      return known
    }
    const nowMs = clock.monotonicMs()
    return this.#names(directory)
      .flatMap((name) => {
        const entry = parseEntry(name)
        if (entry?.state !== 'held') return []
        const { holder } = entry
        return [{ name, drawn: entry.n, holder, verdict: judge(holder, { observer: identity, nowMs, firstSeenAtMs: nowMs, probe }) }]
      })
      .sort(byAge)
  }

  #listIn(directory: string): SeenCard[] {
    return this.#holders(directory).flatMap((seen) => {
      const facts = readFacts(this.#host, `${directory}/${seen.name}`)
      return facts ? [{ ...facts, ...seen }] : []
    })
  }

  #names(directory: string): string[] {
    const { disk } = this.#host
    try {
      return disk.stat(directory) ? disk.readdir(directory) : []
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return []
    }
  }
}

function byAge(a: Pick<SeenCard, 'drawn' | 'name'>, b: Pick<SeenCard, 'drawn' | 'name'>): number {
  return a.drawn - b.drawn || (a.name < b.name ? -1 : 1)
}

function isBefore(drawn: number, name: string, card: Card): boolean {
  return drawn < card.drawn || (drawn === card.drawn && name < card.name)
}

export class Card {
  readonly name: string
  readonly drawn: number
  facts: CardFacts
  #host: Host
  #directory: string
  #written = false

  constructor(host: Host, directory: string, name: string, drawn: number, facts: CardFacts) {
    this.#host = host
    this.#directory = directory
    this.name = name
    this.drawn = drawn
    this.facts = facts
    this.#write()
  }

  update(change: Partial<Pick<CardFacts, 'state' | 'sessionId' | 'turn' | 'requestId'>>): void {
    this.facts = { ...this.facts, ...change, since: this.#host.clock.wallMs() }
    this.#write()
  }

  remove(): void {
    if (!this.#written) return
    this.#written = false
    removeCard(this.#host, this.#directory, this.name)
  }

  /** Calls back when somebody asks the turn to stop; soon, not at once. Returns the way to stop listening. */
  onInterrupt(told: (by: string) => void): () => void {
    const over = new AbortController()
    const look = () => {
      if (over.signal.aborted) return
      const by = this.#takeStop()
      if (by !== undefined) told(by)
    }
    const stopWatching = this.#host.watch(this.#directory, look)
    const poll = async () => {
      while (!over.signal.aborted) {
        await this.#host.clock.sleep(pollMs, over.signal)
        look()
      }
    }
    void poll()
    return () => {
      over.abort()
      stopWatching()
    }
  }

  /** Who asks; asked once. */
  #takeStop(): string | undefined {
    const path = `${this.#directory}/${this.name}.stop`
    if (!this.#host.disk.stat(path)) return undefined
    const by = (readJson(this.#host, path) as { by?: unknown } | undefined)?.by
    remove(this.#host, path)
    return typeof by === 'string' ? by : 'somebody'
  }

  #write(): void {
    this.#written = put(this.#host, `${this.#directory}/${this.name}`, Buffer.from(JSON.stringify(this.facts)))
  }
}

/** A whole file or none, as far as readers see; not synced. False where none can be made. */
function put(host: Host, path: string, bytes: Buffer): boolean {
  const { disk } = host
  const part = `${path}.new-${host.nonce(8)}`
  const directory = path.slice(0, path.lastIndexOf('/'))
  try {
    // Whoever removes the last card removes the directory: it may go between the two.
    for (let tries = 0; ; tries++) {
      if (!disk.stat(directory)) makeDirectories(disk, directory)
      try {
        const fd = disk.open(part, 'create')
        try {
          writeFully(disk, fd, bytes)
        } finally {
          disk.close(fd)
        }
        disk.rename(part, path)
        return true
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT' || tries > 20) throw error
      }
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    remove(host, part)
    return false
  }
}

function removeCard(host: Host, directory: string, name: string): void {
  remove(host, `${directory}/${name}.stop`)
  remove(host, `${directory}/${name}`)
  try {
    host.disk.rmdir(directory)
  } catch (error) {
    // Not empty: others wait. Gone: somebody else was the last.
    if (errnoOf(error) === undefined) throw error
  }
}

function remove(host: Host, path: string): void {
  try {
    if (host.disk.stat(path)) host.disk.unlink(path)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
  }
}

function readFacts(host: Host, path: string): CardFacts | undefined {
  const facts = readJson(host, path) as CardFacts | undefined
  return typeof facts?.key === 'string' && typeof facts.requestId === 'string' ? facts : undefined
}

/** undefined for what is gone, or is no card. */
function readJson(host: Host, path: string): unknown {
  const { disk } = host
  try {
    const fd = disk.open(path, 'read')
    try {
      return JSON.parse(readFully(disk, fd, 0, cardBytesMax).toString('utf8')) as unknown
    } finally {
      disk.close(fd)
    }
  } catch (error) {
    if (errnoOf(error) === undefined && !(error instanceof SyntaxError)) throw error
    return undefined
  }
}
