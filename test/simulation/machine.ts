/** One simulated process: a program whose every question to the machine is a step that somebody else decides about.
 *
 *  JavaScript cannot be stopped in the middle of a synchronous call, so a process is resumed by running its program again from the
 *  start on the recorded answers of its earlier calls. For that everything it learns must come from its host, and the host's answers
 *  must depend on nothing but the calls before. What it does on recorded answers touches nothing; the first call without one is `live`. */
import { createHash } from 'node:crypto'
import type { Disk } from '../../src/file/durable.js'
import type { Host } from '../../src/file/host.js'
import type { ProcessProbe } from '../../src/file/lock/staleness.js'
import { processDisk } from './process-disk.js'
import type { SimulatedDisk } from './simulated-disk.js'
import { simulatedIdentity, simulatedMint, simulatedNonce } from './simulated-host.js'

export type Program = (process: SimulatedProcess) => Promise<void>

export interface SimulatedProcess {
  readonly host: Host
  /** Tells the checker what has happened; facts of all processes stand in one order. */
  note(fact: string): void
  /** The same, as a step before which others may run. */
  mark(fact: string): void
}

export interface Call {
  readonly name: string
  readonly what: string
  readonly answer: unknown
  readonly failed: boolean
}

/** Everything that decides where a process stands. */
export interface Log {
  /** The first `count` of these; the array may have grown since. */
  readonly calls: readonly Call[]
  readonly count: number
  readonly digest: string
  readonly facts: number
}
export const emptyLog: Log = { calls: [], count: 0, digest: '', facts: 0 }

/** Thrown out of every call of a process that is not to go on; whatever the code under test makes of it is ignored. */
export class Suspended extends Error {}

export interface Scheduler {
  /** Before every live call but the first of a run; throws Suspended to end the run here. */
  beforeCall(name: string, what: string, bytes?: Uint8Array): void
  /** Before the first one: where a different answer than the true one is wanted. */
  forcedProbe(): ProcessProbe | undefined
  noted(fact: string): void
  /** Nothing happens until a sleep ends: true when it is to end now. */
  wakes(): boolean
  truth(pid: number): ProcessProbe
}

interface Parked {
  readonly untilMs: number
  readonly wake: () => void
}

export class Machine implements SimulatedProcess {
  readonly calls: Call[] = []
  private digest = ''
  private facts = 0
  private clockMs = 1_000_000
  private nonces = 0
  private parked: Parked[] = []
  private suspended = false
  private mistake: { failed: unknown } | undefined
  readonly host: Host

  constructor(
    readonly pid: number,
    private readonly machine: SimulatedDisk,
    private readonly replayed: Log,
    private readonly scheduler: Scheduler,
    /** How much time a call takes, as this process sees it. */
    private readonly callMs = 0,
  ) {
    const clock = {
      monotonicMs: () => this.clockMs,
      wallMs: () => 1_700_000_000_000 + this.clockMs,
      sleep: (ms: number, signal?: AbortSignal) => this.sleep(ms, signal),
      nap: (ms: number) => this.nap(ms),
    }
    this.host = {
      disk: this.recordedDisk(),
      clock,
      identity: simulatedIdentity(pid),
      probe: (other) => this.call('probe', String(other), () => this.scheduler.forcedProbe() ?? this.scheduler.truth(other)),
      nonce: (digits) => simulatedNonce(pid, this.nonces++, digits),
      mintId: () => simulatedMint(pid, this.nonces++),
      watch: () => () => {},
    }
  }

  log(): Log {
    return { calls: this.calls, count: this.calls.length, digest: this.digest, facts: this.facts }
  }

  get isLive(): boolean {
    return this.calls.length >= this.replayed.count
  }

  note(fact: string): void {
    if (!this.suspended && ++this.facts > this.replayed.facts) this.scheduler.noted(fact)
  }

  mark(fact: string): void {
    this.call('mark', fact, () => undefined)
    this.note(fact)
  }

  suspend(): void {
    this.suspended = true
  }

  /** Runs until the program has ended, or all of it sleeps and the scheduler wakes nobody. */
  async run(program: Program): Promise<'ended' | 'asleep' | 'suspended' | { failed: unknown }> {
    let outcome: 'ended' | { failed: unknown } | undefined
    program(this).then(
      () => (outcome = 'ended'),
      (error: unknown) => (outcome = { failed: error }),
    )
    for (let idle = 0; idle < 100; ) {
      const before = this.calls.length
      await new Promise((resolve) => setImmediate(resolve))
      if (this.mistake) return this.mistake
      if (this.suspended) return 'suspended'
      if (outcome !== undefined) return outcome
      if (this.calls.length > before) idle = 0
      else if (this.parked.length === 0) idle++
      else if (!this.wake()) return 'asleep'
    }
    return { failed: new Error(`process ${this.pid} waits for something that is not simulated`) }
  }

  /** Ends the sleep that is due first. */
  private wake(): boolean {
    if (this.isLive && !this.scheduler.wakes()) return false
    const due = this.parked.reduce((first, other) => (other.untilMs < first.untilMs ? other : first))
    this.parked = this.parked.filter((other) => other !== due)
    this.call('wake', '', () => undefined)
    this.clockMs = Math.max(this.clockMs, due.untilMs)
    due.wake()
    return true
  }

  private nap(ms: number): void {
    this.call('nap', '', () => undefined)
    this.clockMs += Math.max(ms, 0.1)
  }

  private sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (this.suspended) return
      if (signal?.aborted) return resolve()
      const parked: Parked = { untilMs: this.clockMs + Math.max(ms, 0.1), wake: resolve }
      this.parked.push(parked)
      signal?.addEventListener('abort', () => {
        this.parked = this.parked.filter((other) => other !== parked)
        resolve()
      })
    })
  }

  /** @param live  does it, when there is no recorded answer */
  private call<T>(name: string, what: string, live: () => T, bytes?: Uint8Array): T {
    if (this.suspended) throw new Suspended()
    const at = this.calls.length
    const recorded = this.isLive ? undefined : this.replayed.calls[at]
    const call = recorded ?? this.live(name, what, live, bytes)
    if (call.name !== name || call.what !== what)
      throw this.stopped(
        new Error(`process ${this.pid} is not deterministic: call ${at} was ${call.name} ${call.what}, now it is ${name} ${what}`),
      )
    this.calls.push(call)
    this.clockMs += this.callMs
    if (!recorded) this.digest = digestOf(this.digest, call)
    else if (this.isLive) this.digest = this.replayed.digest
    if (call.failed) throw call.answer
    return call.answer as T
  }

  private live(name: string, what: string, live: () => unknown, bytes?: Uint8Array): Call {
    try {
      this.scheduler.beforeCall(name, what, bytes)
    } catch (error) {
      throw this.stopped(error)
    }
    try {
      return { name, what, answer: live(), failed: false }
    } catch (error) {
      return { name, what, answer: error, failed: true }
    }
  }

  /** Nothing more is done. A Suspended is part of the game; anything else is a mistake that the program must not swallow. */
  private stopped(error: unknown): unknown {
    this.suspended = true
    if (!(error instanceof Suspended)) this.mistake = { failed: error }
    return error
  }

  private recordedDisk(): Disk {
    const disk = processDisk(this.machine, this.pid)
    const call = <T>(name: string, what: string, live: () => T): T => this.call(name, what, live)
    // Nothing of what is explored here depends on when a sync ends; crash/ does.
    const later = (name: string, what: string, begin: () => () => void): Promise<void> => {
      if (this.suspended) return new Promise(() => {})
      return new Promise((resolve) => resolve(call(name, what, () => begin()())))
    }
    return {
      open: (path, flags) => call('open', `${path} ${flags}`, () => disk.open(path, flags)),
      close: (fd) => call('close', String(fd), () => disk.close(fd)),
      write: (fd, bytes) => this.call('write', `${fd} ${bytes.length}`, () => disk.write(fd, bytes), bytes),
      read: (fd, into, offset, length, position) => {
        const got = call('read', `${fd} ${length} @${position}`, () => {
          const bytes = Buffer.alloc(length)
          return bytes.subarray(0, disk.read(fd, bytes, 0, length, position))
        })
        into.set(got, offset)
        return got.length
      },
      fstat: (fd) => call('fstat', String(fd), () => disk.fstat(fd)),
      stat: (path) => call('stat', path, () => disk.stat(path)),
      rename: (from, to) => call('rename', `${from} ${to}`, () => disk.rename(from, to)),
      link: (from, to) => call('link', `${from} ${to}`, () => disk.link(from, to)),
      unlink: (path) => call('unlink', path, () => disk.unlink(path)),
      mkdir: (path) => call('mkdir', path, () => disk.mkdir(path)),
      rmdir: (path) => call('rmdir', path, () => disk.rmdir(path)),
      readdir: (path) => call('readdir', path, () => disk.readdir(path)).slice(),
      sync: (fd) => later('sync', String(fd), () => this.machine.beginSync(this.pid, fd)),
      syncDirectory: (path) => later('syncDirectory', path, () => this.machine.beginDirectorySync(path)),
    }
  }
}

function digestOf(before: string, { name, what, answer, failed }: Call): string {
  const hash = createHash('md5').update(`${before} ${name} ${what} `)
  if (Buffer.isBuffer(answer)) hash.update(answer)
  else hash.update(failed ? `! ${(answer as NodeJS.ErrnoException).code}` : (JSON.stringify(answer) ?? ''))
  return hash.digest('base64')
}
