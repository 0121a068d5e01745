import { type Log, Machine, type Program, type Scheduler, Suspended } from './machine.js'
import type { SimulatedDisk } from './simulated-disk.js'
import { able, isAlive, type Path, pidOf, type State, type Task, told, withHistory, withProcess } from './state.js'

/** A call that a process is about to make. */
export interface NextCall {
  readonly name: string
  readonly what: string
  /** Of a write. */
  readonly bytes: Uint8Array | undefined
}

/** What the search wants to know of a process under way. */
export interface Branching {
  /** How much time a call takes. */
  readonly callMs: number
  /** Everybody is told that everybody else is dead. */
  readonly allLookDead: boolean
  /** Whether somebody has been here before. */
  wasSeen(state: State, process: number): boolean
  /** Others may run in front of this call. */
  branch(state: State, process: number, call: NextCall): void
  /** The process may be killed in front of this call. */
  kill(state: State, process: number, call: NextCall): void
  asleep(state: State, process: number): void
  gone(state: State, process: number, how: 'ended'): void
}

const callsMax = 20_000

/** One process running from where a task left it until it ends, sleeps, or comes to where somebody has been before. */
export class Stretch {
  private readonly machine: Machine
  private readonly disk: SimulatedDisk
  private readonly from: number
  private state: State
  private stepped = false
  private inPreparation = false

  constructor(
    private readonly task: Task,
    private readonly process: number,
    private readonly branching: Branching,
  ) {
    const { log } = task.state.processes[process]!
    this.disk = task.state.disk.clone()
    this.state = task.state
    this.from = log.count
    const scheduler: Scheduler = {
      beforeCall: (name, what, bytes) => this.beforeCall({ name, what, bytes }),
      forcedProbe: () => (this.machine.calls.length === this.from ? task.probe : undefined),
      noted: (fact) => {
        this.state = { ...this.state, history: withHistory(this.state.history, { process, fact }) }
      },
      wakes: () => !this.stepped || able(this.now(), process).length === 0,
      truth: (pid) =>
        pid === pidOf(process) || (isAlive(task.state, pid) && !branching.allLookDead)
          ? { exists: true, startTime: String(pid), zombie: false }
          : { exists: false },
    }
    this.machine = new Machine(pidOf(process), this.disk, log, scheduler, branching.callMs)
  }

  async run(program: Program): Promise<void> {
    const { branching, process } = this
    const outcome = await this.outcome(program)
    if (outcome === 'ended') branching.gone(this.now(), process, 'ended')
    if (outcome === 'asleep') branching.asleep(this.now('waiting'), process)
    this.machine.suspend()
  }

  /** Up to its first mark, without anybody else. */
  async prepare(program: Program): Promise<State> {
    this.inPreparation = true
    const outcome = await this.outcome(program)
    if (outcome !== 'suspended') throw told(`process ${this.process} ${outcome} in its preparation`, this.now())
    return this.now()
  }

  private async outcome(program: Program): Promise<'ended' | 'asleep' | 'suspended'> {
    const outcome = await this.machine.run(program).catch((failed: unknown) => ({ failed }))
    if (typeof outcome === 'object') throw told(outcome.failed, this.now())
    return outcome
  }

  private beforeCall(call: NextCall): void {
    const { branching, machine, process } = this
    if (machine.calls.length > callsMax) throw new Error(`process ${process} runs away: ${machine.calls.length} calls`)
    if (this.inPreparation) {
      if (call.name === 'mark') throw new Suspended()
      return
    }
    const state = this.now()
    if (!this.stepped) {
      // Who else could run here was asked when the task was made; that it dies here, after the others have run, was not.
      this.stepped = true
      if (!this.task.probe) branching.kill(state, process, call)
      return
    }
    if (call.name === 'nap' && able(state, process).length > 0) {
      branching.asleep(this.now('waiting'), process)
      throw new Suspended()
    }
    if (branching.wasSeen(state, process)) throw new Suspended()
    branching.branch(state, process, call)
    branching.kill(state, process, call)
  }

  private now(status: 'ready' | 'waiting' = 'ready'): State {
    const { machine, process, from, state, task } = this
    const log = machine.log()
    const path: Path = {
      before: task.state.path,
      text: () => log.calls.slice(from, log.count).map((call) => `  ${process}: ${described(call)}`),
    }
    const asleepAt = status === 'waiting' ? { asleepAt: this.disk.key() } : {}
    return withProcess({ ...state, path, disk: this.disk.clone() }, process, { log, status, ...asleepAt })
  }
}

function described({ name, what, answer, failed }: Log['calls'][number]): string {
  if (failed) return `${name} ${shortened(what)}: ${(answer as NodeJS.ErrnoException).code}`
  if (answer === undefined) return `${name} ${shortened(what)}${name === 'stat' ? ' = nothing' : ''}`
  const text = Buffer.isBuffer(answer) ? answer.toString('latin1') : JSON.stringify(answer)
  return `${name} ${shortened(what)} = ${shortened(text.length > 240 ? `${text.slice(0, 120)} … ${text.slice(-120)}` : text)}`
}

/** Names of holders and facts of files, as far as they matter to somebody who reads a schedule. */
function shortened(text: string): string {
  return text
    .replaceAll('/data/store/', '')
    .replace(/held\.(\d+)\.[0-9a-f]+\.[0-9a-f]+\.\d+\.(\d+)\.\d+\.\d+\.\d+\.([a-z-]+)\.simulated\.[0-9a-f]+/g, 'held.$1.by-$2.$3')
    .replace(/\{"dev":1,"ino":(\d+),"size":(\d+),.*\}/, 'inode $1, $2 bytes')
}
