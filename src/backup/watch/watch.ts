/** `watchBackups`: a backup every so often, for as long as the process lives. A target that does not answer costs a backup, never the watch;
 *  what it finds goes to the status file, which is replaced whole. */
import { type Clock, systemClock } from '../../clock.js'
import { isStoreError } from '../../errors.js'
import type { Repository } from '../repository/repository.js'
import { type BackupOptions, type BackupReport, createBackup } from '../snapshot/backup.js'
import { readStatus, type WatchStatus, writeStatus } from './status.js'

export interface WatchOptions extends Omit<BackupOptions, 'repository' | 'to' | 'encryption' | 'onCreated' | 'accept'> {
  /** Opens the repository for each backup anew: it may have been away. */
  readonly open: (signal: AbortSignal | undefined) => Promise<Repository>
  /** What the target is called in the status. */
  readonly target: string
  /** 1,000 to 2,592,000,000 ms. */
  readonly everyMs: number
  /** Each backup begins at its time or up to this share of the interval later, so that machines do not all come at once. Default 0.05. */
  readonly jitter?: number | undefined
  /** Where to write the status. */
  readonly status?: string | undefined
  /** Called after each try. */
  readonly onBackup?: ((outcome: BackupReport | Error) => void) | undefined
  /** Runs after each backup, on the open repository: forget and prune, for example. Its error is told like one of the backup. */
  readonly afterwards?: ((repository: Repository) => Promise<void>) | undefined
  /** Ends after so many backups; for tests and for `--once`. */
  readonly backupsMax?: number | undefined
  readonly random?: (() => number) | undefined
}

const retryMsMin = 5_000

/** Resolves when the signal has aborted, after the backup under way has come to its end, and when `backupsMax` have been tried. */
export async function watchBackups(options: WatchOptions): Promise<void> {
  await new Watch(options).run()
}

class Watch {
  #options: WatchOptions
  #clock: Clock
  #status: WatchStatus

  constructor(options: WatchOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    const now = this.#clock.wallMs()
    const { store, target, everyMs } = options
    const own = { version: 1 as const, store, target, everyMs, pid: process.pid, startedAt: now, updatedAt: now, state: 'waiting' as const }
    this.#status = { ...own, ...earlier(options) }
  }

  async run(): Promise<void> {
    const { signal, everyMs, jitter = 0.05, random = Math.random, backupsMax = Number.POSITIVE_INFINITY } = this.#options
    for (let n = 1; !signal?.aborted; n++) {
      const beganMs = this.#clock.monotonicMs()
      await this.#once()
      if (n >= backupsMax || signal?.aborted) break
      const failures = this.#status.failure?.times ?? 0
      // After a failure sooner, but less and less soon: an outage must not cost the whole interval, nor be hammered at.
      const pauseMs = failures > 0 ? Math.min(everyMs, retryMsMin * 2 ** Math.min(failures - 1, 16)) : everyMs
      const waitMs = Math.max(0, beganMs + pauseMs - this.#clock.monotonicMs()) + random() * jitter * pauseMs
      await this.#tell({ state: 'waiting', nextAt: Math.round(this.#clock.wallMs() + waitMs) })
      await this.#clock.sleep(waitMs, signal)
    }
    await this.#tell({ state: 'stopped', nextAt: undefined })
  }

  async #once(): Promise<void> {
    const { open, onBackup, afterwards, signal } = this.#options
    await this.#tell({ state: 'backing-up', nextAt: undefined, lastTriedAt: this.#clock.wallMs() })
    let repository: Repository | undefined
    try {
      repository = await open(signal)
      const report = await createBackup({ ...this.#options, repository })
      await this.#took(report)
      onBackup?.(report)
      await afterwards?.(repository)
    } catch (error) {
      if (signal?.aborted) return
      await this.#failed(error as Error)
      onBackup?.(error as Error)
    } finally {
      await repository?.close().catch(() => {}) // Nothing is held in it that is not on the target.
    }
  }

  async #took({ snapshot }: BackupReport): Promise<void> {
    const { id, time, damaged, findings } = snapshot
    const last = { id, at: time, damaged, findings: findings.slice(0, 50) }
    await this.#tell({ last, ...(!damaged && { lastGood: { id, at: time } }), failure: undefined })
  }

  async #failed(error: Error): Promise<void> {
    const times = (this.#status.failure?.times ?? 0) + 1
    const code = isStoreError(error) ? error.code : error.name
    await this.#tell({ failure: { at: this.#clock.wallMs(), times, code, message: error.message } })
  }

  async #tell(news: Partial<WatchStatus>): Promise<void> {
    this.#status = { ...this.#status, ...news, updatedAt: this.#clock.wallMs() }
    const { status, onBackup } = this.#options
    if (status === undefined) return
    try {
      await writeStatus(status, this.#status)
    } catch (error) {
      // A full disk here is no reason to go without backups elsewhere.
      onBackup?.(error as Error)
    }
  }
}

/** What the watch before this one knew of the same store. */
function earlier({ status, store }: WatchOptions): Pick<WatchStatus, 'last' | 'lastGood'> {
  if (status === undefined) return {}
  try {
    const { last, lastGood, store: of } = readStatus(status)
    return of === store ? { ...(last && { last }), ...(lastGood && { lastGood }) } : {}
  } catch {
    return {} // None, or none that can be read: the first backup will tell.
  }
}
