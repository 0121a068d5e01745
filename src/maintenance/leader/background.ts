/** Maintenance for as long as a store is open: waits for the lead, does a round now and then while it has it, and stops between two units when
 *  it is told to. It keeps no process alive. */
import type { Host } from '../../file/host.js'
import type { MaintenanceEvent } from '../../upkeep.js'
import type { Lead } from './lead.js'

export interface BackgroundTools {
  readonly host: Host
  readonly lead: Lead
  /** @param signal  aborts when it is to stop */
  round(signal: AbortSignal): Promise<void>
  tell(event: MaintenanceEvent): void
  /** It cannot be of use any more: a sync has failed. */
  over(): boolean
}

export interface Timing {
  readonly everyMs: number
  /** 0 to 1. */
  readonly jitter: number
  readonly leaseMs: number
}

export class Background {
  #tools: BackgroundTools
  #timing: Timing
  #stop = new AbortController()
  #ended: Promise<void>

  constructor(tools: BackgroundTools, timing: Timing) {
    this.#tools = tools
    this.#timing = timing
    this.#ended = this.#run()
  }

  /** Resolves when nothing of it goes on any more, and the lead has been given back. */
  async stop(): Promise<void> {
    this.#stop.abort(null)
    await this.#ended
  }

  get #over(): boolean {
    return this.#stop.signal.aborted || this.#tools.over()
  }

  async #run(): Promise<void> {
    const { lead, tell } = this.#tools
    // Others may be opening the store at the same moment.
    await this.#rest(this.#timing.everyMs * this.#timing.jitter * this.#random())
    while (!this.#over) {
      try {
        const { taken, by } = await lead.take()
        if (taken) {
          tell({ event: 'leader', outcome: 'took' })
          await this.#leadOn()
        } else tell({ event: 'leader', outcome: 'busy', text: by })
      } catch (error) {
        tell({ event: 'leader', outcome: 'failed', error, text: String(error) })
      }
      await this.#rest(Math.min(this.#timing.everyMs, this.#timing.leaseMs / 2) * (0.5 + this.#random()))
    }
    try {
      if (await lead.release()) tell({ event: 'leader', outcome: 'gave' })
    } catch (error) {
      // It is found dead, or expires; nobody waits for it.
      tell({ event: 'leader', outcome: 'failed', error, text: String(error) })
    }
  }

  /** Round after round, until the lead is lost. */
  async #leadOn(): Promise<void> {
    const { lead, round } = this.#tools
    const { everyMs, jitter } = this.#timing
    while (!this.#over && lead.stands()) {
      await round(this.#stop.signal)
      for (let leftMs = everyMs * (1 + jitter * (this.#random() - 0.5)); leftMs > 0 && !this.#over; leftMs -= lead.progressEveryMs) {
        lead.progress()
        await this.#rest(Math.min(leftMs, lead.progressEveryMs))
      }
      lead.progress()
    }
  }

  #random(): number {
    return Number.parseInt(this.#tools.host.nonce(8), 16) / 0x1_0000_0000
  }

  #rest(ms: number): Promise<void> {
    return rest(this.#tools.host, ms, this.#stop.signal)
  }
}

/** Waits without keeping the process alive for it. */
export function rest({ later, clock }: Host, ms: number, signal: AbortSignal | undefined): Promise<void> {
  if (!later) return clock.sleep(ms, signal)
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve()
    const over = () => {
      callOff()
      signal?.removeEventListener('abort', over)
      resolve()
    }
    const callOff = later(Math.ceil(ms), over)
    signal?.addEventListener('abort', over, { once: true })
  })
}
