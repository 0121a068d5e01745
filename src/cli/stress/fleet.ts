/** Starts the writers, strikes them as planned, starts the killed ones anew, and sees to it that none is left in the end.
 *  Touches nothing on the disk under trial itself: whatever that does, this process can still say so. */
import { type ChildProcess, fork } from 'node:child_process'
import fs from 'node:fs'
import { join } from 'node:path'
import { freeze } from './ordeal.js'
import type { Fault } from './schedule.js'
import type { Counters } from './subject.js'
import type { LoadOptions, Tally } from './workload.js'
import type { FromWriter, ToWriter, WriterArgument } from './writer.js'

export interface FleetOptions extends LoadOptions {
  readonly writers: number
  readonly seconds: number
  readonly faults: readonly Fault[]
  readonly thread: boolean
  /** First writer's number; two fleets on one store must not share any. */
  readonly firstWriter: number
  /** Where the compiled writer.js is. */
  readonly programs: URL
  /** For Node, before the program. */
  readonly execArgv: readonly string[]
  /** Lock paths in the store, for somebody's `rm -rf`. */
  readonly lockPaths: readonly string[]
  readonly signal?: AbortSignal | undefined
  onProgress?(progress: Progress): void
}

export interface Struck {
  kills: number
  freezes: number
  stalls: number
  unlocks: number
}

export interface Progress extends Struck {
  readonly ranMs: number
  readonly acknowledged: number
}

export interface FleetOutcome {
  readonly struck: Struck
  /** Summed over all incarnations, as far as they could still tell. */
  readonly counters: Counters
  readonly ranMs: number
  /** What went wrong with the trial itself, or with a writer, as sentences. */
  readonly troubles: readonly string[]
}

interface Writer {
  readonly name: string
  incarnation: number
  child: ChildProcess | undefined
  running: boolean
  /** We have ordered its end. */
  condemned: boolean
  /** How often it ended without being told to. */
  failures: number
  /** What its last incarnations said, by incarnation and part. */
  readonly tallies: Map<string, Tally>
  stderr: string
}

const startMsMax = 20_000
const failuresMax = 3
const stderrCharsMax = 4_000
const progressEveryMs = 200

export class Fleet {
  readonly #options: FleetOptions
  readonly #writers: Writer[]
  readonly #struck: Struck = { kills: 0, freezes: 0, stalls: 0, unlocks: 0 }
  readonly #troubles: string[] = []
  readonly #timers: NodeJS.Timeout[] = []
  #stopping = false
  #startedAtMs = performance.now()
  /** Called whenever a writer starts to run or ends. */
  #changed = () => {}

  constructor(options: FleetOptions) {
    this.#options = options
    this.#writers = Array.from({ length: options.writers }, (_, n) => ({
      name: String(options.firstWriter + n),
      incarnation: 0,
      child: undefined,
      running: false,
      condemned: false,
      failures: 0,
      tallies: new Map(),
      stderr: '',
    }))
  }

  /** Resolves, never rejects, within the seconds of the trial plus a bounded time for starting and stopping. */
  async run(): Promise<FleetOutcome> {
    const { seconds, signal } = this.#options
    try {
      for (const writer of this.#writers) this.#start(writer)
      await this.#until(() => this.#writers.every(({ running, child }) => running || !child), startMsMax)
      this.#startedAtMs = performance.now()
      if (!signal?.aborted) this.#schedule()
      await this.#until(() => this.#writers.every(({ child }) => !child), seconds * 1_000)
    } finally {
      for (const timer of this.#timers) clearTimeout(timer)
    }
    const ranMs = performance.now() - this.#startedAtMs
    await this.#stop()
    return { struck: this.#struck, counters: this.#counters(), ranMs, troubles: this.#troubles }
  }

  #start(writer: Writer): void {
    const { programs, execArgv } = this.#options
    writer.incarnation++
    writer.running = false
    writer.condemned = false
    writer.stderr = ''
    const child = fork(new URL('writer.js', programs), [JSON.stringify(this.#argumentOf(writer))], {
      execArgv: [...execArgv],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    writer.child = child
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      writer.stderr = (writer.stderr + text).slice(-stderrCharsMax)
    })
    const { incarnation } = writer
    child.on('message', (message: FromWriter) => {
      if (message.is === 'tally') writer.tallies.set(`${incarnation} ${message.part}`, message.tally)
      else if (writer.child === child) this.#heard(writer, message)
    })
    // Of a process that could not be started there is no exit.
    child.on('error', (error) => {
      if (child.pid === undefined) this.#ended(writer, `it could not be started: ${error.message}`)
    })
    child.on('exit', (code, signal) => this.#ended(writer, signal ? `it ended by ${signal}` : `it ended with exit code ${code}`, signal))
  }

  #argumentOf({ name, incarnation }: Writer): WriterArgument {
    const { seed, subject, dir, ledgerDir, counters, sessions, loops, handles, mix, input, thread } = this.#options
    const { durability, checkpoint, maxHoldMs, waitMs } = this.#options
    const load: LoadOptions = {
      seed,
      subject,
      dir,
      ledgerDir,
      counters,
      sessions,
      loops,
      handles,
      mix,
      input,
      durability,
      checkpoint,
      maxHoldMs,
      waitMs,
    }
    return { ...load, thread, writer: name, incarnation }
  }

  #heard(writer: Writer, message: FromWriter): void {
    if (message.is === 'running') {
      writer.running = true
      this.#changed()
    } else if (message.is === 'failed') writer.stderr = message.message
    else if (message.is === 'struck' && message.order.kind !== 'kill')
      this.#struck[message.order.kind === 'freeze' ? 'freezes' : 'stalls']++
  }

  #ended(writer: Writer, how: string, signal?: NodeJS.Signals | null): void {
    if (!writer.child) return
    writer.child = undefined
    writer.running = false
    const killed = signal === 'SIGKILL' && writer.condemned
    if (killed && !this.#stopping) this.#struck.kills++
    if (!killed && !(this.#stopping && how.endsWith('code 0'))) {
      writer.failures++
      const said = writer.stderr.trim()
      this.#troubles.push(`writer ${writer.name}.${writer.incarnation}: ${how}${said ? `\n${said}` : ''}`)
    }
    if (!this.#stopping && writer.failures < failuresMax) this.#start(writer)
    this.#changed()
  }

  #schedule(): void {
    for (const fault of this.#options.faults) this.#timers.push(setTimeout(() => this.#strike(fault), fault.atMs))
    const { onProgress } = this.#options
    if (!onProgress) return
    const tell = () => onProgress({ ...this.#struck, ranMs: performance.now() - this.#startedAtMs, acknowledged: this.#acknowledged() })
    this.#timers.push(setInterval(tell, progressEveryMs))
  }

  #strike({ kind, inside, forMs, writer: position, pick }: Fault): void {
    if (kind === 'unlock') {
      this.#unlock(pick)
      return
    }
    const writer = this.#writers[position]
    const pid = writer?.child?.pid
    if (!writer?.running || pid === undefined) return
    if (kind === 'kill') writer.condemned = true
    if (inside) tell(writer, { do: 'undergo', order: kind === 'kill' ? { kind } : { kind, forMs } })
    else if (kind === 'kill') writer.child?.kill('SIGKILL')
    else if (freeze(pid, forMs)) this.#struck.freezes++
  }

  #unlock(pick: number): void {
    const { lockPaths, dir } = this.#options
    const path = lockPaths[Math.floor(pick * lockPaths.length)]
    if (path === undefined) return
    // Whoever holds the lock renames its entry meanwhile; then the removal fails half-way, as by hand.
    fs.rm(join(dir, path), { recursive: true, force: true }, () => {})
    this.#struck.unlocks++
  }

  /** Asks first; kills, and says so, what has not ended in time. */
  async #stop(): Promise<void> {
    this.#stopping = true
    const { waitMs, maxHoldMs } = this.#options
    for (const writer of this.#writers) tell(writer, { do: 'stop' })
    const graceMs = 2 * waitMs + 10 * maxHoldMs + 5_000
    await this.#until(() => this.#writers.every(({ child }) => !child), graceMs, false)
    for (const writer of this.#writers) {
      if (!writer.child) continue
      this.#troubles.push(`writer ${writer.name}.${writer.incarnation} did not come to an end within ${graceMs} ms and was killed`)
      writer.condemned = true
      writer.child.kill('SIGKILL')
      // It may hang in the kernel, where no signal reaches it. It must not hold us up.
      writer.child.unref()
      writer.child.channel?.unref()
    }
  }

  /** Resolves when it is so, when the time is up, or at an abort. */
  #until(isSo: () => boolean, msMax: number, abortable = true): Promise<void> {
    const signal = abortable ? this.#options.signal : undefined
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', done)
        this.#changed = () => {}
        resolve()
      }
      const timer = setTimeout(done, msMax)
      signal?.addEventListener('abort', done)
      this.#changed = () => {
        if (isSo()) done()
      }
      if (signal?.aborted) done()
      else this.#changed()
    })
  }

  #acknowledged(): number {
    return this.#tallies().reduce((total, tally) => total + tally.acknowledged, 0)
  }

  #counters(): Counters {
    const tallies = this.#tallies()
    const sum = (of: (counters: Counters) => number) => tallies.reduce((total, tally) => total + of(tally), 0)
    return {
      commits: sum((tally) => tally.commits),
      reruns: sum((tally) => tally.reruns),
      takeoversDead: sum((tally) => tally.takeoversDead),
      takeoversExpired: sum((tally) => tally.takeoversExpired),
    }
  }

  #tallies(): Tally[] {
    return this.#writers.flatMap(({ tallies }) => [...tallies.values()])
  }
}

function tell(writer: Writer, message: ToWriter): void {
  // A writer that has just died cannot be told; its end is heard of by itself.
  if (writer.child?.connected) writer.child.send(message, () => {})
}
