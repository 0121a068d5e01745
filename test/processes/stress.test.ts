// `holdfast stress` as a program: it comes to an end whatever happens, says what it found, and leaves nothing running and nothing behind.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { compiled, fleetOptions, freshDirectory, trial } from './trials.js'

const linux = process.platform === 'linux'

describe('a trial comes to an end, and says why', () => {
  const short = { seconds: 1, writers: 2, waitMs: 50, maxHoldMs: 10 }

  test('where calls never return: what hangs is killed', async () => {
    const options = fleetOptions(freshDirectory(), { ...short, subject: 'test/processes/hanging-store.js' })
    fs.mkdirSync(options.dir)
    const { ok, troubles } = await trial('a store that hangs', options)
    expect(ok).toBe(false)
    expect(troubles).toEqual([
      expect.stringMatching(/^writer 0\.1 did not come to an end within \d+ ms and was killed$/),
      expect.stringMatching(/^writer 1\.1 did not come to an end/),
      'nothing at all was acknowledged',
    ])
  })

  test('where no writer can start: after a few tries, with what the writers said', async () => {
    const begun = performance.now()
    const options = fleetOptions(freshDirectory(), { ...short, seconds: 60, subject: 'test/processes/not-there.js' })
    const { ok, troubles, analysis } = await trial('a store that is not there', options)
    expect(performance.now() - begun).toBeLessThan(30_000)
    expect({ ok, analysis }).toEqual({ ok: false, analysis: undefined })
    expect(troubles).toHaveLength(2 * 3 + 1)
    for (const trouble of troubles) expect(trouble).toContain('not-there.js')
  })

  test.skipIf(!linux)('where a writer is ended by somebody else: that is told, and another one goes on', async () => {
    const options = fleetOptions(freshDirectory(), { ...short, seconds: 3, waitMs: 2_000, maxHoldMs: 500 })
    const running = trial('a writer ended by somebody else', options)
    const writers = () => childrenOf(process.pid).filter((pid) => fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('writer.js'))
    await expect.poll(() => writers().length, { timeout: 10_000 }).toBe(2)
    await setTimeout(500)
    process.kill(Number(writers()[0]), 'SIGTERM')
    const { ok, troubles, analysis } = await running
    expect(ok).toBe(false)
    expect(troubles).toEqual([expect.stringMatching(/^writer \d\.1: it ended by SIGTERM/)])
    expect(analysis?.violations.counts.lost).toBe(0)
  })
})

describe('the command', () => {
  const program = fileURLToPath(new URL('test/processes/stress-program.js', compiled))

  async function run(args: string[], cwd = freshDirectory()) {
    const options = { cwd, env: { ...process.env, TMPDIR: freshDirectory() } }
    return new Promise<{ code: number; stdout: string; stderr: string; left: string[] }>((resolve) => {
      execFile(process.execPath, [program, ...args], options, (error, stdout, stderr) => {
        const left = [...fs.readdirSync(cwd), ...fs.readdirSync(options.env.TMPDIR)]
        resolve({ code: error ? Number(error.code) : 0, stdout, stderr, left })
      })
    })
  }

  test('prints a table with the seed, says ok and leaves nothing behind', async () => {
    const { code, stdout, stderr, left } = await run(['--seconds', '1', '--writers', '4', '--seed', 'abc', '--max-hold-ms', '100'])
    expect(stderr, stdout).toBe('')
    expect(code).toBe(0)
    for (const line of [/^acknowledged\t[\d,]+\t/m, /^lost\t0\t/m, /^doubled\t0\t/m, /^takeovers\t/m, /^seed\tabc/m, /^ok\t/m])
      expect(stdout).toMatch(line)
    expect(left).toEqual([])
  })

  test('takes its records from a transcript and its words to a program as JSON', async () => {
    const cwd = freshDirectory()
    const lines = Array.from({ length: 5 }, (_, n) =>
      JSON.stringify({ type: 'message', n, $: 'of another store', deep: { ünïcode: ['\u2028'] } }),
    )
    fs.writeFileSync(join(cwd, 'input.jsonl'), `${lines.join('\n')}\n`)
    const { code, stdout, left } = await run(['--seconds', '1', '--writers', '2', '--no-chaos', '--input', 'input.jsonl', '--json'], cwd)
    const report = JSON.parse(stdout)
    expect(code).toBe(0)
    expect(report).toMatchObject({ ok: true, interrupted: false, kept: [], struck: { kills: 0, freezes: 0, stalls: 0 } })
    expect(report.analysis.acknowledged.records).toBeGreaterThan(0)
    expect(left).toEqual(['input.jsonl'])
  })

  test.each([
    [['--writers', '0']],
    [['--seconds', 'soon']],
    [['--durability', 'maybe']],
    [['--input', 'not-there.jsonl']],
    [['--dir', '/dev/null/nowhere']],
    [['--seed', 'a b']],
  ])('answers wrong use %j with 2 and a sentence', async (args) => {
    const { code, stderr, left } = await run(args)
    expect(code).toBe(2)
    expect(stderr.trim().length).toBeGreaterThan(20)
    expect(left).toEqual([])
  })

  test('ends on Ctrl-C with the report so far and 130, and leaves no process running', async () => {
    const child = start(['--seconds', '60', '--writers', '3', '--json'])
    const writers = await writersOf(child)
    await setTimeout(500)
    child.kill('SIGINT')
    const stdout = await textOf(child)
    expect(child.exitCode).toBe(130)
    expect(JSON.parse(stdout)).toMatchObject({ interrupted: true, ok: true, analysis: { violations: { counts: { lost: 0 } } } })
    expect(writers.filter(isRunning)).toEqual([])
  })

  test.skipIf(!linux)('leaves no writer running when it is killed itself, not even a frozen one', async () => {
    const child = start(['--seconds', '60', '--writers', '4', '--max-hold-ms', '300'])
    await writersOf(child)
    let writers: number[] = []
    const frozen = () => {
      writers = childrenOf(child.pid)
      return writers.some((pid) => stateOf(pid) === 'T')
    }
    await expect.poll(frozen, { timeout: 20_000, interval: 10 }).toBe(true)
    child.kill('SIGKILL')
    await once(child, 'exit')
    await expect.poll(() => writers.filter(isRunning), { timeout: 5_000 }).toEqual([])
  })

  function start(args: string[]): ChildProcess {
    const env = { ...process.env, TMPDIR: freshDirectory() }
    const child = spawn(process.execPath, [program, ...args], { cwd: freshDirectory(), env, stdio: ['ignore', 'pipe', 'inherit'] })
    onTestFinished(() => void child.kill('SIGKILL'))
    return child
  }

  async function textOf(child: ChildProcess): Promise<string> {
    let text = ''
    child.stdout?.setEncoding('utf8').on('data', (piece: string) => {
      text += piece
    })
    await once(child, 'close')
    return text
  }

  /** Where they can be listed: the writers of a command that has begun. */
  async function writersOf({ pid }: ChildProcess): Promise<number[]> {
    if (linux) await expect.poll(() => childrenOf(pid).length, { timeout: 10_000 }).toBeGreaterThan(2)
    return childrenOf(pid)
  }
})

function childrenOf(pid: number | undefined): number[] {
  const path = `/proc/${pid}/task/${pid}/children`
  return fs.existsSync(path) ? fs.readFileSync(path, 'utf8').split(' ').filter(Boolean).map(Number) : []
}

function isRunning(pid: number): boolean {
  return !['Z', 'X', undefined].includes(stateOf(pid))
}

/** The kernel's letter; undefined for a process that is gone. */
function stateOf(pid: number): string | undefined {
  try {
    return /\) ([A-Za-z]) /.exec(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1]
  } catch {
    return undefined
  }
}
