import fs from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { holdfast, jsonLines, scratch, start } from './run.js'

const place = scratch()
const store = place.path('store')
const key = 'agent:main:main'

beforeAll(async () => {
  const opened = await SessionStore.open(store)
  const session = opened.session(key)
  for (let i = 1; i <= 12; i++)
    await session.append({
      type: 'message',
      timestamp: `2026-01-02T03:04:${String(i).padStart(2, '0')}.000Z`,
      message: { role: 'user', content: `line ${i}` },
    })
  await opened.update(key, () => ({ model: 'opus', label: 'a\u0007b' }))
  await opened.session('agent:main:other').append({ type: 'note' }, { id: 'evt-1' })
  await opened.session('cron:nightly').append([{ type: 'a' }, { type: 'b' }])
  await opened.update('empty', () => ({}))
  await opened.close()
})
afterAll(() => place.remove())

const on = (...args: string[]) => holdfast([...args, '--store', store])

describe('list', () => {
  test('one line a session, in the order of the keys', async () => {
    const { code, stdout, stderr } = await on('list')
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const rows = stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.split('\t'))
    expect(rows.map(([name]) => name)).toEqual(['agent:main:main', 'agent:main:other', 'cron:nightly', 'empty'])
    for (const row of rows)
      expect(row).toEqual([
        expect.any(String),
        expect.stringMatching(/^[0-9a-f-]{36}$/),
        expect.stringMatching(/^20.*Z$/),
        expect.stringMatching(/^\d+$/),
      ])
  })

  test('--prefix keeps those that begin with it; none is said on stderr', async () => {
    expect((await on('list', '--prefix', 'agent:main:')).stdout.trimEnd().split('\n')).toHaveLength(2)
    expect(await on('list', '--prefix', 'nobody')).toEqual(
      expect.objectContaining({ code: 0, stdout: '', stderr: `No session's key begins with "nobody".\n` }),
    )
  })

  test('--json prints key and entry', async () => {
    const sessions = jsonLines<{ key: string; entry: Record<string, unknown> }>((await on('list', '--json')).stdout)
    expect(sessions[0]).toEqual({
      key,
      entry: {
        sessionId: expect.any(String),
        createdAt: expect.any(Number),
        updatedAt: expect.any(Number),
        revision: expect.any(Number),
        model: 'opus',
        label: 'a\u0007b',
      },
    })
  })
})

describe('show', () => {
  test('--json prints the entry and the transcript', async () => {
    const [shown] = jsonLines<{ entry: { sessionId: string }; transcript: object }>((await on('show', key, '--json')).stdout)
    expect(shown).toEqual({
      key,
      entry: expect.objectContaining({ model: 'opus' }),
      transcript: {
        file: `transcripts/${shown!.entry.sessionId}.jsonl`,
        bytes: expect.any(Number),
        modifiedAt: expect.any(Number),
        records: 12,
        firstSeq: 1,
        lastSeq: 12,
      },
      turns: [],
    })
  })

  test('a session without records has no transcript', async () => {
    expect(jsonLines((await on('show', 'empty', '--json')).stdout)[0]).toMatchObject({ transcript: null })
    expect((await on('show', 'empty')).stdout).toMatch(/^transcript\tnone yet$/m)
  })

  test('the text has the same facts', async () => {
    const { stdout } = await on('show', key)
    expect(stdout).toMatch(/^key\tagent:main:main$/m)
    expect(stdout).toMatch(/^records\t12 \(seq 1 to 12\)$/m)
    expect(stdout).toContain('"model": "opus"')
    expect(stdout).not.toContain('\u0007')
  })
})

describe('tail', () => {
  test('the last ten, oldest first; -n says how many', async () => {
    const { stdout } = await on('tail', key)
    const lines = stdout.trimEnd().split('\n')
    expect(lines).toHaveLength(10)
    expect(lines[0]).toBe('3\t2026-01-02T03:04:03.000Z\tuser\tline 3')
    expect((await on('tail', key, '-n', '2')).stdout.trimEnd().split('\n').at(-1)).toContain('line 12')
    expect((await on('tail', key, '-n', '0')).stdout).toBe('')
    expect((await on('tail', key, '--lines', '99')).stdout.trimEnd().split('\n')).toHaveLength(12)
  })

  test('--json prints the records as they are', async () => {
    const { stdout } = await on('tail', 'agent:main:other', '--json')
    expect(jsonLines(stdout)).toEqual([
      { seq: 1, sessionId: expect.any(String), id: 'evt-1', turn: null, request: null, record: { type: 'note' } },
    ])
  })

  test('a session without records prints nothing', async () => {
    expect(await on('tail', 'empty')).toMatchObject({ code: 0, stdout: '', stderr: '' })
  })

  test('-f shows what another process appends, goes across a rotation without losing a record, and ends on Ctrl-C', async () => {
    const followed = place.path('followed')
    const opened = await SessionStore.open(followed, { durability: 'process' })
    const session = opened.session('k')
    await session.append({ n: 0 })
    const tail = start(['tail', 'k', '-f', '-n', '0', '--json', '--store', followed])
    // It is following once it has printed something appended after its start.
    const seen = () => jsonLines<{ record: { n: number } }>(tail.stdout()).map(({ record }) => record.n)
    let n = 0
    while (seen().length === 0 && n < 200) {
      await session.append({ n: ++n })
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    const first = seen()[0]!
    // Appended right before and right after: what a slow reader would miss.
    for (let round = 0; round < 5; round++) {
      await session.append([{ n: ++n }, { n: ++n }])
      await session.rotate({ reason: 'test' })
      await session.append({ n: ++n })
      await new Promise((resolve) => setTimeout(resolve, 150 * (round % 2)))
    }
    await opened.close()
    await tail.until(new RegExp(`"n":${n}\\}`))
    tail.child.kill('SIGINT')
    const { code, stderr } = await tail.ended
    expect(code).toBe(130)
    expect(stderr).toMatch(/"k" goes on in session/)
    expect(stderr).not.toMatch(/Error|\n\s+at /)
    expect(seen()).toEqual(Array.from({ length: n - first + 1 }, (_, i) => first + i))
  })

  test('-f ends when the session is deleted, and says where the transcript is', async () => {
    const doomed = place.path('doomed')
    const opened = await SessionStore.open(doomed)
    await opened.session('k').append({ n: 1 })
    const tail = start(['tail', 'k', '-f', '--json', '--store', doomed])
    await tail.until(/"n":1/)
    await opened.delete('k')
    await opened.close()
    expect(await tail.ended).toMatchObject({ code: 0, stderr: expect.stringContaining('has been deleted; its transcript is in archive/') })
  })
})

describe('locks', () => {
  test('nobody holds anything', async () => {
    expect((await on('locks')).stdout).toMatch(/^No lock is held \(\d+ locks? looked at\)\.\n$/)
    expect(await on('locks', '--json')).toMatchObject({ code: 0, stdout: '' })
  })

  test('--all lists the free ones too', async () => {
    expect((await on('locks', '--all')).stdout).toMatch(/^metadata\tfree\t/m)
  })

  test('a holder that was killed is shown with its pid and as dead', async () => {
    const held = place.path('held')
    const child = start(['--version'])
    const { pid } = child.child
    await child.ended
    // The name of a held lock, as a process leaves it that dies while holding: made from a free one.
    const opened = await SessionStore.open(held)
    await opened.update('k', () => ({}))
    const names = await holderNameOf(opened, held)
    await opened.close()
    const [free] = fs.readdirSync(`${held}/locks/metadata`)
    fs.renameSync(`${held}/locks/metadata/${free}`, `${held}/locks/metadata/${names(pid!)}`)
    const [shown] = jsonLines<{ holder: Record<string, unknown> }>((await holdfast(['locks', '--json', '--store', held])).stdout)
    expect(shown).toMatchObject({
      lock: 'metadata',
      state: 'held',
      holder: { pid, verdict: 'dead', why: expect.stringContaining(String(pid)), since: expect.any(String) },
    })
    expect((await holdfast(['locks', '--store', held])).stdout).toMatch(new RegExp(`^metadata\\theld\\tpid ${pid} on .*\\tdead\\t`))
  })
})

/** How this machine names a holder: taken from a lock held by this process, with another pid in its place. */
async function holderNameOf(store: SessionStore<Record<string, unknown>>, dir: string): Promise<(pid: number) => string> {
  let name = ''
  await store.withStoreLock(() => {
    name = fs.readdirSync(`${dir}/locks/metadata`)[0] ?? ''
  })
  return (pid) => name.replace(new RegExp(`(?<=[.~_-])${process.pid}(?=[.~_-])`), String(pid))
}

describe('stats', () => {
  test('--json counts what is there', async () => {
    const { code, stdout } = await on('stats', '--json')
    expect(code).toBe(0)
    const [stats] = jsonLines<{ bytesOnDisk: number; transcripts: { records: number } }>(stdout)
    expect(stats).toMatchObject({
      sessions: { count: 4, oldestUpdatedAt: expect.any(Number), newestUpdatedAt: expect.any(Number) },
      metadata: { snapshotBytes: expect.any(Number), journalBytes: expect.any(Number), journalRecords: expect.any(Number), voidLines: 0 },
      transcripts: { files: 3, voidLines: 0, tornTailBytes: 0 },
      archive: { files: 0 },
      quarantine: { files: 0, bytes: 0 },
      locks: { held: 0, stale: 0, waiting: 0 },
      damage: 0,
    })
    expect(stats!.transcripts.records).toBeGreaterThanOrEqual(15)
    expect(stats!.bytesOnDisk).toBeGreaterThan(1_000)
  })

  test('the text has the same facts', async () => {
    const { stdout } = await on('stats')
    expect(stdout).toMatch(/^sessions\t4$/m)
    expect(stdout).toMatch(/^transcripts\t\d+ records in 3 files, /m)
    expect(stdout).toMatch(/^damage\tnone$/m)
  })
})

describe('verify', () => {
  test('a sound store: every file, and exit 0', async () => {
    const { code, stdout } = await on('verify', '--json')
    expect(code).toBe(0)
    const [report] = jsonLines<{ ok: boolean; files: { file: string; kind: string }[]; damage: object[] }>(stdout)
    expect(report).toMatchObject({ ok: true, damage: [] })
    expect(report!.files.map(({ file }) => file)).toEqual(expect.arrayContaining(['sessions.json', 'sessions.journal.jsonl']))
    expect(report!.files.filter(({ kind }) => kind === 'transcript')).toHaveLength(3)
    expect((await on('verify')).stdout).toMatch(/^ok\t\d+ files, \d+ records, .*B$/m)
  })

  test('a torn tail and a void line are counted, and are not damage', async () => {
    const worn = place.path('worn')
    fs.cpSync(store, worn, { recursive: true })
    const file = await transcriptOf(worn, key)
    fs.appendFileSync(file, 'garbage\n{"type":"mess')
    const { code, stdout } = await holdfast(['verify', '--json', '--store', worn])
    expect(code).toBe(0)
    const [report] = jsonLines<{ files: { voidLines: number; tornTailBytes: number }[] }>(stdout)
    expect(report!.files).toContainEqual(expect.objectContaining({ voidLines: 1, tornTailBytes: 13 }))
  })

  // F29: a chunk is missing, everything still parses.
  test('a line missing from the middle is damage: said with file and place, exit 1', async () => {
    const damaged = place.path('damaged')
    fs.cpSync(store, damaged, { recursive: true })
    const file = await transcriptOf(damaged, key)
    const lines = fs.readFileSync(file, 'utf8').split('\n')
    fs.writeFileSync(file, [...lines.slice(0, 5), ...lines.slice(6)].join('\n'))
    const { code, stdout } = await holdfast(['verify', '--json', '--store', damaged])
    expect(code).toBe(1)
    const [report] = jsonLines<{ ok: boolean; damage: { file: string; code: string }[] }>(stdout)
    expect(report).toMatchObject({ ok: false, damage: [{ code: 'LOG_CORRUPT', file: expect.stringMatching(/^transcripts\//) }] })
    const text = await holdfast(['verify', '--store', damaged])
    expect(text.code).toBe(1)
    expect(text.stdout).toMatch(/^damage\ttranscripts\/.*LOG_CORRUPT/m)
    expect((await holdfast(['stats', '--store', damaged])).code).toBe(1)
    // Reading it says so too, as one paragraph, with the code in front and a next step at the end.
    const tail = await holdfast(['tail', key, '-n', '12', '--store', damaged])
    expect(tail.code).toBe(1)
    expect(tail.stderr).toMatch(/^holdfast: LOG_CORRUPT .*\n$/)
  })

  // F19
  test('an empty sessions.json is damage, for verify and for list', async () => {
    const emptied = place.path('emptied')
    fs.cpSync(store, emptied, { recursive: true })
    fs.writeFileSync(`${emptied}/sessions.json`, '')
    expect((await holdfast(['verify', '--store', emptied])).code).toBe(1)
    const { code, stdout, stderr } = await holdfast(['list', '--store', emptied])
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(/^holdfast: STORE_CORRUPT .*\n$/)
  })
})

async function transcriptOf(dir: string, name: string): Promise<string> {
  const [shown] = jsonLines<{ transcript: { file: string } }>((await holdfast(['show', name, '--json', '--store', dir])).stdout)
  return `${dir}/${shown!.transcript.file}`
}
