/** Runs programs against each other in every order of their system calls, within bounds (context bounding: Musuvathi and Qadeer, PLDI 2007).
 *
 *  A schedule is what happens when one process runs until it ends or sleeps, then another, and so on; that is free. What costs, and is bounded:
 *  preemptions    taking the processor away from a process that could go on
 *  kills          ending a process for good, in front of any of its calls (a write may have landed in part)
 *  falseVerdicts  telling a process that another one is dead although it lives, and may go on later
 *  Schedules are tried in order of preemptions, then of kills and false verdicts together, so it can be said what was covered when a
 *  bound on their number stops the search.
 *
 *  Two prefixes that lead to the same disk, the same knowledge in every process and the same facts are continued once. */
import { emptyLog, type Program } from './machine.js'
import type { SimulatedDisk } from './simulated-disk.js'
import { able, type Fact, factsOf, isAlive, keyOf, pidOf, type Spent, type State, type Task, told, withProcess } from './state.js'
import { type Branching, type NextCall, Stretch } from './stretch.js'

export interface Bounds {
  readonly preemptions: number
  readonly kills?: number
  readonly falseVerdicts?: number
  /** How many times a program is run or resumed; default no limit. */
  readonly runsMax?: number
  /** So many are enough once every schedule with one preemption has been tried; default `runsMax`. */
  readonly runsEnough?: number
}

export interface Exploration {
  readonly disk: SimulatedDisk
  readonly programs: readonly Program[]
  /** The part of each program up to its first mark is preparation: it runs first, one process after the other, and is not explored. */
  readonly prepared?: boolean
  readonly bounds: Bounds
  /** How much time a call takes, for what depends on how long somebody has had the lock. Default none: fewer states. */
  readonly callMs?: number
  /** Everybody is told that everybody else is dead, so that every lock is taken away at once. Default false. */
  readonly allLookDead?: boolean
  /** The checker cuts the power: what is durable distinguishes states, and a process may be killed in front of a sync. Default false. */
  readonly durability?: boolean
  /** Throws when an end is not as it must be. The disk is the checker's own. */
  readonly check: (end: End) => Promise<void> | void
}

export interface End {
  readonly disk: SimulatedDisk
  /** In the order in which they became true. */
  readonly facts: readonly Fact[]
  readonly killed: readonly boolean[]
}

export interface Coverage {
  readonly runs: number
  readonly states: number
  readonly ends: number
  /** Every schedule of at most so many preemptions was tried; -1 for not even those without. */
  readonly preemptionsCovered: number
  /** Every schedule within the bounds was tried. */
  readonly complete: boolean
}

/** Calls that no other process can tell the order of: nobody needs to run in front of them. Of a sync only a power cut tells. */
const unseen = new Set(['close', 'probe', 'wake'])
const unseenWithPower = new Set([...unseen, 'sync', 'syncDirectory'])

export async function explore(exploration: Exploration): Promise<Coverage> {
  const random = Math.random
  Math.random = () => 0.5
  try {
    return await new Search(exploration).all()
  } finally {
    Math.random = random
  }
}

class Search implements Branching {
  /** In the order in which they are to be tried. */
  private readonly tasks: Task[][] = []
  private readonly seen = new Map<string, Spent[]>()
  private readonly ends = new Set<string>()
  private runs = 0
  private readonly unseen: ReadonlySet<string>
  readonly callMs: number
  readonly allLookDead: boolean

  constructor(private readonly exploration: Exploration) {
    this.unseen = exploration.durability ? unseen : unseenWithPower
    this.callMs = exploration.callMs ?? 0
    this.allLookDead = exploration.allLookDead ?? false
  }

  async all(): Promise<Coverage> {
    const start = await this.start()
    for (const next of able(start)) this.add({ state: start, next })
    const { programs, bounds } = this.exploration
    for (let rank = 0; rank < this.tasks.length; rank++) {
      const level = this.tasks[rank] ?? []
      for (let task = level.pop(); task; task = level.pop()) {
        const covered = Math.floor(rank / this.ranks) - 1
        const { runsMax = Number.POSITIVE_INFINITY, runsEnough = runsMax } = bounds
        if (this.runs >= (covered >= 1 ? Math.min(runsEnough, runsMax) : runsMax)) return this.coverage(covered, false)
        if (task.next === undefined) await this.end(task.state)
        else if (!this.isKnown(task)) {
          this.runs++
          await new Stretch(task, task.next, this).run(programs[task.next]!)
        }
      }
    }
    return this.coverage(bounds.preemptions, true)
  }

  /** Every process, one after the other, up to the end of its preparation. */
  private async start(): Promise<State> {
    const { disk, programs, prepared } = this.exploration
    let state: State = {
      disk: disk.clone(),
      processes: programs.map(() => ({ log: emptyLog, status: 'ready' })),
      history: undefined,
      spent: { preemptions: 0, kills: 0, falseVerdicts: 0 },
      path: undefined,
    }
    if (prepared)
      for (const [next, program] of programs.entries())
        state = { ...(await new Stretch({ state, next }, next, this).prepare(program)), path: undefined }
    return state
  }

  private coverage(preemptionsCovered: number, complete: boolean): Coverage {
    return { runs: this.runs, states: this.seen.size, ends: this.ends.size, preemptionsCovered, complete }
  }

  /** How many ranks there are for each number of preemptions. */
  private get ranks(): number {
    const { kills = 0, falseVerdicts = 0 } = this.exploration.bounds
    return kills + falseVerdicts + 1
  }

  private add(task: Task): void {
    const { preemptions, kills, falseVerdicts } = task.state.spent
    const { bounds } = this.exploration
    if (preemptions > bounds.preemptions || kills > (bounds.kills ?? 0) || falseVerdicts > (bounds.falseVerdicts ?? 0)) return
    const rank = preemptions * this.ranks + kills + falseVerdicts
    for (let at = this.tasks.length; at <= rank; at++) this.tasks.push([])
    this.tasks[rank]!.push(task)
  }

  wasSeen(state: State, process: number): boolean {
    return this.isKnown({ state, next: process })
  }

  /** Whether this was reached before at no higher a price. Remembers it if not. */
  private isKnown(task: Task): boolean {
    const key = keyOf(task.state, task, this.exploration.durability ?? false)
    const { spent } = task.state
    const before = this.seen.get(key) ?? []
    if (before.some((b) => b.preemptions <= spent.preemptions && b.kills <= spent.kills && b.falseVerdicts <= spent.falseVerdicts))
      return true
    this.seen.set(key, [...before, spent])
    return false
  }

  branch(state: State, process: number, call: NextCall): void {
    const { spent } = state
    const preempted = { ...state, spent: { ...spent, preemptions: spent.preemptions + 1 } }
    if (!this.unseen.has(call.name)) for (const next of able(state, process)) this.add({ state: preempted, next })
    if (call.name !== 'probe' || !isAlive(state, Number(call.what))) return
    const lied = { ...state, spent: { ...spent, falseVerdicts: spent.falseVerdicts + 1 } }
    this.add({ state: lied, next: process, probe: { exists: false } })
  }

  kill(state: State, process: number, { name, what, bytes }: NextCall): void {
    if (this.unseen.has(name) || state.spent.kills >= (this.exploration.bounds.kills ?? 0)) return
    const spent = { ...state.spent, kills: state.spent.kills + 1 }
    for (const landed of bytes ? new Set([0, bytes.length >> 1, bytes.length - 1]) : [0]) {
      const disk = state.disk.clone()
      if (bytes && landed > 0) disk.write(pidOf(process), Number(what.split(' ')[0]), bytes.subarray(0, landed))
      const path = {
        before: state.path,
        text: () => [`  ${process}: killed in front of ${name} ${what}${landed > 0 ? `, ${landed} bytes landed` : ''}`],
      }
      this.gone({ ...state, disk, spent, path }, process, 'killed')
    }
  }

  /** A process has ended or was killed: the others go on, in any order. */
  gone(state: State, process: number, how: 'ended' | 'killed'): void {
    state.disk.exit(pidOf(process))
    const after = withProcess(state, process, { log: state.processes[process]!.log, status: how })
    const others = able(after)
    if (others.length === 0) this.add({ state: after, next: undefined })
    for (const next of others) this.add({ state: after, next })
  }

  asleep(state: State, process: number): void {
    for (const next of able(state, process)) this.add({ state, next })
  }

  private async end(state: State): Promise<void> {
    const key = keyOf(state, {}, this.exploration.durability ?? false)
    if (this.ends.has(key)) return
    this.ends.add(key)
    try {
      const killed = state.processes.map(({ status }) => status === 'killed')
      await this.exploration.check({ disk: state.disk.clone(), facts: factsOf(state), killed })
    } catch (error) {
      throw told(error, state)
    }
  }
}
