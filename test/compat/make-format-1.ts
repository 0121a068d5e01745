/** Wrote the stores in `format-1/`, once, with the first version that had this format. They stay as they are: a store that an old version
 *  has written does not change when the library does. To write others:
 *
 *      npm test                                              compiles this file
 *      node .build/test/compat/make-format-1.js DIRECTORY    a directory that does not exist yet
 *
 *  Each store has beside it what its own version read from it, as `<name>.expected.json`. Locks and other empty
 *  directories are left out, since git does not keep them. */
import fs from 'node:fs'
import { basename, join } from 'node:path'
import type { Backend } from '../../src/backend.js'
import { type FileBackendOptions, openFileBackend } from '../../src/file/backend.js'
import { type Disk, nodeDisk } from '../../src/file/durable.js'
import { simulatedHost } from '../simulation/simulated-host.js'
import { type Contents, contentsOf } from './contents.js'

const options: FileBackendOptions = {
  durability: 'power',
  checkpoint: 'auto',
  waitMs: 10_000,
  maxHoldMs: 15_000,
  readOnly: false,
  checkKey: () => {},
}

const target = process.argv[2]
if (!target) throw new Error('Where to? node make-format-1.js DIRECTORY')
fs.mkdirSync(target)
const work = fs.mkdtempSync(`${target}-work-`)

/** The store as it lies there now, as if its writers had been killed. */
function keep(store: string, name: string): void {
  const to = join(target!, name)
  fs.cpSync(store, to, { recursive: true, filter: (path) => basename(path) !== 'locks' })
  for (const entry of fs.readdirSync(to)) if (isEmptyDirectory(join(to, entry))) fs.rmdirSync(join(to, entry))
}

function isEmptyDirectory(path: string): boolean {
  return fs.statSync(path).isDirectory() && fs.readdirSync(path).length === 0
}

async function expectOf(store: Backend, name: string): Promise<void> {
  const read = (key: string) => store.read(key, {})
  const contents: Contents = await contentsOf({ entries: (prefix) => store.entries(prefix), read })
  fs.writeFileSync(join(target!, `${name}.expected.json`), `${JSON.stringify(contents, null, 2)}\n`)
}

function records(...values: object[]): { json: string }[] {
  return values.map((value) => ({ json: JSON.stringify(value) }))
}

const message = (role: string, content: string) => ({ type: 'message', message: { role, content } })

/** Everything that the format has a place for. */
async function livedIn(): Promise<void> {
  const path = join(work, 'lived-in')
  const store = await openFileBackend(path, options, simulatedHost(nodeDisk))
  const set = (key: string, fields: Record<string, unknown>) => store.commitMetadata((sessions) => sessions.patch(key, fields), {})

  await set('agent:main:main', { model: 'large', tags: ['a', 'b'], usage: { input: 12, output: 0.5 }, note: null })
  await store.append('agent:main:main', records(message('user', 'hello')), { id: 'evt-1' })
  await store.append('agent:main:main', records(message('assistant', 'häy 🦜 \u2028 \\ " </'), message('user', 'and?'), {}), {
    id: 'evt-2',
  })
  await store.append('agent:main:main', records({ type: 'deep', list: [[], {}, [1, -0.5, 1e21]], empty: '' }), {})

  // Rotated twice: ids of the sessions before are remembered.
  await store.append('agent:main:direct:42', records(message('user', 'before')), { id: 'direct-1' })
  await store.rotate('agent:main:direct:42', 'reset', {})
  await store.append('agent:main:direct:42', records(message('user', 'between')), { id: 'direct-2' })
  await store.rotate('agent:main:direct:42', 'daily', {})
  await store.append('agent:main:direct:42', records(message('user', 'after')), {})

  await store.append('agent:main:gone', records(message('user', 'forget this')), {})
  await store.delete('agent:main:gone', {})

  await store.append('__proto__', records({ type: 'note', constructor: 'a field', __: 1 }), { id: '__proto__' })
  await set('agent:main:🦜 key with "quotes" and \\', { label: 'ключ' })

  // Lines of another program, which carry no `$`.
  const foreign = ['{"type":"session","version":3}', '{"type":"message","text":"from elsewhere"}']
  for (const key of ['agent:main:adopted', 'agent:main:foreign']) {
    const { sessionId } = (await set(key, { imported: true }))!
    const last = key === 'agent:main:foreign' ? '{"type":"last","text":"without a newline"}' : ''
    fs.writeFileSync(join(path, 'transcripts', `${sessionId}.jsonl`), `${foreign.join('\n')}\n${last}`)
  }
  await store.append('agent:main:adopted', records(message('user', 'after the foreign lines')), { id: 'adopted-1' })

  await store.checkpoint()
  // From here on in the journal alone.
  await set('agent:main:main', { model: 'small', note: undefined })
  await set('agent:main:late', { late: true })
  await store.append('agent:main:later', records({ n: 1 }, { n: 2 }), {})
  await set('agent:main:brief', {})
  await store.commitMetadata((sessions) => sessions.delete('agent:main:brief'), {})

  // A writer was killed in mid-write, somebody who had not read that far went on, and so did one who had; then another one was killed.
  const torn = join(path, 'transcripts', `${(await store.get('agent:main:later'))!.sessionId}.jsonl`)
  const line = fs.readFileSync(torn, 'utf8').trimEnd().split('\n').at(-1)!
  fs.appendFileSync(torn, line.slice(0, 20))
  await store.append('agent:main:later', records({ n: 3 }), {})
  fs.appendFileSync(torn, line.slice(0, 30))
  const other = await openFileBackend(path, options, simulatedHost(nodeDisk, { pid: 3, alive: () => true }))
  await other.append('agent:main:later', records({ n: 4 }), {})
  fs.appendFileSync(torn, line.slice(0, 9))

  await expectOf(store, 'lived-in')
  keep(path, 'lived-in')
  await other.close()
  await store.close()
}

/** Killed inside a checkpoint: right before the new snapshot, and right before the new journal, got their names. */
async function killedInCheckpoint(): Promise<void> {
  const path = join(work, 'killed')
  let armed = false
  const disk: Disk = {
    ...nodeDisk,
    rename(from, to) {
      if (armed && to.endsWith('/sessions.json')) keep(path, 'sealed-journal')
      if (armed && to.endsWith('/sessions.journal.jsonl')) keep(path, 'replaced-snapshot')
      nodeDisk.rename(from, to)
    },
  }
  const store = await openFileBackend(path, options, simulatedHost(disk, { pid: 2 }))
  const add = (sessions: Parameters<Parameters<Backend['commitMetadata']>[0]>[0]) =>
    sessions.patch('agent:main:main', { count: Number(sessions.get('agent:main:main')?.count ?? 0) + 1 })
  await store.commitMetadata(add, {})
  await store.append('agent:main:main', records({ n: 1 }), { id: 'one' })
  await store.checkpoint()
  await store.commitMetadata(add, {})
  await store.append('agent:main:second', records({ n: 2 }, { n: 3 }), { id: 'two' })
  await store.commitMetadata((sessions) => sessions.set('agent:main:bare', { bare: true }), {})
  for (const name of ['sealed-journal', 'replaced-snapshot']) await expectOf(store, name)
  armed = true
  await store.checkpoint()
  armed = false
  await store.close()
}

await livedIn()
await killedInCheckpoint()
fs.rmSync(work, { recursive: true })
