import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { importing, type Report, recordsOf, userMessage, versions } from './importing.js'
import { bin, holdfast, jsonLines, scratch, start, writeLines } from './run.js'

const place = scratch()
afterAll(() => place.remove())

describe('what cannot be imported, and what cuts an import short', () => {
  test('a path that is not there, a directory with nothing in it, a store: wrong use, and no store is made', async () => {
    const nothing = place.path('nothing')
    fs.mkdirSync(nothing)
    const opened = await SessionStore.open(place.path('a-store'))
    await opened.update('k', () => ({}))
    await opened.close()
    for (const [source, said] of [
      [place.path('nowhere'), /There is nothing at/],
      [nothing, /Nothing to import was found/],
      [place.path('a-store'), /is itself a Holdfast store/],
    ] as const) {
      const { code, stdout, stderr } = await holdfast(['import', source, '--store', place.path('never')])
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
      expect(stderr).toMatch(said)
    }
    expect(fs.existsSync(place.path('never'))).toBe(false)
  })

  test('Ctrl-C in the middle keeps a prefix, says so, exits 130; the same command goes on from there', async () => {
    const [store, file] = [place.path('cut'), place.path('cut.jsonl')]
    const lines = [versions[1][0], ...Array.from({ length: 40_000 }, (_, n) => ({ ...userMessage(n), filler: 'x'.repeat(200) }))]
    writeLines(file, lines)
    const run = start(['import', file, '--json', '--store', store])
    await grown(store, 100_000)
    run.child.kill('SIGINT')
    const { code, stdout, stderr } = await run.ended
    const [report] = jsonLines<Report>(stdout)
    expect(code).toBe(130)
    expect(report).toMatchObject({ finished: false, leftOut: 0 })
    expect(stderr).not.toMatch(/Error|\n\s+at /)
    const kept = await recordsOf(store, 'pi:shop:v1')
    expect(kept.length).toBe(report!.added)
    expect(kept.length).toBeGreaterThan(0)
    expect(kept.length).toBeLessThan(lines.length)
    expect(kept.map(({ record }) => record)).toEqual(lines.slice(0, kept.length))
    expect(await importing(store, file)).toMatchObject({ code: 0, added: lines.length - kept.length, present: kept.length, stderr: '' })
    expect((await recordsOf(store, 'pi:shop:v1')).map(({ record }) => record)).toEqual(lines)
    // The store remembers the last 10,000 ids; an import knows what is there without them.
    expect(await importing(store, file)).toMatchObject({ code: 0, added: 0, present: lines.length, stderr: '' })
  }, 120_000)

  test('killed in the middle, again and again, the last run completes it without doubling', async () => {
    const [store, file] = [place.path('killed'), place.path('killed.jsonl')]
    const lines = [versions[1][0], ...Array.from({ length: 20_000 }, (_, n) => ({ ...userMessage(n), filler: 'x'.repeat(200) }))]
    writeLines(file, lines)
    const kept: number[] = []
    for (let kill = 0; kill < 3; kill++) {
      const run = start(['import', file, '--store', store])
      // More than one batch: of the first one alone, killed in mid-write, nothing would count.
      await grown(store, transcriptBytes(store) + 600_000)
      run.child.kill('SIGKILL')
      await run.ended
      kept.push((await recordsOf(store, 'pi:shop:v1')).length)
    }
    expect(kept).toEqual([...kept].sort((a, b) => a - b))
    expect(kept[0]).toBeGreaterThan(0)
    expect(kept.at(-1)).toBeLessThan(lines.length)
    expect(await importing(store, file)).toMatchObject({ code: 0, present: kept.at(-1), added: lines.length - kept.at(-1)! })
    expect((await recordsOf(store, 'pi:shop:v1')).map(({ record }) => record)).toEqual(lines)
  }, 120_000)
})

// P6
test('several imports of one file at once bring it in once, in order', async () => {
  const [store, file] = [place.path('twice'), place.path('twice.jsonl')]
  const lines = [versions[1][0], ...Array.from({ length: 3_000 }, (_, n) => userMessage(n))]
  writeLines(file, lines)
  const reports = await Promise.all([importing(store, file), importing(store, file), importing(store, file)])
  expect(reports.map(({ code }) => code)).toEqual([0, 0, 0])
  expect(reports.reduce((sum, { added }) => sum + added, 0)).toBe(lines.length)
  expect((await recordsOf(store, 'pi:shop:v1')).map(({ record }) => record)).toEqual(lines)
})

test('one session that cannot be taken does not keep the others out', async () => {
  const [store, dir] = [place.path('some-store'), place.path('some')]
  for (const version of [2, 3] as const) writeLines(path.join(dir, `s${version}.jsonl`), versions[version])
  const describing = (keys: Record<string, string>) => {
    const sessions = Object.fromEntries(Object.entries(keys).map(([key, sessionId]) => [key, { sessionId }]))
    fs.writeFileSync(path.join(dir, 'sessions.json'), JSON.stringify(sessions))
  }
  describing({ damaged: 's2' })
  await importing(store, dir)
  const [name] = fs.readdirSync(path.join(store, 'transcripts'))
  const file = path.join(store, 'transcripts', name!)
  // Bytes that were acknowledged are gone from the middle.
  const bytes = fs.readFileSync(file)
  fs.writeFileSync(file, Buffer.concat([bytes.subarray(0, 300), bytes.subarray(320)]))
  describing({ damaged: 's2', [`too long ${'x'.repeat(600)}`]: 's3', sound: 's3' })
  const report = await importing(store, dir)
  expect(report).toMatchObject({ code: 1, finished: true, added: 4, leftOut: 2 })
  expect(report.problems.map(({ why }) => why)).toEqual([expect.stringContaining('LOG_CORRUPT'), expect.stringContaining('INVALID_KEY')])
  expect(await recordsOf(store, 'sound')).toHaveLength(4)
})

test.skipIf(process.platform === 'win32')(
  'a disk that is full in the middle: exit 3, the reason, a prefix kept; with room again the import goes on',
  async () => {
    const [store, file] = [place.path('full'), place.path('full.jsonl')]
    const lines = [versions[1][0], ...Array.from({ length: 5_000 }, (_, n) => ({ ...userMessage(n), filler: 'x'.repeat(200) }))]
    writeLines(file, lines)
    const full = spawnSync(
      'bash',
      ['-c', `ulimit -f 500; exec "$0" "$@"`, process.execPath, bin, 'import', file, '--json', '--store', store],
      { encoding: 'utf8' },
    )
    expect(full.status).toBe(3)
    const [report] = jsonLines<Report>(full.stdout)
    expect(report).toMatchObject({ finished: false, leftOut: 0, notes: [] })
    expect(jsonLines(full.stderr)).toEqual([
      { error: expect.objectContaining({ code: 'DISK_FULL', exitCode: 3, effect: 'none', retryable: true }) },
    ])
    const kept = await recordsOf(store, 'pi:shop:v1')
    expect(kept.length).toBe(report!.added)
    expect(kept.length).toBeGreaterThan(0)
    expect(kept.map(({ record }) => record)).toEqual(lines.slice(0, kept.length))
    expect(await importing(store, file)).toMatchObject({ code: 0, present: kept.length, added: lines.length - kept.length })
    expect((await recordsOf(store, 'pi:shop:v1')).map(({ record }) => record)).toEqual(lines)
    expect((await holdfast(['verify', '--store', store])).code).toBe(0)
  },
)

function transcriptBytes(store: string): number {
  const dir = path.join(store, 'transcripts')
  const names = fs.existsSync(dir) ? fs.readdirSync(dir) : []
  return names.reduce((sum, name) => sum + fs.statSync(path.join(dir, name)).size, 0)
}

async function grown(store: string, bytes: number): Promise<void> {
  for (const by = Date.now() + 30_000; transcriptBytes(store) < bytes; await new Promise((resolve) => setTimeout(resolve, 1))) {
    if (Date.now() > by) throw new Error(`${store} did not grow to ${bytes} bytes`)
  }
}
