/** Every kind of finding is produced by a damage made here, and `verify` tells it with its file, and as what it is; it writes nothing (P5). The
 *  table has a row for every kind: the type says so. */
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { placesIn } from '../../../src/file/format.js'
import { systemHost } from '../../../src/file/host.js'
import { bootTag } from '../../../src/file/log/chain.js'
import { withMark } from '../../../src/file/metadata/mark.js'
import type { Finding, FindingKind, Severity } from '../../../src/findings.js'
import { verifyStore } from '../../../src/maintenance/verify/verify.js'
import { SessionStore } from '../../../src/store.js'
import { batchOf, LogText } from '../../log/log-text.js'
import { filesIn, opened, storeDirectory } from '../../metadata/store-directory.js'
import { copyStore } from '../store-copy.js'

/** A store that is closed: the conversation `hurt` with nine records, the conversation `well` with one, a rotated one. */
class Site {
  readonly directory: string
  sessionId = ''

  constructor(directory: string) {
    this.directory = directory
  }

  static async made(): Promise<Site> {
    const site = new Site(storeDirectory())
    copyStore(pattern.directory, site.directory)
    site.sessionId = pattern.sessionId
    return site
  }

  async fill(): Promise<void> {
    const store = await SessionStore.open(this.directory, { durability: 'process' })
    for (let n = 1; n <= 9; n++) await store.session('hurt').append({ n, text: 'abc' })
    await store.session('well').append({ n: 1 })
    await store.session('closed').append({ n: 1 })
    await store.session('closed').rotate({ reason: 'reset' })
    this.sessionId = (await store.get('hurt'))!.sessionId
    await store.close()
  }

  path(file: string): string {
    return join(this.directory, file)
  }

  get transcript(): string {
    return `transcripts/${this.sessionId}.jsonl`
  }

  /** As it was on the disk: a moment later, so that whoever compares times sees the change. */
  edit(file: string, change: (bytes: Buffer) => Buffer): void {
    const path = this.path(file)
    writeFileSync(path, change(readFileSync(path)))
    utimesSync(path, new Date(), new Date())
  }

  /** Line 0 is the header. */
  editLines(change: (lines: Buffer[]) => Buffer[]): void {
    this.edit(this.transcript, (bytes) => Buffer.concat(change(linesOf(bytes))))
  }

  add(...pieces: (string | Buffer)[]): void {
    this.edit(this.transcript, (bytes) => Buffer.concat([bytes, ...pieces.map((piece) => Buffer.from(piece))]))
  }

  get lines(): Buffer[] {
    return linesOf(readFileSync(this.path(this.transcript)))
  }

  /** Where the next record of the transcript would go. */
  get next(): { seq: number; prev: number; synced: number } {
    const [, seq, crc] = /"\$":"(\d+)\..*\.([0-9a-f]{8})"\}\n$/.exec(this.lines.at(-1)!.toString())!
    return { seq: Number(seq) + 1, prev: Number.parseInt(crc!, 16), synced: -1 }
  }

  async with(work: (store: SessionStore) => Promise<unknown>): Promise<void> {
    const store = await SessionStore.open(this.directory, { durability: 'process' })
    await work(store as unknown as SessionStore)
    await store.close()
  }

  verify() {
    const host = systemHost()
    return verifyStore(host, placesIn(this.directory), bootTag(host.identity.boot), { chat: true })
  }
}

const around = mkdtempSync(join(tmpdir(), 'holdfast-kinds-'))
const pattern = new Site(join(around, 'store'))
beforeAll(() => pattern.fill())
afterAll(() => rmSync(around, { recursive: true, force: true }))

function linesOf(bytes: Buffer): Buffer[] {
  return bytes
    .toString('latin1')
    .split(/(?<=\n)/)
    .map((line) => Buffer.from(line, 'latin1'))
}

const tag = bootTag(systemHost().identity.boot)
const flipped = (line: Buffer) => {
  const copy = Buffer.from(line)
  copy[8]! ^= 1
  return copy
}
const deadHolder = (n: number) =>
  `held.${n}.${systemHost().identity.boot}.0.${systemHost().identity.pidNamespace}.4194303.1.1.15000.commit.host.abc123`

/** What the damage is, where it is told, how bad it is. Of a damage that is told as several things, this one. */
interface Row {
  readonly severity: Severity
  readonly make: (site: Site) => unknown
  readonly file?: (site: Site) => string
  readonly that?: Partial<Finding>
}

const inTranscript = (site: Site) => site.transcript

const rows: Readonly<Record<FindingKind, Row>> = {
  'void-torn': { severity: 'notice', make: (site) => site.add('{"torn":#\n') },
  'void-superseded': {
    severity: 'notice',
    make: (site) => site.add(batchOf(['{"late":1}'], { ...site.next, seq: 3, writer: `${tag}11111111` }).bytes),
  },
  'void-sealed': {
    severity: 'notice',
    make(site) {
      site.add(batchOf(['{"$$":{"seal":{"reason":"suspect","at":1}}}'], { ...site.next, writer: `${tag}22222222` }).bytes)
      site.add(batchOf(['{"late":1}'], { ...site.next, writer: `${tag}11111111` }).bytes)
    },
  },
  'void-leftover': {
    severity: 'notice',
    make: (site) => site.add(batchOf(['{"cut":1}'], { seq: 14, prev: 99, synced: -1, writer: 'eeee11111111' }).bytes),
  },
  'void-unfinished': {
    severity: 'notice',
    make(site) {
      const batch = batchOf(['{"a":1}', '{"a":2}'], { ...site.next, writer: `${tag}11111111` }).bytes
      site.add(batch.subarray(0, batch.indexOf(0x0a) + 1), batchOf(['{"b":1}'], { ...site.next, writer: `${tag}22222222` }).bytes)
    },
  },
  'void-garbage': { severity: 'warning', make: (site) => site.add('what is this\n') },
  'void-welded': {
    severity: 'notice',
    make: (site) => site.add('{"n":13,"text":"cut of', batchOf(['{"b":1}'], { ...site.next, writer: `${tag}22222222` }).bytes),
  },
  'torn-tail': { severity: 'notice', make: (site) => site.add('{"type":"mess') },
  'missing-bytes': {
    severity: 'damage',
    make: (site) => site.editLines((lines) => lines.toSpliced(4, 3)),
    that: { seqs: { from: 4, to: 6 } },
  },
  'altered-line': {
    severity: 'damage',
    make: (site) => site.editLines((lines) => lines.with(5, flipped(lines[5]!))),
    that: { seqs: { from: 5, to: 5 } },
  },
  'nul-run': {
    severity: 'damage',
    make: (site) => site.editLines((lines) => lines.with(5, Buffer.from(lines[5]!).fill(0, 4, 12))),
    that: { seqs: { from: 5, to: 5 } },
  },
  'stranded-records': {
    severity: 'damage',
    make: (site) => site.editLines((lines) => lines.toSpliced(4, 1)),
    that: { seqs: { from: 5, to: 9 } },
  },
  'header-missing': { severity: 'damage', make: (site) => site.editLines((lines) => lines.slice(1)) },
  'header-damaged': { severity: 'damage', make: (site) => site.editLines((lines) => lines.with(0, flipped(lines[0]!))) },
  'duplicate-id': {
    severity: 'warning',
    make(site) {
      for (const n of [1, 2]) site.add(batchOf([`{"$$":{"id":"evt-7"},"n":${n}}`], { ...site.next, writer: `${tag}1111111${n}` }).bytes)
    },
  },
  'not-a-file': {
    severity: 'damage',
    make(site) {
      renameSync(site.path(site.transcript), site.path('elsewhere'))
      symlinkSync(site.path('elsewhere'), site.path(site.transcript))
    },
  },
  unreadable: { severity: 'damage', make: () => {} },
  'snapshot-damaged': {
    severity: 'damage',
    make: (site) => site.edit('sessions.json', (bytes) => Buffer.from(bytes.toString().replace('"sessionId":"', '"sessionId":'))),
    file: () => 'sessions.json',
    that: { key: 'hurt' },
  },
  'snapshot-missing': { severity: 'damage', make: (site) => rmSync(site.path('sessions.json')), file: () => 'sessions.json' },
  'journal-damaged': {
    severity: 'damage',
    make(site) {
      site.edit('sessions.journal.jsonl', (bytes) => {
        const [, seq, crc] = /"\$":"(\d+)\..*\.([0-9a-f]{8})"\}\n$/.exec(bytes.toString())!
        const place = { seq: Number(seq) + 1, prev: Number.parseInt(crc!, 16), synced: -1, writer: `${tag}11111111` }
        return Buffer.concat([bytes, batchOf(['{"op":"put","key":"hurt","entry":{"sessionId":"none"}}'], place).bytes])
      })
    },
    file: () => 'sessions.journal.jsonl',
  },
  'journal-missing': {
    severity: 'damage',
    make: (site) => rmSync(site.path('sessions.journal.jsonl')),
    file: () => 'sessions.journal.jsonl',
  },
  'pair-mismatch': {
    severity: 'damage',
    make: (site) => site.edit('sessions.json', (bytes) => Buffer.from(bytes.toString().replace('"revision":1', '"revision":7'))),
    file: () => 'sessions.json',
  },
  'format-damaged': {
    severity: 'damage',
    make: (site) => site.edit('holdfast.json', () => Buffer.from('{"format"')),
    file: () => 'holdfast.json',
  },
  'transcript-missing': {
    severity: 'damage',
    make(site) {
      marked(site)
      rmSync(site.path(site.transcript))
    },
    that: { key: 'hurt' },
  },
  'transcript-orphan': {
    severity: 'warning',
    make(site) {
      const id = '019b7703-e400-7000-8000-0000000000aa'
      const body = `{"$$":{"header":{"log":"transcript","version":1,"key":"gone","sessionId":"${id}","createdAt":1}}}`
      writeFileSync(site.path(`transcripts/${id}.jsonl`), batchOf([body], { seq: 0, prev: 0, synced: -1 }).bytes, { mode: 0o600 })
    },
    file: () => 'transcripts/019b7703-e400-7000-8000-0000000000aa.jsonl',
    that: { key: 'gone' },
  },
  'transcript-shrunk': {
    severity: 'damage',
    make(site) {
      marked(site)
      site.editLines((lines) => lines.slice(0, 7))
    },
    that: { key: 'hurt', seqs: { from: 7, to: 9 } },
  },
  'unfinished-work': {
    severity: 'notice',
    make: (site) =>
      site.add(batchOf(['{"$$":{"seal":{"reason":"deleted","key":"hurt","at":1}}}'], { ...site.next, writer: `${tag}22222222` }).bytes),
    that: { key: 'hurt' },
  },
  'foreign-file': {
    severity: 'notice',
    make: (site) => writeFileSync(site.path('transcripts/notes.txt'), 'mine', { mode: 0o600 }),
    file: () => 'transcripts/notes.txt',
  },
  'lock-foreign-entry': {
    severity: 'warning',
    make: (site) => writeFileSync(site.path('locks/metadata/.DS_Store'), ''),
    file: () => 'locks/metadata',
  },
  'stage-leftover': {
    severity: 'notice',
    make(site) {
      rmSync(site.path('locks/metadata'), { recursive: true })
      mkdirSync(site.path(`locks/metadata/${deadHolder(7)}`), { recursive: true, mode: 0o700 })
      writeFileSync(site.path(`locks/metadata/${deadHolder(7)}/abc`), 'staged', { mode: 0o600 })
    },
    file: () => `locks/metadata/${deadHolder(7)}`,
  },
  'wrong-permissions': { severity: 'warning', make: (site) => chmodSync(site.path(site.transcript), 0o644) },
  'archive-damaged': {
    severity: 'damage',
    make: (site) => writeFileSync(site.path(archived), gzipSync(new LogText().add('{"n":1}').bytes).subarray(0, 60), { mode: 0o600 }),
    file: () => archived,
  },
  'chat-tool-call-without-result': {
    severity: 'warning',
    make: (site) =>
      site.with(async (store) => {
        await store
          .session('hurt')
          .append({ type: 'message', message: { role: 'assistant', content: [{ type: 'toolCall', id: 'call-1', name: 'read' }] } })
        await store.session('hurt').append({ type: 'message', message: { role: 'user', content: 'Never mind.' } })
      }),
  },
  'chat-parent-missing': {
    severity: 'warning',
    make: (site) =>
      site.with((store) => store.session('hurt').append({ type: 'message', id: 'b', parentId: 'a', message: { role: 'user' } })),
  },
  'chat-two-roots': {
    severity: 'warning',
    make: (site) =>
      site.with(async (store) => {
        for (const id of ['a', 'b']) await store.session('hurt').append({ type: 'message', id, parentId: null, message: { role: 'user' } })
      }),
  },
}
const archived = 'archive/019b7703-e400-7000-8000-0000000000bb.jsonl.gz'

/** The metadata say that all of the transcript was on the disk. */
function marked(site: Site): void {
  const line = (at: number) => /"\$":"(\d+)\..*\.([0-9a-f]{8})"\}\n$/.exec(site.lines.at(at)!.toString())!
  const mark = {
    seq: Number(line(-1)[1]),
    bytes: readFileSync(site.path(site.transcript)).length,
    crc: Number.parseInt(line(-1)[2]!, 16),
    header: Number.parseInt(line(0)[2]!, 16),
  }
  const entry = /^"hurt":(\{.*\}),?$/m.exec(readFileSync(site.path('sessions.json'), 'utf8'))![1]!
  site.edit('sessions.journal.jsonl', (bytes) => {
    const [, seq, crc] = /"\$":"(\d+)\..*\.([0-9a-f]{8})"\}\n$/.exec(bytes.toString())!
    const place = { seq: Number(seq) + 1, prev: Number.parseInt(crc!, 16), synced: -1, writer: `${tag}11111111` }
    return Buffer.concat([bytes, batchOf([`{"op":"put","key":"hurt","entry":${withMark(entry, mark)}}`], place).bytes])
  })
}

function stateOf(directory: string): [string, string, number, number][] {
  return [...filesIn(directory)].map(([path, bytes]) => {
    const { mtimeMs, ctimeMs } = statSync(join(directory, path))
    return [path, bytes, mtimeMs, ctimeMs]
  })
}

test('a sound store has no findings at all', async () => {
  const report = await (await Site.made()).verify()
  expect(report).toMatchObject({ ok: true, damage: [], findings: [], omitted: {} })
})

describe('told as what it is, and nothing is written', () => {
  const testable = (Object.keys(rows) as FindingKind[]).filter((kind) => kind !== 'unreadable')

  test.each(testable)('%s', async (kind) => {
    const { severity, make, file = inTranscript, that = {} } = rows[kind]
    const site = await Site.made()
    await make(site)
    const before = stateOf(site.directory)
    const report = await site.verify()
    expect(report.findings.filter((finding) => finding.kind === kind)).toContainEqual(
      expect.objectContaining({ kind, severity, file: file(site), ...that }),
    )
    expect(report.ok).toBe(!report.findings.some((finding) => finding.severity === 'damage'))
    expect(report.ok).toBe(report.damage.length === 0)
    if (severity !== 'damage') expect(report.damage).toEqual([])
    for (const { meaning } of report.findings) expect(meaning.length).toBeGreaterThan(20)
    expect(stateOf(site.directory)).toEqual(before)
  })

  test('unreadable: the disk refuses one file, and the others are looked at', async () => {
    const site = await Site.made()
    const host = systemHost()
    const disk = {
      ...host.disk,
      open(path: string, flags: Parameters<typeof host.disk.open>[1]) {
        if (path.endsWith(site.transcript)) throw Object.assign(new Error('EIO: i/o error, open'), { code: 'EIO' })
        return host.disk.open(path, flags)
      },
    }
    const report = await verifyStore({ ...host, disk }, placesIn(site.directory), tag, {})
    expect(report.findings).toMatchObject([{ kind: 'unreadable', severity: 'damage', file: site.transcript }])
    expect(report.files).toHaveLength(6)
  })
})

test('a store that is open and in use has no findings either', async () => {
  const site = await Site.made()
  const store = await opened(site.directory)
  await store.session('hurt').append({ n: 10 })
  expect(await store.verify()).toMatchObject({ ok: true, findings: [] })
})
