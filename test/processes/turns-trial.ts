/** Many processes that ask for turns on a few keys, faults on top; and what the transcripts alone say afterwards, held against what each
 *  process was told. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { SessionStore } from '../../src/index.js'
import type { Durability, WhenBusy } from '../../src/types.js'
import { seededRandom } from '../simulation/seeded-random.js'
import { factsOf, leftBehind, transcriptOf } from '../turns/conversation.js'
import { compiled, freshDirectory, freshSeed } from './trials.js'

export interface WorkerOptions {
  readonly dir: string
  readonly ledger: string
  readonly keys: readonly string[]
  readonly seed: number
  readonly maxTurnMs: number
  readonly loops: number
  readonly durability: Durability
}

export interface Told {
  readonly is: 'answered'
  readonly uid: string
  readonly key: string
  readonly outcome: string
  readonly turn: number
  readonly sessionId: string
  readonly seqs: readonly number[]
  readonly request: string
  readonly value: string | undefined
}

export type Fact =
  | { readonly is: 'asked'; readonly uid: string; readonly key: string; readonly given: boolean; readonly whenBusy: WhenBusy }
  | Told
  | {
      readonly is: 'refused'
      readonly uid: string
      readonly key: string
      readonly code: string
      readonly effect: string
      readonly text: string
    }
  | {
      readonly is: 'ran'
      readonly uid: string
      readonly key: string
      readonly request: string
      readonly turn: number
      readonly attempt: number
      readonly inputs: readonly string[]
    }
  | { readonly is: 'appended'; readonly uid: string; readonly key: string; readonly turn: number; readonly seq: number }
  | { readonly is: 'seen'; readonly uid: string; readonly key: string; readonly turn: number }

export interface TrialOptions {
  readonly seconds: number
  /** Goes on for so many turns, even where the machine is busy with other things; at most four times as long. */
  readonly turns: number
  readonly keys: number
  readonly maxTurnMs: number
  readonly loops?: number
  readonly gapMs?: number
  readonly kill?: boolean
  readonly stopMs?: number
  readonly durability?: Durability
}

export interface TrialReport {
  readonly turns: number
  readonly kills: number
  readonly stops: number
  readonly interrupted: number
  readonly coalesced: number
  readonly late: number
  readonly violations: readonly string[]
}

const workers = 8

export async function turnsTrial(label: string, options: TrialOptions): Promise<TrialReport> {
  const {
    seconds,
    turns: wanted,
    keys: keyCount,
    maxTurnMs,
    loops = 2,
    gapMs = 100,
    kill = false,
    stopMs = 0,
    durability = 'process',
  } = options
  const seed = freshSeed()
  const random = seededRandom(Number.parseInt(seed, 16))
  const around = freshDirectory()
  const dir = join(around, 'store')
  const keys = Array.from({ length: keyCount }, (_, at) => `k${at}`)
  const violations: string[] = []
  const store = await SessionStore.open(dir, { durability })
  onTestFinished(() => store.close())
  for (const key of keys) await store.session(key).append({ uid: `first of ${key}` })
  const start = (at: number) => {
    const told = (message: Told) => {
      // While it goes on, as another process sees it: what was said to be left is there.
      if (!fs.readFileSync(transcriptOf(dir, message.sessionId)).includes(`"uid":"${message.uid}"`))
        violations.push(`${message.uid} is not on the disk`)
    }
    const worker: WorkerOptions = {
      dir,
      ledger: join(around, `ledger-${at}`),
      keys,
      seed: Math.floor(random() * 2 ** 31),
      maxTurnMs,
      loops,
      durability,
    }
    const child = fork(fileURLToPath(new URL('test/processes/turns-worker.js', compiled)), [JSON.stringify(worker)], { execArgv: [] })
    child.on('message', told)
    onTestFinished(() => void child.kill('SIGKILL'))
    return child
  }
  const children = Array.from({ length: workers }, (_, at) => start(at))
  let [kills, stops] = [0, 0]
  const frozen: Promise<unknown>[] = []
  const startedMs = performance.now()
  const begun = async () => (await Promise.all(keys.map((key) => lastTurn(store, key)))).reduce((sum, n) => sum + n, 0)
  for (;;) {
    const passedMs = performance.now() - startedMs
    if (passedMs > seconds * 2_500 || (passedMs > seconds * 1_000 && (await begun()) >= wanted)) break
    await pause(gapMs * (0.5 + random()))
    const at = Math.floor(random() * workers)
    const child = children[at]!
    if (kill && (!stopMs || random() < 0.5)) {
      kills++
      child.kill('SIGKILL')
      await once(child, 'exit')
      children[at] = start(at)
    } else if (stopMs) {
      stops++
      child.kill('SIGSTOP')
      frozen.push(pause(stopMs * (0.2 + random() * 1.6)).then(() => child.kill('SIGCONT')))
    }
  }
  await Promise.all(frozen)
  await Promise.all(children.map((child) => ended(child)))
  // Whatever was left is for the next turn, which begins at once.
  for (const key of keys) {
    const sinceMs = performance.now()
    await store.runTurn(key, {}, (turn) => turn.pending())
    if (performance.now() - sinceMs > 2_000) violations.push(`the last turn of ${key} had to wait`)
  }
  const held = leftBehind(dir)
  if (held.length > 0 && !kill) violations.push(`left behind: ${held.join('; ')}`)
  const ledgers = Array.from({ length: workers }, (_, at) => readLedger(join(around, `ledger-${at}`)))
  const report = await judge(store, dir, keys, ledgers.flat())
  const all = { ...report, kills, stops, violations: [...violations, ...report.violations] }
  console.log(
    `${label}: seed ${seed}, ${all.turns} turns (${all.interrupted} interrupted), ${all.coalesced} coalesced, ${kills} killed, ${stops} stopped, ${all.late} told TURN_LOST, ${all.violations.length} violations`,
  )
  return all
}

async function lastTurn(store: SessionStore, key: string): Promise<number> {
  return (await store.turns({ key, limit: 1 })).reduce((most, { turn }) => Math.max(most, turn ?? 0), 0)
}

async function ended(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit')
  if (child.exitCode !== null || child.signalCode !== null)
    throw new Error(`a process ended early, with ${child.exitCode ?? child.signalCode}`)
  child.disconnect()
  const [code, signal] = await exit
  if (code !== 0) throw new Error(`a process ended with ${code ?? signal}`)
}

function readLedger(path: string): Fact[] {
  const lines = fs.readFileSync(path, 'utf8').split('\n')
  return lines.flatMap((line) => {
    try {
      return line ? [JSON.parse(line) as Fact] : []
    } catch {
      return [] // Killed while it wrote it: then nobody was told.
    }
  })
}

/** What one transcript says, and what in it cannot be. */
export interface Story {
  /** By record uid: where it stands, by which turn, and how often. */
  readonly records: Map<string, { seq: number; by: number | undefined; times: number }>
  /** By uid of the input: the turn that took it; 0 while none has. */
  readonly inputs: Map<string, number>
  readonly outcomes: Map<number, string>
  /** By request: how often it was completed. */
  readonly completed: Map<string, number>
  readonly last: number
  readonly violations: string[]
}

export function storyIn(path: string): Story {
  const story: Story = { records: new Map(), inputs: new Map(), outcomes: new Map(), completed: new Map(), last: 0, violations: [] }
  const wrong = (seq: number, what: string) => void story.violations.push(`${path.slice(-20)} seq ${seq}: ${what}`)
  const pending = new Map<string, { uid: string; seq: number }>()
  let [last, active] = [0, 0]
  for (const { seq, system, record } of factsOf(path)) {
    const uid = record.uid === undefined ? undefined : String(record.uid)
    if (uid !== undefined) {
      const before = story.records.get(uid)
      story.records.set(uid, { seq, by: system?.by, times: (before?.times ?? 0) + 1 })
    }
    if (system?.by !== undefined && system.by !== active) wrong(seq, `a record of turn ${system.by} while ${active || 'none'} is active`)
    if (system?.input !== undefined && uid !== undefined) {
      if (pending.has(system.input)) wrong(seq, `the input of ${system.input} twice`)
      pending.set(system.input, { uid, seq })
      story.inputs.set(uid, 0)
    }
    const event = system?.turn
    if (!event) continue
    if (event.event === 'withdraw') {
      const withdrawn = pending.get(event.request)
      if (!withdrawn) wrong(seq, `withdrawn, and not there: ${event.request}`)
      else {
        pending.delete(event.request)
        story.inputs.delete(withdrawn.uid)
        story.records.delete(withdrawn.uid)
      }
      continue
    }
    if (event.event === 'start') {
      if (event.n !== last + 1) wrong(seq, `turn ${event.n} begins after ${last}`)
      if ((event.interrupted ?? 0) !== active) wrong(seq, `turn ${event.n} interrupts ${event.interrupted}, but ${active} is active`)
      if (active) story.outcomes.set(active, 'interrupted')
      last = active = event.n
    } else if (event.n !== active) wrong(seq, `${event.event} of turn ${event.n} while ${active || 'none'} is active`)
    for (const [request, at] of event.event === 'end' ? [] : (event.takes ?? [])) {
      const taken = pending.get(request)
      if (taken?.seq !== at) wrong(seq, `turn ${event.n} takes ${request} at ${at}, which is not pending there`)
      pending.delete(request)
      if (taken) story.inputs.set(taken.uid, event.n)
    }
    if (event.event === 'end') {
      active = 0
      story.outcomes.set(event.n, event.outcome)
      if (event.outcome === 'completed') story.completed.set(event.request, (story.completed.get(event.request) ?? 0) + 1)
    }
  }
  return { ...story, last }
}

async function judge(
  store: SessionStore,
  dir: string,
  keys: readonly string[],
  facts: readonly Fact[],
): Promise<Omit<TrialReport, 'kills' | 'stops'>> {
  const stories = new Map<string, Story>()
  for (const key of keys) stories.set(key, storyIn(transcriptOf(dir, (await store.get(key))!.sessionId)))
  const violations = [...stories.values()].flatMap((story) => story.violations)
  const report = (what: string) => void violations.push(what)
  for (const fact of facts) assertBorneOut(fact, stories.get(fact.key)!, report)
  for (const [key, { completed, inputs, records }] of stories) {
    for (const [request, times] of completed) if (times > 1) report(`${key}: request ${request} was completed ${times} times`)
    for (const [uid, turn] of inputs) if (turn === 0) report(`${key}: the input ${uid} is still pending after the last turn`)
    for (const [uid, { times }] of records) if (times > 1) report(`${key}: ${uid} is there ${times} times`)
  }
  assertHandedOutOnce(facts, stories, report)
  const outcomes = [...stories.values()].flatMap((story) => [...story.outcomes.values()])
  return {
    turns: [...stories.values()].reduce((sum, { last }) => sum + last, 0),
    interrupted: outcomes.filter((outcome) => outcome === 'interrupted').length,
    coalesced: facts.filter((fact) => fact.is === 'answered' && fact.outcome === 'coalesced').length,
    late: facts.filter((fact) => fact.is === 'refused' && fact.code === 'TURN_LOST').length,
    violations,
  }
}

function assertBorneOut(fact: Fact, story: Story, report: (what: string) => void): void {
  const { uid } = fact
  if (fact.is === 'appended') {
    const record = story.records.get(uid)
    if (record?.seq !== fact.seq || record.by !== fact.turn)
      report(`${uid} was acknowledged at ${fact.seq} for turn ${fact.turn}: ${JSON.stringify(record)}`)
  }
  if (fact.is === 'seen' && story.inputs.get(uid) !== fact.turn)
    report(`${uid} was handed to turn ${fact.turn}, but taken by ${story.inputs.get(uid)}`)
  if (fact.is === 'refused' && unexpected(fact)) report(`${uid}: ${fact.text}`)
  if (fact.is !== 'answered') return
  const taken = story.inputs.get(uid)
  if (taken === undefined) return report(`${uid} was answered (${fact.outcome}), and its input is not there`)
  // Of one that was taken and interrupted, a later attempt may have been the answer.
  if (fact.outcome === 'completed' && story.outcomes.get(fact.turn) !== 'completed')
    report(`${uid}: turn ${fact.turn} ended ${story.outcomes.get(fact.turn)}`)
  if (fact.outcome === 'duplicate' && fact.value !== uid) report(`${uid}: a duplicate with the value ${fact.value}`)
}

const expected = new Set(['TURN_LOST', 'TURN_BUSY', 'LANE_FULL', 'given up', 'it fails, now and then'])
function unexpected({ code }: { readonly code: string }): boolean {
  return !expected.has(code)
}

function assertHandedOutOnce(facts: readonly Fact[], stories: ReadonlyMap<string, Story>, report: (what: string) => void): void {
  const seen = new Set<string>()
  const refused = new Set<string>()
  for (const fact of facts) {
    if (fact.is === 'seen') {
      if (seen.has(fact.uid)) report(`${fact.uid} was handed out twice`)
      seen.add(fact.uid)
    }
    if (fact.is === 'refused') refused.add(fact.uid)
    if (fact.is === 'ran' && fact.request === fact.uid && refused.has(fact.uid)) report(`${fact.uid} was refused, and ran afterwards`)
    // Its own input is there when its function runs, and it is its own.
    if (fact.is === 'ran' && fact.request === fact.uid && (fact.inputs.length !== 1 || fact.inputs[0] !== fact.uid))
      report(`${fact.uid} ran as turn ${fact.turn} of ${stories.get(fact.key)!.last} with the inputs ${fact.inputs.join(' ')}`)
  }
}
