/** One process of a crew: told its task by argument, sets it up, says ready, and works when it is told to. */
import diagnostics from 'node:diagnostics_channel'
import fs from 'node:fs'
import { dirname, join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { systemClock } from '../src/clock.js'
import { SessionStore } from '../src/index.js'
import { runMaintenance } from './beside-maintenance.js'
import { countOf } from './compare/peer.js'
import { peerNamed } from './compare/peers.js'
import { countUp } from './harness/contestants.js'
import type { Order, Report, Task, WorkerSlice } from './harness/crew.js'
import { type Fields, messageRecord, randomIndex, sessionKey, transcriptLine } from './harness/data.js'
import { writeAndSync } from './harness/floor.js'
import { openLock } from './harness/locks.js'
import { median } from './harness/measure.js'
import type { IdleLanes } from './idle-lanes.js'
import type { TimedTurn } from './turn-hand-over.js'

interface Job {
  operation?: ((turn: number) => unknown) | undefined
  /** For the whole process; answered by `stop`. */
  finish(): unknown
}

async function setUp(task: Task): Promise<Job> {
  switch (task.kind) {
    case 'update':
      return updating(task)
    case 'append': {
      await warmedUp(task)
      const transcripts = await peerNamed(task.peer).transcripts!(task.dir)
      let index = 0
      return { operation: () => transcripts.append(task.session, messageRecord(index++)), finish: () => transcripts.close() }
    }
    case 'floor': {
      const fd = fs.openSync(task.path, 'a')
      const line = transcriptLine(task.index)
      return { operation: () => writeAndSync(fd, line), finish: () => fs.closeSync(fd) }
    }
    case 'lock': {
      const lock = openLock(task.lock, task.path)
      return { operation: lock.cycle, finish: () => {} }
    }
    case 'seed':
      await peerNamed(task.peer).seed(task.dir, task.sessions)
      return { finish: () => {} }
    case 'counters':
      return { finish: async () => [...(await peerNamed(task.peer).counters(task.dir))] }
    case 'count':
      return counting(task)
    case 'memory':
      return remembering(task)
    case 'turns':
      return turning(task)
    case 'maintain':
      return runMaintenance(task)
    case 'idle-lanes':
      return idling(task)
  }
}

/** The same work on a scratch store, until V8 has compiled what there is to compile: these are processes that run for weeks. */
async function warmedUp(task: Task & { kind: 'update' | 'append' }): Promise<void> {
  const peer = peerNamed(task.peer)
  const dir = fs.mkdtempSync(join(dirname(task.dir), 'warm-up-'))
  await peer.seed(dir, warmUpSessions)
  if (task.kind === 'update') {
    const sessions = await peer.sessions(dir)
    await workFor(warmUpMs, (turn) => countUp(sessions, sessionKey(turn % warmUpSessions)), warmUpOps)
    await sessions.close()
  } else {
    const transcripts = await peer.transcripts!(dir)
    await workFor(warmUpMs, (turn) => transcripts.append(task.session, messageRecord(turn)), warmUpOps)
    await transcripts.close()
  }
  fs.rmSync(dir, { recursive: true, force: true })
}

const warmUpSessions = 50
const warmUpOps = 4_000
const warmUpMs = 2_500

async function updating(task: Task & { kind: 'update' }): Promise<Job> {
  await warmedUp(task)
  const sessions = await peerNamed(task.peer).sessions(task.dir)
  const random = randomIndex(task.seed)
  return {
    operation: () => countUp(sessions, sessionKey(random(task.sessions))),
    finish: () => sessions.close(),
  }
}

const awakeMs = 500

/** Counts one entry up and notes every acknowledgement where a SIGKILL cannot take it back: the length of the file is the number. Works from
 *  the start and is only ever stopped by the end of the test, or by a signal. */
async function counting(task: Task & { kind: 'count' }): Promise<Job> {
  const sessions = await peerNamed(task.peer).sessions(task.dir, { staleMs: task.staleMs })
  const acks = fs.openSync(task.ackPath, 'a')
  let stopped = false
  let awakeSinceMs = performance.now()
  const change = (fields: Fields) => {
    if (task.sleepy && performance.now() - awakeSinceMs > awakeMs) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, task.staleMs * 1.3)
      awakeSinceMs = performance.now()
    }
    return { ...fields, n: countOf(fields) + 1 }
  }
  const errors = new Map<string, number>()
  const running = (async () => {
    while (!stopped) {
      try {
        const result = sessions.update(task.key, change)
        if (result instanceof Promise) await result
        fs.writeSync(acks, '.')
      } catch (error) {
        const code = String((error as { code?: unknown }).code ?? error)
        errors.set(code, (errors.get(code) ?? 0) + 1)
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
  })()
  return {
    async finish() {
      stopped = true
      await running
      await sessions.close()
      return [...errors]
    },
  }
}

/** Opens, reads everything once, changes a thousand entries, and says how much memory it takes when the garbage is gone. */
async function remembering(task: Task & { kind: 'memory' }): Promise<Job> {
  const sessions = task.peer === undefined ? undefined : await peerNamed(task.peer).sessions(task.dir)
  const passes = task.peer !== undefined && peerNamed(task.peer).rewrites ? 10 : 1_000
  for (let index = 0; sessions && index < 10_000; index += 10_000 / passes) {
    await sessions.get(sessionKey(index))
    await countUp(sessions, sessionKey(index))
  }
  return {
    async finish() {
      await settle()
      const { rss } = process.memoryUsage()
      await sessions?.close()
      return rss
    },
  }
}

/** Notes when its turns started and were over, on the clock that all processes share. */
async function turning({ dir, key, lastMs }: Task & { kind: 'turns' }): Promise<Job> {
  const scratch = fs.mkdtempSync(`${dir}-warm-up-`)
  const warm = await SessionStore.open(scratch, { durability: 'process' })
  await workFor(warmUpMs, () => warm.runTurn(key, {}, () => {}), warmUpOps)
  await warm.close()
  fs.rmSync(scratch, { recursive: true, force: true })
  const store = await SessionStore.open(dir)
  const startedMs = new Map<number, number>()
  const turns: TimedTurn[] = []
  diagnostics.subscribe('holdfast:turn', (message) => {
    const { event, turn = -1 } = message as { event?: string; turn?: number }
    const nowMs = systemClock.monotonicMs()
    if (event === 'started') startedMs.set(turn, nowMs)
    else if (event === 'completed') turns.push({ turn, startedMs: startedMs.get(turn)!, completedMs: nowMs })
  })
  return {
    operation: () => store.runTurn(key, {}, () => new Promise<void>((resolve) => setTimeout(resolve, lastMs))),
    async finish() {
      await store.close()
      return turns
    },
  }
}

/** Longer than what is left of a turn is kept for the next one. */
const idleMs = 4_000

async function idling({ dir, keys }: Task & { kind: 'idle-lanes' }): Promise<Job> {
  const store = await SessionStore.open(dir, { durability: 'process' })
  const each = async (work: (key: string) => Promise<unknown>) => {
    for (let index = 0; index < keys; index++) await work(sessionKey(index))
  }
  const empty = (key: string) => store.runTurn(key, {}, () => {})
  const look = async () => {
    await new Promise((resolve) => setTimeout(resolve, idleMs))
    const slices: number[] = []
    for (let slice = 0; slice < 20; slice++) {
      const { ops, elapsedMs } = await workFor(100, () => empty('measured'))
      slices.push((elapsedMs * 1000) / ops)
    }
    // An entry of the metadata is parsed when it is first needed, and kept: that is no lane's.
    await each((key) => store.get(key))
    await settle()
    return { heap: process.memoryUsage().heapUsed, resources: process.getActiveResourcesInfo().length, turnUs: median(slices) }
  }
  await each((key) => store.session(key).append({ n: 1 }))
  await workFor(warmUpMs, () => empty('measured'), warmUpOps)
  const before = await look()
  await each(empty)
  const after = await look()
  return {
    async finish(): Promise<IdleLanes> {
      await store.close()
      return {
        heapBytes: [before.heap, after.heap],
        resources: [before.resources, after.resources],
        turnUs: [before.turnUs, after.turnUs],
      }
    },
  }
}

async function settle(): Promise<void> {
  for (let pass = 0; pass < 3; pass++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const lockWaitsMs: number[] = []
diagnostics.subscribe('holdfast:lock', (message) => {
  const { event, waitedMs } = message as { event?: string; waitedMs?: number }
  if (event === 'acquired' && waitedMs !== undefined) lockWaitsMs.push(waitedMs)
})

async function workFor(sliceMs: number, operation: (turn: number) => unknown, most = Number.POSITIVE_INFINITY): Promise<WorkerSlice> {
  const latenciesMs: number[] = []
  lockWaitsMs.length = 0
  const startedMs = performance.now()
  let beganMs = startedMs
  do {
    const result = operation(latenciesMs.length)
    if (result instanceof Promise) await result
    const nowMs = performance.now()
    latenciesMs.push(nowMs - beganMs)
    beganMs = nowMs
  } while (beganMs - startedMs < sliceMs && latenciesMs.length < most)
  // An acquisition that did not have to wait is not announced.
  const waits = [...lockWaitsMs]
  while (waits.length > 0 && waits.length < latenciesMs.length) waits.push(0)
  return { ops: latenciesMs.length, elapsedMs: beganMs - startedMs, latenciesMs, lockWaitsMs: waits }
}

function say(report: Report): Promise<void> {
  return new Promise((resolve) => process.send!(report, () => resolve()))
}

async function main(): Promise<void> {
  const job = await setUp(JSON.parse(process.argv[2]!) as Task)
  process.on('message', async (order: Order) => {
    try {
      if (order.order === 'slice') await say({ report: 'slice', slice: await workFor(order.sliceMs, job.operation!) })
      else {
        await say({ report: 'done', result: await job.finish() })
        process.exit(0)
      }
    } catch (error) {
      await say({ report: 'failed', message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
      process.exit(1)
    }
  })
  await say({ report: 'ready' })
}

main().catch(async (error: unknown) => {
  await say({ report: 'failed', message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
  process.exit(1)
})
