/** Real processes against a real server: killed, frozen past their lease, and the server itself thrown over in the middle of a load. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openPostgres } from '../../src/postgres.js'
import { collect } from '../backend/conformance.js'
import { type RegisterOperation, whereNotLinearizable } from '../processes/linearizability.js'
import type { Begun, Done } from './client-program.js'
import { freePort, type Started, server, start, stop } from './server.js'

const found = await server()
const describeOnServer = 'unavailable' in found ? describe.skip : describe
const url = 'url' in found ? found.url : ''

function run(name: string, args: readonly string[]) {
  const program = join(import.meta.dirname, '../../.build/test/postgres', `${name}.js`)
  const child = spawn(process.execPath, [program, ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const lines: Record<string, unknown>[] = []
  const reading = createInterface({ input: child.stdout! })
  reading.on('line', (line) => {
    // A process that was killed may have been killed in the middle of a line.
    if (line.endsWith('}')) lines.push(JSON.parse(line))
  })
  const ended = once(reading, 'close')
  const until = async (name: string) => {
    await expect.poll(() => lines.find((line) => name in line), { timeout: 20_000, interval: 10 }).toBeDefined()
    return lines.find((line) => name in line)![name]
  }
  return { child, lines, ended, until }
}

async function drop(at: string, schema: string): Promise<void> {
  const { withClient } = await import('./place.js')
  await withClient(at, (client) => client.query(`drop schema if exists "${schema}" cascade`))
}

const seed = process.env.HOLDFAST_SEED ?? `seed-${Date.now()}`
const forMs = process.env.HOLDFAST_SOAK ? 60_000 : 3_500

describeOnServer('eight processes', () => {
  test('killed, frozen and with their server thrown over: acknowledged is stored, once, in order, and every history is linearizable', async () => {
    // F1, F13, F14, P1, P2
    console.log(`seed ${seed}`)
    const directory = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-postgres-own-'))
    fs.chmodSync(directory, 0o755)
    const data = join(directory, 'data')
    // A server that the test may throw over; where another one is named, it is left alone.
    const own: Started | undefined = process.env.TEST_DATABASE_URL ? undefined : await start(data, await freePort())
    const at = own?.url ?? url
    const schema = `processes-${process.pid}`
    onTestFinished(async () => {
      if (own) await stop(data, 'SIGQUIT')
      else await drop(at, schema)
      fs.rmSync(directory, { recursive: true, force: true })
    })
    await (await openPostgres(at, { schema })).close()
    const clients = Array.from({ length: 8 }, (_, n) => run('client-program', [at, schema, `p${n}`, `${seed} ${n}`]))
    await Promise.all(clients.map(({ until }) => until('done')))
    const pause = forMs / 5
    await sleep(pause)
    clients[0]!.child.kill('SIGKILL')
    clients[1]!.child.kill('SIGSTOP')
    await sleep(pause)
    if (own) {
      await stop(data, 'SIGQUIT')
      await start(data, own.port)
    }
    clients.push(run('client-program', [at, schema, 'p8', `${seed} 8`]))
    await sleep(pause)
    clients[1]!.child.kill('SIGCONT')
    clients[2]!.child.kill('SIGKILL')
    await sleep(pause)
    for (const { child } of clients) end(child)
    await Promise.all(clients.map(({ ended }) => ended))
    await judge(at, schema, clients.flatMap(({ lines }) => lines) as unknown as (Begun | Done)[])
  }, 120_000)
})

function end(child: ChildProcess): void {
  child.stdin!.on('error', () => {})
  child.stdin!.end()
}

async function judge(at: string, schema: string, lines: readonly (Begun | Done)[]): Promise<void> {
  const begun = new Map(lines.flatMap((line) => ('begun' in line ? [[line.begun, line]] : [])))
  const done = new Map(lines.flatMap((line) => ('done' in line ? [[line.done, line]] : [])))
  const store = await openPostgres(at, { schema })
  try {
    expect((await store.verify()).damage).toEqual([])
    const stored = new Map<string, number>()
    for (const key of ['a', 'b', 'c', 'd']) {
      const records = await collect(store.session(key).read())
      for (const { seq, record } of records) {
        expect(stored.has(record.operation as string), `${record.operation} twice`).toBe(false)
        stored.set(record.operation as string, seq)
      }
    }
    let [acknowledged, unknown] = [0, 0]
    for (const [name, { does }] of begun) {
      const answer = done.get(name)
      if (does !== 'append') continue
      if (answer?.seq !== undefined) {
        acknowledged++
        expect(stored.get(name), `${name} was acknowledged`).toBe(answer.seq)
      } else if (answer?.effect === 'none') expect(stored.has(name), `${name} was refused with effect none`).toBe(false)
      else unknown++
    }
    console.log(`${begun.size} begun, ${acknowledged} appends acknowledged, of ${unknown} nobody was told, ${stored.size} stored`)
    expect(acknowledged).toBeGreaterThan(20)
    for (const key of ['a', 'b', 'c', 'd']) expect(whereNotLinearizable(historyOf(key, begun, done)), `key ${key}, ${seed}`).toBeUndefined()
  } finally {
    await store.close()
  }
}

/** A key's swaps and reads. What was never answered, or not for certain, may have found anything. */
function historyOf(key: string, begun: ReadonlyMap<string, Begun>, done: ReadonlyMap<string, Done>): RegisterOperation[] {
  const mine = [...begun.values()].filter((operation) => operation.key === key && operation.does !== 'append')
  const anything = [null, ...mine.filter(({ does }) => does === 'swap').map((operation) => operation.begun)]
  return mine.flatMap(({ begun: name, does, at }): RegisterOperation[] => {
    const answer = done.get(name)
    const told = answer?.found !== undefined
    if (answer?.effect === 'none' || (does === 'read' && !told)) return []
    const puts = does === 'swap' ? name : undefined
    return [
      {
        name,
        puts,
        invokedAt: at,
        respondedAt: told ? answer.at : Number.POSITIVE_INFINITY,
        found: told ? [answer.found!] : anything.filter((value) => value !== name),
      },
    ]
  })
}

describeOnServer('a turn', () => {
  test('whose process is frozen past its lease is taken over, and adds nothing when it wakes; one whose process is killed is taken over too', async () => {
    // F1, F6
    const schema = `turn-${process.pid}`
    onTestFinished(() => drop(url, schema))
    const store = await openPostgres(url, { schema, leaseMs: 1_000 })
    onTestFinished(() => store.close())
    const frozen = run('turn-program', [url, schema, 'k'])
    expect(await frozen.until('turn')).toBe(1)
    frozen.child.kill('SIGSTOP')
    const next = run('turn-program', [url, schema, 'k'])
    expect(await next.until('turn')).toBe(2)
    frozen.child.kill('SIGCONT')
    frozen.child.stdin!.write('go on\n')
    expect(await frozen.until('refused')).toBe('TURN_LOST')
    await frozen.ended
    next.child.kill('SIGKILL')
    const last = run('turn-program', [url, schema, 'k'])
    expect(await last.until('turn')).toBe(3)
    last.child.stdin!.write('go on\n')
    expect(await last.until('ended')).toBe(3)
    const records = (await collect(store.session('k').read())).map(({ record }) => record)
    const [a, b, c] = [frozen, next, last].map(({ child }) => child.pid)
    expect(records).toEqual([{ asks: a }, { asks: b }, { asks: c }, { answers: c }])
    const turns = await store.turns({ key: 'k' })
    expect(turns.map(({ turn, state }) => [turn, state])).toEqual([
      [3, 'completed'],
      [2, 'interrupted'],
      [1, 'interrupted'],
    ])
  })
})
