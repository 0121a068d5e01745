/** Many processes that want the same leases, faults on top, and what the files that they wrote under them say afterwards. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { compiled, freshDirectory, freshSeed } from '../processes/trials.js'
import { seededRandom } from '../simulation/seeded-random.js'
import { type Line, readLines } from './lease-lines.js'

export interface WantOptions {
  readonly dir: string
  readonly names: readonly string[]
  readonly maxHoldMs: number
  /** For how long it stands still, now and then, between looking and writing. */
  readonly stallMs: number
  /** How long a lock is left when it is free. */
  readonly idleMs: number
  /** What it does with its first lease instead of working: for tests of a single process. */
  readonly ends?: 'by itself' | 'exit' | 'never'
}

export interface Trial {
  readonly dir: string
  readonly lines: ReadonlyMap<string, readonly Line[]>
  readonly kills: number
  readonly stops: number
  readonly acquisitions: number
  /** Lines that came too late to count. */
  readonly late: number
}

export function startWanting(options: WantOptions): ChildProcess {
  const program = fileURLToPath(new URL('test/lock/lease-program.js', compiled))
  const child = fork(program, [JSON.stringify(options)], { execArgv: [] })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

interface Faults {
  readonly seconds: number
  /** Goes on for this many lines, even where the machine is busy with other things; at most four times as long. */
  readonly lines: number
  readonly names: number
  readonly maxHoldMs: number
  /** Mean time between faults. */
  readonly gapMs?: number
  readonly kill?: boolean
  /** For how long a process is stopped. */
  readonly stopMs?: number
  /** For how long a process stands still by itself, at most. Default 3. */
  readonly stallMs?: number
  /** Default 0: each release removes the lock, while others make it anew. */
  readonly idleMs?: number
}

export async function runTrial(
  label: string,
  { seconds, lines: wanted, names, maxHoldMs, gapMs = 100, kill = false, stopMs = 0, stallMs = 3, idleMs = 0 }: Faults,
): Promise<Trial> {
  const seed = freshSeed()
  const random = seededRandom(Number.parseInt(seed, 16))
  const dir = freshDirectory()
  const options = { dir, names: Array.from({ length: names }, (_, at) => `k${at}`), maxHoldMs, stallMs, idleMs }
  const children = Array.from({ length: 8 }, () => startWanting(options))
  let [kills, stops] = [0, 0]
  const frozen: Promise<unknown>[] = []
  const startedMs = performance.now()
  const written = () => options.names.reduce((sum, name) => sum + readLines(join(dir, `${name}.log`)).length, 0)
  const goesOn = () => {
    const passedMs = performance.now() - startedMs
    return passedMs < seconds * 1_000 || (passedMs < seconds * 4_000 && written() < wanted)
  }
  while (goesOn()) {
    await pause(gapMs * (0.5 + random()))
    const at = Math.floor(random() * children.length)
    const child = children[at]!
    if (kill && (!stopMs || random() < 0.5)) {
      kills++
      child.kill('SIGKILL')
      children[at] = startWanting(options)
    } else if (stopMs) {
      stops++
      child.kill('SIGSTOP')
      frozen.push(pause(stopMs * (0.2 + random() * 1.6)).then(() => child.kill('SIGCONT')))
    }
  }
  await Promise.all(frozen)
  await Promise.all(children.map((child) => ended(child)))
  const lines = new Map(options.names.map((name) => [name, readLines(join(dir, `${name}.log`))]))
  const acquisitions = new Set([...lines.values()].flat().map(({ owner }) => owner)).size
  const late = [...lines.values()].flat().filter((line) => !line.valid).length
  console.log(`${label}: seed ${seed}, ${acquisitions} acquisitions, ${kills} killed, ${stops} stopped, ${late} late lines without effect`)
  return { dir, lines, kills, stops, acquisitions, late }
}

async function ended(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit')
  if (child.exitCode !== null || child.signalCode !== null)
    throw new Error(`a process ended early, with ${child.exitCode ?? child.signalCode}`)
  child.disconnect()
  const [code, signal] = await exit
  if (code !== 0) throw new Error(`a process ended with ${code ?? signal}`)
}

export function leftIn(dir: string): string[] {
  return fs.readdirSync(join(dir, 'turns')).filter((name) => name !== '.floor')
}
