/** Takes away what killed processes have left: stages, locks in the making, tickets, leases and cards of turns, half-written files. Never
 *  what may be in flight, in any process or pid namespace (F50): whose process can be asked, and is gone, goes at once; of others only what this
 *  sweeper has itself watched for an hour without its changing. What is removed by mistake nevertheless costs its owner a retry, as a lock that was
 *  taken over does: nothing here is data. */
import { errnoOf } from '../../errors.js'
import type { Inside } from '../../file/backend.js'
import type { FileStat } from '../../file/durable.js'
import type { Baton } from '../../file/lock/baton.js'
import { parseEntry } from '../../file/lock/holder.js'
import { type Holder, judge } from '../../file/lock/staleness.js'
import type { LockStatus } from '../../types.js'
import type { Unit } from '../leader/round.js'
import type { Pace } from '../pace.js'
import { type Leftover, makingOf, partOf, preparedOf, ticketOf } from './leftovers.js'

const watchedMs = 3_600_000
/** More than that is forgotten, and watched anew. */
const watchedMax = 10_000

export class Sweeper {
  #inside: Inside
  /** By path: what it looked like, and since when we have seen it so. */
  #watched = new Map<string, { readonly looks: string; readonly sinceMs: number }>()

  constructor(inside: Inside) {
    this.#inside = inside
  }

  async *run(pace: Pace): AsyncGenerator<Unit> {
    this.#inside.vital.assertWritable()
    for (const _ of this.#inside.turns.sweeping()) await pace.breathe()
    yield* this.#stages()
    const { locks, archive, quarantine } = this.#inside.places
    for (const directory of [locks, `${locks}/transcripts`]) yield* this.#leftIn(directory, makingOf, pace)
    yield* this.#leftIn(`${locks}/prepared`, preparedOf, pace)
    for (const queue of this.#queues()) yield* this.#leftIn(queue, ticketOf, pace)
    for (const directory of [archive, ...this.#list(quarantine).map((name) => `${quarantine}/${name}`)])
      yield* this.#leftIn(directory, partOf, pace)
  }

  /** What a dead holder has staged goes when its lock is taken over; so it is taken, and given back. */
  async *#stages(): AsyncGenerator<Unit> {
    for (const { baton, status } of this.#batons()) {
      if (!this.#isLeft(status)) continue
      const held = baton.tryAcquire('sweep')
      if (!held) continue
      baton.release(held)
      yield { outcome: 'freed', file: `locks/${status.lock}`, text: status.holder?.why }
    }
  }

  *#batons(): Generator<{ baton: Baton; status: LockStatus }> {
    const { metadataBaton, transcripts, places } = this.#inside
    yield { baton: metadataBaton, status: metadataBaton.status() }
    for (const name of this.#list(`${places.locks}/transcripts`)) {
      if (!/^[0-5]\d$|^6[0-3]$/.test(name)) continue
      const baton = transcripts.slots.baton(Number(name))
      yield { baton, status: baton.status() }
    }
  }

  /** One that lives and has held for too long is left to whoever needs the lock. */
  #isLeft({ state, holder, entry }: LockStatus): boolean {
    if (state !== 'held' || !holder || !entry) return false
    if (holder.verdict === 'dead') return true
    const whose = parseEntry(entry)
    return holder.verdict === 'expired' && whose?.state === 'held' && !this.#canBeAsked(whose.holder)
  }

  #canBeAsked({ boot, pidNamespace }: Holder): boolean {
    const { identity } = this.#inside.host
    return boot === identity.boot && boot !== '0' && pidNamespace === identity.pidNamespace
  }

  *#queues(): Generator<string> {
    const { locks } = this.#inside.places
    if (this.#list(locks).includes('metadata.queue')) yield `${locks}/metadata.queue`
    for (const name of this.#list(`${locks}/transcripts`)) if (/^\d\d\.queue$/.test(name)) yield `${locks}/transcripts/${name}`
  }

  async *#leftIn(directory: string, tell: (name: string) => Leftover | undefined, pace: Pace): AsyncGenerator<Unit> {
    const { store } = this.#inside.places
    for (const name of this.#list(directory)) {
      const leftover = tell(name)
      const path = `${directory}/${name}`
      if (leftover && this.#isOver(path, leftover) && this.#remove(path, leftover))
        yield { outcome: 'removed', file: path.slice(store.length + 1) }
      await pace.breathe()
    }
  }

  #isOver(path: string, leftover: Leftover): boolean {
    const { host } = this.#inside
    const stat = host.disk.stat(path)
    if (!stat) return false
    const sinceMs = this.#watchedSince(path, stat)
    const nowMs = host.clock.monotonicMs()
    if (leftover.kind === 'part') return nowMs - sinceMs > watchedMs
    // A ticket or a making has no time of its own: it is over with its process, or when it has been watched.
    const holder = { ...leftover.holder, maxHoldMs: watchedMs }
    const verdict = judge(holder, { observer: host.identity, nowMs, firstSeenAtMs: sinceMs, probe: (pid) => host.probe(pid) })
    return verdict.kind === 'dead' || (verdict.kind === 'expired' && !this.#canBeAsked(holder))
  }

  #watchedSince(path: string, { ino, size, ctimeMs }: FileStat): number {
    const looks = `${ino} ${size} ${ctimeMs}`
    const known = this.#watched.get(path)
    if (known?.looks === looks) return known.sinceMs
    const sinceMs = this.#inside.host.clock.monotonicMs()
    this.#watched.set(path, { looks, sinceMs })
    for (const oldest of this.#watched.keys()) if (this.#watched.size > watchedMax) this.#watched.delete(oldest)
    return sinceMs
  }

  /** By its exact name. False when it is gone, or not to be removed: another time. */
  #remove(path: string, { kind }: Leftover): boolean {
    const { disk } = this.#inside.host
    try {
      if (kind !== 'making') disk.unlink(path)
      else {
        for (const name of disk.readdir(path)) disk.rmdir(`${path}/${name}`)
        disk.rmdir(path)
      }
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return false
    }
    this.#watched.delete(path)
    return true
  }

  #list(directory: string): string[] {
    const { disk } = this.#inside.host
    try {
      return disk.stat(directory)?.kind === 'directory' ? disk.readdir(directory) : []
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw error
    }
  }
}
