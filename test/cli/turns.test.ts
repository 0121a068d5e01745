/** `holdfast turns` and `holdfast interrupt`, beside processes that run turns. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { bin, holdfast, jsonLines, scratch, start } from './run.js'
import { endRuntimes, startRuntime } from './turning.js'

interface Shown {
  readonly key: string
  readonly sessionId: string | null
  readonly turn: number | null
  readonly requestId: string
  readonly state: string
  readonly position: number | null
  readonly holder: { readonly pid: number; readonly verdict: string } | null
}

const key = 'agent:main:main'
let place: ReturnType<typeof scratch>
let store: string

beforeEach(async () => {
  place = scratch()
  store = place.path('store')
  await (await SessionStore.open(store)).close()
})
afterEach(async () => {
  await endRuntimes()
  place.remove()
})

const on = (...args: string[]) => holdfast([...args, '--store', store])
const shown = async (...args: string[]) => jsonLines<Shown>((await on('turns', ...args, '--json')).stdout)

/** Looks again until it is so. */
async function until<R>(look: () => Promise<R>, so: (found: R) => boolean): Promise<R> {
  for (const by = Date.now() + 20_000; ; await sleep(50)) {
    const found = await look()
    if (so(found)) return found
    if (Date.now() > by) throw new Error(`it never came to that: ${JSON.stringify(found)}`)
  }
}

describe('turns', () => {
  test('nobody runs anything', async () => {
    expect(await on('turns')).toMatchObject({ code: 0, stdout: '', stderr: 'No turn is active or queued.\n' })
    expect(await on('turns', '--json')).toMatchObject({ code: 0, stdout: '' })
  })

  test('a key that nobody has ever used is wrong use', async () => {
    expect(await on('turns', 'nobody')).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringContaining('There is no session "nobody"'),
    })
  })

  test('who is active and who waits, of two processes, in the order of the line', async () => {
    const [a, b] = [await startRuntime(store), await startRuntime(store)]
    a.ask(key, { requestId: 'r-1', channelId: 'telegram:42' })
    await a.begun('r-1')
    b.ask(key, { requestId: 'r-2', lane: 'subagent' })
    await until(shown, ({ length }) => length === 2)
    a.ask('agent:main:other', { requestId: 'r-3' })
    await a.begun('r-3')
    const found = await shown()
    const sessionId = expect.stringMatching(/^[0-9a-f-]{36}$/)
    const holder = (pid: number) => ({ pid, host: expect.any(String), verdict: 'alive', why: expect.stringContaining(String(pid)) })
    const times = { since: expect.any(Number), ageMs: expect.any(Number) }
    expect(found).toEqual([
      {
        key,
        sessionId,
        turn: 1,
        requestId: 'r-1',
        channelId: 'telegram:42',
        lane: 'main',
        state: 'active',
        position: 0,
        holder: holder(a.pid),
        ...times,
      },
      {
        key,
        sessionId: null,
        turn: null,
        requestId: 'r-2',
        channelId: null,
        lane: 'subagent',
        state: 'queued',
        position: 1,
        holder: holder(b.pid),
        ...times,
      },
      {
        key: 'agent:main:other',
        sessionId,
        turn: 1,
        requestId: 'r-3',
        channelId: null,
        lane: 'main',
        state: 'active',
        position: 0,
        holder: holder(a.pid),
        ...times,
      },
    ])
    const { stdout } = await on('turns')
    expect(stdout).toMatch(
      new RegExp(`^${key}\t1\tactive\t0\t[\\d.]+ m?s\tr-1\ttelegram:42\tmain\t[0-9a-f-]{36}\tpid ${a.pid} on .*\talive: `, 'm'),
    )
    expect(stdout).toMatch(new RegExp(`^${key}\t-\tqueued\t1\t[\\d.]+ m?s\tr-2\t-\tsubagent\t-\tpid ${b.pid} on `, 'm'))
    expect((await on('show', key)).stdout).toMatch(/^active\tturn 1, request r-1, since .*\n(?:.*\n)*queued\trequest r-2, since /m)
  })

  test('of one key also those that are over, newest first, no more than asked for', async () => {
    const runtime = await startRuntime(store)
    for (const requestId of ['r-1', 'r-2', 'r-3']) {
      runtime.ask(key, { requestId }, true)
      expect(await runtime.over(requestId)).toBe('completed')
    }
    expect((await shown(key)).map(({ turn, requestId, state }) => [turn, requestId, state])).toEqual([
      [3, 'r-3', 'completed'],
      [2, 'r-2', 'completed'],
      [1, 'r-1', 'completed'],
    ])
    expect(await shown(key, '--limit', '1')).toMatchObject([{ turn: 3, position: null, holder: null }])
    expect(await shown()).toEqual([])
  })

  test('a turn whose process was killed is shown as interrupted, and its holder as dead', async () => {
    const runtime = await startRuntime(store)
    runtime.ask(key, { requestId: 'r-1' })
    await runtime.begun('r-1')
    runtime.signal('SIGKILL')
    const found = await until(shown, ([first]) => first?.holder?.verdict === 'dead')
    expect(found).toMatchObject([{ turn: 1, requestId: 'r-1', state: 'interrupted', position: null, holder: { pid: runtime.pid } }])
    expect((await on('locks')).stdout).toMatch(new RegExp(`^turns/\\w+\theld\tpid ${runtime.pid} on .*\tturn of ${key}\t.*\tdead\t`, 'm'))
  })

  test('--watch --json says what changes, also what is over before anybody looked, until Ctrl-C', async () => {
    const watch = start(['turns', '--watch', '--json', '--store', store])
    const runtime = await startRuntime(store)
    runtime.ask(key, { requestId: 'r-1' })
    await runtime.begun('r-1')
    await watch.until(/"requestId":"r-1".*"state":"active"/)
    runtime.ask(key, { requestId: 'r-2' })
    await watch.until(/"requestId":"r-2".*"state":"queued","position":1/)
    runtime.ask(key, { requestId: 'r-3' }, true)
    runtime.end('r-1')
    await runtime.begun('r-2')
    runtime.end('r-2')
    await watch.until(/"left".*"requestId":"r-3"/)
    watch.child.kill('SIGINT')
    expect(await watch.ended).toMatchObject({ code: 130, stderr: '' })
    const changes = jsonLines<Shown & { change: string }>(watch.stdout())
    const left = changes.filter(({ change }) => change === 'left')
    expect(left.map(({ requestId, state, turn }) => [requestId, state, turn])).toEqual([
      ['r-1', 'completed', 1],
      ['r-2', 'completed', 2],
      ['r-3', 'completed', 3],
    ])
    expect(changes[0]).toMatchObject({ change: 'came', requestId: 'r-1' })
  })

  test('--watch in a pipe prints rows, with the change in front', async () => {
    const runtime = await startRuntime(store)
    runtime.ask(key, { requestId: 'r-1' })
    await runtime.begun('r-1')
    const watch = start(['turns', key, '-w', '--store', store])
    await watch.until(/^came\tagent:main:main\t1\tactive\t0\t/)
    runtime.end('r-1')
    await watch.until(/^left\tagent:main:main\t1\tcompleted\t-\t/m)
    watch.child.kill('SIGTERM')
    expect(await watch.ended).toMatchObject({ code: 130, stderr: '' })
  })

  const scripted = spawnSync('script', ['--version']).status === 0
  test.skipIf(!scripted)('--watch on a terminal draws the table on a screen of its own, and gives the old one back', async () => {
    const runtime = await startRuntime(store)
    runtime.ask(key, { requestId: 'r-1' })
    await runtime.begun('r-1')
    const out = place.path('terminal')
    const command = `'${process.execPath}' '${bin}' turns --watch --store '${store}'`
    spawnSync('timeout', ['--foreground', '-s', 'INT', '3', 'script', '-qec', `timeout --foreground -s INT 2 ${command}`, out], {
      stdio: 'ignore',
      env: { ...process.env, TERM: 'xterm' },
    })
    const drawn = fs.readFileSync(out, 'latin1')
    const [before, after] = ['\x1b[?1049h', '\x1b[?1049l'].map((code) => drawn.indexOf(code))
    expect(before).toBeGreaterThanOrEqual(0)
    expect(drawn.slice(before, after)).toContain('r-1')
    expect(after).toBeGreaterThan(before!)
    expect(drawn.match(/until Ctrl-C/g)!.length).toBeGreaterThan(1)
  })
})

describe('interrupt', () => {
  test('aborts the active turn of another process; whoever waits goes on', async () => {
    const runtime = await startRuntime(store)
    runtime.ask(key, { requestId: 'r-1' })
    await runtime.begun('r-1')
    runtime.ask(key, { requestId: 'r-2' })
    expect(await on('interrupt', key)).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(new RegExp(`^Asked turn 1 of ${key} to stop \\(request r-1, pid ${runtime.pid} on .*\\)\\.\n$`)),
      stderr: '',
    })
    expect(await runtime.over('r-1')).toBe('interrupted')
    await runtime.begun('r-2')
    const { code, stdout } = await on('interrupt', key, '--json')
    expect(code).toBe(0)
    expect(jsonLines(stdout)).toEqual([
      {
        key,
        interrupted: true,
        turn: expect.objectContaining({
          turn: 2,
          requestId: 'r-2',
          state: 'active',
          holder: expect.objectContaining({ pid: runtime.pid }),
        }),
      },
    ])
    expect(await runtime.over('r-2')).toBe('interrupted')
    expect((await shown(key)).map(({ turn, state }) => [turn, state])).toEqual([
      [2, 'interrupted'],
      [1, 'interrupted'],
    ])
  })

  test('no turn is active: exit 1, and nothing is done', async () => {
    const runtime = await startRuntime(store)
    runtime.ask(key, { requestId: 'r-1' }, true)
    await runtime.over('r-1')
    expect(await on('interrupt', key)).toMatchObject({ code: 1, stdout: '', stderr: `No turn of "${key}" is active.\n` })
    const { code, stdout } = await on('interrupt', key, '--json')
    expect({ code, json: jsonLines(stdout) }).toEqual({ code: 1, json: [{ key, interrupted: false, turn: null }] })
  })

  test('a key that nobody has ever used, or no store: wrong use, refused, and nothing is made', async () => {
    expect(await on('interrupt', 'nobody')).toMatchObject({ code: 2, stderr: expect.stringContaining('There is no session "nobody"') })
    const missing = place.path('missing')
    expect((await holdfast(['interrupt', key, '--store', missing])).code).toBe(3)
    expect(fs.existsSync(missing)).toBe(false)
  })
})

describe('what turns leave does not trouble the other commands', () => {
  test('verify finds no damage beside active and queued turns, and counts what callers have appended', async () => {
    const [a, b] = [await startRuntime(store), await startRuntime(store)]
    a.ask(key, { requestId: 'r-1', input: [{ n: 1 }, { n: 2 }] })
    await a.begun('r-1')
    b.ask(key, { requestId: 'r-2', input: { n: 3 } })
    await until(shown, ({ length }) => length === 2)
    b.signal('SIGKILL')
    const beside = await on('verify', '--json')
    expect(beside.code).toBe(0)
    expect(jsonLines(beside.stdout)).toMatchObject([{ ok: true, damage: [] }])
    a.end('r-1')
    await a.over('r-1')
    a.signal('SIGKILL')
    const [report] = jsonLines<{ ok: boolean; files: { kind: string; records: number }[] }>((await on('verify', '--json')).stdout)
    expect(report!.ok).toBe(true)
    const [show] = jsonLines<{ transcript: { records: number }; turns: Shown[] }>((await on('show', key, '--json')).stdout)
    expect(report!.files.find(({ kind }) => kind === 'transcript')!.records).toBe(show!.transcript.records)
  })

  test('tail --json says which turn has appended a record, and whose input it is', async () => {
    const runtime = await startRuntime(store)
    runtime.ask(key, { requestId: 'r-1', input: [{ n: 1 }, { n: 2 }] }, true)
    await runtime.over('r-1')
    expect(jsonLines((await on('tail', key, '--json')).stdout)).toMatchObject([
      { turn: null, request: 'r-1', record: { n: 1 } },
      { turn: null, request: null, record: { n: 2 } },
      { turn: 1, request: null, record: { type: 'message' } },
    ])
  })

  test('locks names the conversation of a lease, and counts those who wait for it', async () => {
    const [a, b] = [await startRuntime(store), await startRuntime(store)]
    a.ask(key, { requestId: 'r-1', maxTurnMs: 60_000 })
    await a.begun('r-1')
    const lease = async () =>
      jsonLines<{ lock: string; key?: string; waiting: number; holder: object }>((await on('locks', '--json')).stdout).find(({ lock }) =>
        lock.startsWith('turns/'),
      )
    expect(await lease()).toMatchObject({ key, waiting: 0, holder: { pid: a.pid, does: 'turn', maxHoldMs: 60_000, verdict: 'alive' } })
    b.ask(key, { requestId: 'r-2' })
    expect(await until(lease, (found) => found?.waiting === 1)).toMatchObject({ key, holder: { pid: a.pid } })
    expect((await on('locks')).stdout).toMatch(new RegExp(`^turns/\\w+\theld\tpid ${a.pid} on .*\tturn of ${key}\t`, 'm'))
  })
})
