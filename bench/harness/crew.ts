/** Workers are real processes. They set themselves up, wait, and work in slices that all of them begin together; between slices they are
 *  idle, so that another crew can have its turn. */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Contestant, Slice } from './measure.js'

/** What a worker does; worker.ts has the code. */
export type Task =
  | { readonly kind: 'update'; readonly peer: string; readonly dir: string; readonly sessions: number; readonly seed: number }
  | { readonly kind: 'append'; readonly peer: string; readonly dir: string; readonly session: string }
  | { readonly kind: 'floor'; readonly path: string; readonly index: number }
  | { readonly kind: 'lock'; readonly lock: 'holdfast' | 'proper-lockfile'; readonly path: string }
  | { readonly kind: 'seed'; readonly peer: string; readonly dir: string; readonly sessions: number }
  | { readonly kind: 'counters'; readonly peer: string; readonly dir: string }
  | {
      readonly kind: 'count'
      readonly peer: string
      readonly dir: string
      readonly key: string
      readonly ackPath: string
      readonly staleMs: number
      /** Falls asleep inside its change now and then, event loop and all, for longer than `staleMs`. */
      readonly sleepy: boolean
    }
  /** Turns of `lastMs` on one key, each begun as soon as the one before is over. */
  | { readonly kind: 'turns'; readonly dir: string; readonly key: string; readonly lastMs: number }
  | { readonly kind: 'maintain'; readonly dir: string }
  | { readonly kind: 'idle-lanes'; readonly dir: string; readonly keys: number }
  | { readonly kind: 'memory'; readonly peer: string | undefined; readonly dir: string }

export type Order = { readonly order: 'slice'; readonly sliceMs: number } | { readonly order: 'stop' }

export interface WorkerSlice extends Slice {
  /** Of every operation, ms. */
  readonly latenciesMs: readonly number[]
  /** Of every lock acquisition, ms; empty where the store does not tell. */
  readonly lockWaitsMs: readonly number[]
}

export type Report =
  | { readonly report: 'ready' }
  | { readonly report: 'slice'; readonly slice: WorkerSlice }
  | { readonly report: 'done'; readonly result: unknown }
  | { readonly report: 'failed'; readonly message: string }

const workerPath = fileURLToPath(new URL('../worker.js', import.meta.url))

export class Worker {
  readonly child: ChildProcess
  #waiting: { resolve: (report: Report) => void; reject: (error: Error) => void } | undefined
  #early: Report[] = []
  #ended: Error | undefined

  constructor(task: Task, execPath = process.execPath) {
    this.child = fork(workerPath, [JSON.stringify(task)], {
      execPath,
      execArgv: ['--expose-gc'],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    this.child.on('message', (report: Report) => this.#take(report))
    this.child.on('exit', (code, signal) => {
      this.#ended = new Error(`a worker ended early (${signal ?? code}): ${JSON.stringify(task)}`)
      this.#waiting?.reject(this.#ended)
      this.#waiting = undefined
    })
  }

  #take(report: Report): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    if (!waiting) this.#early.push(report)
    else if (report.report === 'failed') waiting.reject(new Error(report.message))
    else waiting.resolve(report)
  }

  /** The next thing that the worker says. */
  next(): Promise<Report> {
    const early = this.#early.shift()
    if (early) return early.report === 'failed' ? Promise.reject(new Error(early.message)) : Promise.resolve(early)
    if (this.#ended) return Promise.reject(this.#ended)
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
    })
  }

  tell(order: Order): Promise<Report> {
    const answer = this.next()
    this.child.send(order)
    return answer
  }

  async stop(): Promise<unknown> {
    const ended = new Promise((resolve) => this.child.once('exit', resolve))
    const report = await this.tell({ order: 'stop' })
    await ended
    return report.report === 'done' ? report.result : undefined
  }
}

/** Runs a task that needs no slices, in a process of its own. */
export async function errand(task: Task, execPath?: string): Promise<unknown> {
  const worker = new Worker(task, execPath)
  await worker.next()
  return worker.stop()
}

export class Crew implements Contestant {
  readonly name: string
  readonly workers: readonly Worker[]
  readonly slices: WorkerSlice[][]
  readonly remark?: string

  private constructor(name: string, workers: readonly Worker[], remark?: string) {
    this.name = name
    this.workers = workers
    this.slices = workers.map(() => [])
    if (remark !== undefined) this.remark = remark
  }

  static async hire(name: string, tasks: readonly Task[], execPath?: string, remark?: string): Promise<Crew> {
    const workers = tasks.map((task) => new Worker(task, execPath))
    await Promise.all(workers.map((worker) => worker.next()))
    return new Crew(name, workers, remark)
  }

  async slice(sliceMs: number): Promise<Slice> {
    const reports = await Promise.all(this.workers.map((worker) => worker.tell({ order: 'slice', sliceMs })))
    let ops = 0
    let elapsedMs = 0
    reports.forEach((report, at) => {
      if (report.report !== 'slice') throw new Error(`a worker said ${report.report} instead of reporting its slice`)
      this.slices[at]!.push(report.slice)
      ops += report.slice.ops
      elapsedMs = Math.max(elapsedMs, report.slice.elapsedMs)
    })
    return { ops, elapsedMs }
  }

  /** Operations acknowledged since the start, warm-up included, by worker. */
  opsByWorker(): number[] {
    return this.slices.map((slices) => slices.reduce((sum, { ops }) => sum + ops, 0))
  }

  latenciesMs(): number[] {
    return this.slices.flatMap((slices) => slices.flatMap((slice) => slice.latenciesMs))
  }

  lockWaitsMs(): number[] {
    return this.slices.flatMap((slices) => slices.flatMap((slice) => slice.lockWaitsMs))
  }

  async dismiss(): Promise<unknown[]> {
    return Promise.all(this.workers.map((worker) => worker.stop()))
  }
}
