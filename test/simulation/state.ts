/** Where an exploration stands: the disk, what every process knows, what has become true, and how all that came about. */
import { createHash } from 'node:crypto'
import type { ProcessProbe } from '../../src/file/lock/staleness.js'
import type { Log } from './machine.js'
import type { SimulatedDisk } from './simulated-disk.js'

export interface ProcessState {
  readonly log: Log
  readonly status: 'ready' | 'waiting' | 'ended' | 'killed'
  /** waiting: what the disk was like when it fell asleep. Until that changes it would find nothing new. */
  readonly asleepAt?: string
}
export interface Fact {
  readonly process: number
  readonly fact: string
}
export interface History {
  readonly before: History | undefined
  readonly fact: Fact
  readonly digest: string
}
export interface Spent {
  readonly preemptions: number
  readonly kills: number
  readonly falseVerdicts: number
}
/** One stretch of one process, for telling how a state came about. */
export interface Path {
  readonly before: Path | undefined
  readonly text: () => string[]
}
export interface State {
  readonly disk: SimulatedDisk
  readonly processes: readonly ProcessState[]
  readonly history: History | undefined
  readonly spent: Spent
  readonly path: Path | undefined
}
export interface Task {
  readonly state: State
  /** Whose turn it is; undefined at an end. */
  readonly next: number | undefined
  /** The answer to its next call, which asks about another process. */
  readonly probe?: ProcessProbe
}

export function pidOf(process: number): number {
  return 100 + process
}

export function isAlive(state: State, pid: number): boolean {
  const process = state.processes[pid - pidOf(0)]
  return process !== undefined && process.status !== 'ended' && process.status !== 'killed'
}

/** Who could go on instead of `except`. When all sleep and nothing has changed, only time can pass: then anybody. */
export function able(state: State, except?: number): number[] {
  const of = (test: (process: ProcessState) => boolean) =>
    state.processes.flatMap((process, i) => (i !== except && test(process) ? [i] : []))
  const ready = of(({ status, asleepAt }) => status === 'ready' || (status === 'waiting' && asleepAt !== state.disk.key()))
  return ready.length > 0 || except !== undefined ? ready : of(({ status }) => status === 'waiting')
}

export function withProcess(state: State, at: number, to: ProcessState): State {
  return { ...state, processes: state.processes.map((process, i) => (i === at ? to : process)) }
}

export function withHistory(history: History | undefined, fact: Fact): History {
  return { before: history, fact, digest: digest(`${history?.digest} ${fact.process} ${fact.fact}`) }
}

export function factsOf(state: State): Fact[] {
  const facts: Fact[] = []
  for (let at = state.history; at; at = at.before) facts.unshift(at.fact)
  return facts
}

/** An error with the schedule that led to it. */
export function told(error: unknown, state: State): Error {
  const facts = factsOf(state).map(({ process, fact }) => `  ${process}: ${fact}`)
  const stretches: string[] = []
  for (let path = state.path; path; path = path.before) stretches.unshift(...path.text())
  const said = error instanceof Error ? error.message : String(error)
  return new Error(`${said}\nfacts\n${facts.join('\n')}\nschedule (${JSON.stringify(state.spent)})\n${stretches.join('\n')}`, {
    cause: error,
  })
}

/** Where two states agree in this, everything that follows is the same.
 *  @param durability  also what a power cut would find */
export function keyOf(state: State, task: { next?: number | undefined; probe?: ProcessProbe | undefined }, durability: boolean): string {
  const processes = state.processes.map(({ status, log, asleepAt }) => {
    if (status === 'ready') return log.digest
    return status === 'waiting' ? `${log.digest} asleep ${asleepAt === state.disk.key()}` : status
  })
  const disk = durability ? `${state.disk.key()} | ${state.disk.durabilityKey()}` : state.disk.key()
  return digest(`${disk} | ${processes.join(' ')} | ${state.history?.digest} | ${task.next} ${task.probe ? 'false verdict' : ''}`)
}

function digest(text: string): string {
  return createHash('md5').update(text).digest('base64')
}
