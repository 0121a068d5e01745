/** Everything that a store holds, as somebody finds it who opens it anew. */
import type { Backend } from '../../src/backend.js'
import { readFully } from '../../src/file/durable.js'
import type { Host } from '../../src/file/host.js'
import { bootTag, Chain } from '../../src/file/log/chain.js'
import { isSystemOnly, readBody } from '../../src/file/log/record.js'
import type { Entry, VerifyReport } from '../../src/types.js'
import { careOf } from '../backend/care.js'
import { openStore, storeDirectory } from './store-on-disk.js'

export interface Found {
  readonly sessionId: string
  readonly seq: number
  readonly name: string
  readonly id: string | undefined
  readonly archived: boolean
  /** The log it is in has a seal. */
  readonly sealed: boolean
}

export interface Census {
  readonly entries: ReadonlyMap<string, Entry>
  /** Every record of every transcript, in the archive too; each log in order. */
  readonly records: readonly Found[]
  readonly report: VerifyReport
}

/** @param goOn  also writes something, to see that the store still takes it. */
export async function census(host: Host, goOn: boolean): Promise<Census> {
  const store = await openStore(host)
  const entries = new Map<string, Entry>()
  for await (const [key, entry] of store.entries('')) entries.set(key, entry)
  const { closed, compacted } = logged(host, 'archive')
  // A power cut may leave a log under both names of its last rename.
  const live = without(logged(host, 'transcripts').closed, closed)
  // A log that was compacted has lost only what is in the archive; what has stayed is there, too.
  const gone: Found[] = []
  for (const log of compacted) gone.push(...without(log, [...live, ...closed, ...gone]))
  const records = [...gone, ...live, ...closed].sort((a, b) => (a.sessionId === b.sessionId ? a.seq - b.seq : 0))
  for (const [key, { sessionId }] of entries)
    await sameAsRead(
      store,
      key,
      records.filter((found) => found.sessionId === sessionId && !found.archived),
    )
  const report = await careOf(store).verify({})
  if (goOn) await goesOn(store, [...entries.keys()])
  await store.close()
  return { entries, records, report }
}

function without(records: readonly Found[], others: readonly Found[]): Found[] {
  return records.filter((record) => !others.some(({ sessionId, seq }) => sessionId === record.sessionId && seq === record.seq))
}

/** compacted: the file before each compaction of a session. */
function logged(host: Host, folder: 'transcripts' | 'archive'): { closed: Found[]; compacted: Found[][] } {
  const { disk } = host
  const closed: Found[] = []
  const compacted: Found[][] = []
  for (const name of disk.readdir(`${storeDirectory}/${folder}`).filter((name) => name.endsWith('.jsonl'))) {
    const fd = disk.open(`${storeDirectory}/${folder}/${name}`, 'read')
    const bytes = readFully(disk, fd, 0, disk.fstat(fd).size)
    disk.close(fd)
    const chain = new Chain(bootTag(host.identity.boot))
    const here: Omit<Found, 'sealed'>[] = []
    chain.feed(bytes, {
      record: (mark, bytes, start) => {
        const { json, system } = readBody(bytes, start, mark)
        if (isSystemOnly(bytes, start)) return
        const record = JSON.parse(json) as { name: string }
        here.push({ sessionId: name.slice(0, 36), seq: mark.seq, name: record.name, id: system?.id, archived: folder === 'archive' })
      },
    })
    const found = here.map((record) => ({ ...record, sealed: chain.seal !== undefined }))
    if (name.length > 36 + '.jsonl'.length) compacted.push(found)
    else closed.push(...found)
  }
  return { closed, compacted }
}

async function sameAsRead(store: Backend, key: string, expected: readonly Found[]): Promise<void> {
  const read: string[] = []
  for await (const { seq, record } of store.read(key, {})) read.push(`${seq} ${String(record.name)}`)
  const wanted = expected.map(({ seq, name }) => `${seq} ${name}`)
  if (read.join() !== wanted.join()) throw new Error(`read of ${key} gave ${read.join(', ')} where the file has ${wanted.join(', ')}`)
  const tail = await store.tail(key, 2)
  if (
    tail.map(({ seq }) => seq).join() !==
    expected
      .slice(-2)
      .map(({ seq }) => seq)
      .join()
  )
    throw new Error(`tail of ${key} does not agree with its read`)
}

async function goesOn(store: Backend, keys: readonly string[]): Promise<void> {
  for (const key of new Set([...keys, 'afterwards'])) {
    // First the append: it may have to finish what a dead process began, such as deleting the key.
    const { seq } = await store.append(key, [{ json: '{"name":"afterwards"}' }], {})
    const before = Number((await store.get(key))?.count ?? 0)
    await store.commitMetadata((sessions) => sessions.patch(key, { count: before + 1 }), {})
    const [last] = await store.tail(key, 1)
    if ((await store.get(key))?.count !== before + 1 || last?.seq !== seq || last.record.name !== 'afterwards')
      throw new Error(`${key} does not take writes any more`)
  }
}
