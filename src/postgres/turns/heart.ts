/** Signs of life of this process, for as long as it has a lease or a place in line: one statement now and then for all of them. What it answers
 *  says which leases still stand, and who wants a turn to stop. */
import { hostname } from 'node:os'
import { uuidv7 } from 'uuidv7'
import { StoreError } from '../../errors.js'
import type { Database } from '../database.js'

export interface HeartTools {
  readonly database: Database
  readonly schema: string
  readonly leaseMs: number
}

/** A lease, as the heart sees it. */
export interface Beating {
  readonly key: string
  readonly token: number
  readonly maxTurnMs: number
  /** Progress that the database has not been told of. */
  progressed: boolean
  lost(reason: StoreError): void
  interruptedBy(interruption: { readonly by: string; readonly at: number } | undefined): void
  /** Called often: whether it has gone without progress for too long. */
  look(): void
}

const beatMsMax = 400
const beatMsMin = 20

export class Heart {
  readonly id = uuidv7()
  readonly #tools: HeartTools
  readonly #leases = new Set<Beating>()
  #places = 0
  #timer: NodeJS.Timeout | undefined
  #beating: Promise<void> | undefined
  #confirmedAtMs = 0
  #stopped = false

  constructor(tools: HeartTools) {
    this.#tools = tools
  }

  /** Of this process, as every function takes them that keeps it alive. */
  get facts(): readonly unknown[] {
    return [this.id, hostname(), process.pid, this.#tools.leaseMs]
  }

  /** @param askedAtMs  when the database was asked for it: it counts from then on. */
  add(lease: Beating, askedAtMs: number): void {
    this.#leases.add(lease)
    this.confirmed(askedAtMs)
    this.#schedule()
  }

  remove(lease: Beating): void {
    this.#leases.delete(lease)
  }

  addPlace(): void {
    this.#places++
    this.#schedule()
  }

  removePlace(): void {
    this.#places--
  }

  /** The database has heard of this process. */
  confirmed(askedAtMs: number): void {
    this.#confirmedAtMs = Math.max(this.#confirmedAtMs, askedAtMs)
  }

  /** Whether others may count this process as dead by now. */
  get overdue(): boolean {
    return performance.now() - this.#confirmedAtMs > this.#tools.leaseMs
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#beating
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#stopped || (this.#leases.size === 0 && this.#places === 0)) return
    const shortest = Math.min(this.#tools.leaseMs, ...[...this.#leases].map(({ maxTurnMs }) => maxTurnMs))
    this.#timer = setTimeout(
      () => {
        this.#beating = this.#beat().finally(() => {
          this.#timer = undefined
          this.#schedule()
        })
      },
      Math.max(beatMsMin, Math.min(beatMsMax, shortest / 4)),
    )
    this.#timer.unref()
  }

  async #beat(): Promise<void> {
    const { database, schema, leaseMs } = this.#tools
    const leases = [...this.#leases]
    for (const lease of leases) lease.look()
    const made = leases.map((lease) => {
      const { progressed } = lease
      lease.progressed = false
      return progressed
    })
    const askedAtMs = performance.now()
    try {
      const rows = await database.write(
        `select * from ${schema}.beat($1, $2, $3, $4, $5, $6, $7)`,
        [...this.facts, leases.map(({ key }) => key), leases.map(({ token }) => token), made],
        { doing: 'keeping turns alive', waitMs: leaseMs / 2 },
      )
      this.confirmed(askedAtMs)
      const standing = new Map(rows.map((row) => [Number(row.token), row]))
      for (const lease of leases) {
        const row = standing.get(lease.token)
        if (!this.#leases.has(lease)) continue
        if (!row) this.#lose(lease, 'it was taken over')
        else lease.interruptedBy(row.interrupt_by === null ? undefined : { by: row.interrupt_by as string, at: Number(row.interrupt_at) })
      }
    } catch (error) {
      for (const [at, lease] of leases.entries()) lease.progressed ||= made[at]!
      if (this.overdue) for (const lease of leases) this.#lose(lease, 'the database has not answered for its time', error)
    }
  }

  #lose(lease: Beating, why: string, cause?: unknown): void {
    if (!this.#leases.delete(lease)) return
    const { key, token } = lease
    lease.lost(
      new StoreError('TURN_LOST', `the lease of ${JSON.stringify(key)} is lost: ${why}.`, {
        details: { key, token, why },
        cause,
        hint: 'What the turn has appended stands, and nothing more will be added. Stop working on it.',
      }),
    )
  }
}
