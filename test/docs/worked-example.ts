/** The store that docs/on-disk-format.md shows: made by the real code on a machine whose clock, ids and boot stand still. */
import fs from 'node:fs'
import { join } from 'node:path'
import type { Backend, RequestFacts } from '../../src/backend.js'
import { type FileBackendOptions, openFileBackend } from '../../src/file/backend.js'
import { type Host, systemHost } from '../../src/file/host.js'
import { checkKey } from '../../src/input.js'
import { careOf } from '../backend/care.js'

export const exampleKey = 'agent:main:main'

const options: FileBackendOptions = {
  durability: 'power',
  checkpoint: 'auto',
  waitMs: 10_000,
  maxHoldMs: 15_000,
  readOnly: false,
  checkKey,
}

/** Writer ids count up, whatever else asks for a nonce; the wall clock moves when told to. */
function stillHost(): Host & { wallMs: number } {
  const host = systemHost()
  const { sleep, nap, monotonicMs } = host.clock
  let writers = 0
  let minted = 0
  const still = {
    disk: host.disk,
    wallMs: Date.UTC(2026, 0, 1),
    clock: { sleep, nap, monotonicMs, wallMs: () => still.wallMs },
    identity: { ...host.identity, boot: '1d0cb007' },
    probe: host.probe,
    watch: host.watch,
    nonce: (digits: number) => (digits === 8 ? String(++writers).padStart(8, '0') : host.nonce(digits)),
    mintId: () => `019b7703-e400-7000-8000-${String(++minted).padStart(12, '0')}`,
  }
  return still
}

async function append(store: Backend, records: object[], id?: string): Promise<void> {
  const encoded = records.map((record) => ({ json: JSON.stringify(record) }))
  await store.append(exampleKey, encoded, id === undefined ? {} : { id })
}

/** Makes the store below `dir`; returns the paths and contents of its files, locks aside. */
export async function makeExample(dir: string): Promise<Map<string, string>> {
  const host = stillHost()
  const killed = await openFileBackend(dir, options, host)
  host.wallMs += 1_000
  await append(killed, [{ type: 'message', message: { role: 'user', content: 'Hello' } }])
  host.wallMs += 1_000
  await append(
    killed,
    [
      { type: 'message', message: { role: 'assistant', content: 'Hi.' } },
      { type: 'usage', tokens: 12 },
    ],
    'evt-7',
  )
  // It is killed in the middle of its next write; another process goes on.
  const [transcript] = fs.readdirSync(join(dir, 'transcripts'))
  fs.appendFileSync(join(dir, 'transcripts', transcript!), '{"type":"message","message":{"role":"user","con')
  const store = await openFileBackend(dir, options, host)
  await append(store, [{ type: 'note', text: 'after a kill' }])
  host.wallMs += 1_000
  await store.rotate(exampleKey, 'reset', {})
  host.wallMs += 1_000
  await store.close()
  await killed.close()
  return filesOf(dir)
}

/** A transcript that begins with another program's lines, after the first append. */
export async function makeForeignExample(dir: string): Promise<string> {
  const store = await openFileBackend(dir, options, stillHost())
  const { sessionId } = await store.commitMetadata((sessions) => sessions.set(exampleKey, {}), {})
  const path = join(dir, 'transcripts', `${sessionId}.jsonl`)
  fs.writeFileSync(path, '{"role":"user","text":"Hello"}\n{"role":"assistant","text":"Hi."}\n')
  await append(store, [{ role: 'user', text: 'Still there?' }])
  await store.close()
  return fs.readFileSync(path, 'utf8')
}

/** A transcript of which a summary stands for the first two records, after its bytes were compacted. */
export async function makeCompactionExample(dir: string): Promise<string> {
  const host = stillHost()
  const store = await openFileBackend(dir, options, host)
  await append(store, [{ role: 'user', text: 'Hello' }], 'evt-1')
  await append(store, [{ role: 'assistant', text: 'Hi.' }])
  await append(store, [{ role: 'user', text: 'Still there?' }])
  host.wallMs += 1_000
  const { sessionId, base } = (await store.summarizable(exampleKey))!
  await store.summarize(exampleKey, { sessionId, base, upTo: 2, records: 2, text: 'They have greeted.' }, {})
  host.wallMs += 1_000
  await careOf(store).compactBytes(exampleKey, {})
  await append(store, [{ role: 'assistant', text: 'Yes.' }])
  await store.close()
  return fs.readFileSync(join(dir, 'transcripts', `${sessionId}.jsonl`), 'utf8')
}

/** One turn in an empty store: its transcript. */
export async function makeTurnExample(dir: string): Promise<string> {
  const host = stillHost()
  const store = await openFileBackend(dir, options, host)
  const asking = (requestId: string, whenBusy: RequestFacts['whenBusy']): RequestFacts => ({
    requestId,
    given: true,
    lane: 'main',
    whenBusy,
  })
  const said = (role: string, text: string) => [{ json: JSON.stringify({ role, text }) }]
  const request = { ...asking('r-17', 'queue'), channelId: 'telegram' }
  const place = store.turns.enlist(exampleKey, request)
  const lease = (await place.tryLease(60_000, { onLost() {}, onExpired() {}, onInterrupt() {} }))!
  const turn = await lease.begin(request, said('user', 'Hello'))
  if (turn.kind !== 'started') throw new Error(turn.kind)
  host.wallMs += 1_000
  await store.turns.leaveInput(exampleKey, said('user', 'One more thing'), asking('r-18', 'coalesce'), {})
  await lease.append(turn, said('assistant', 'Hi.'), {})
  await lease.take(turn)
  host.wallMs += 1_000
  await lease.append(turn, said('assistant', 'And?'), {})
  await lease.end(turn, request, { outcome: 'completed', value: 'And?' })
  await lease.release()
  place.leave()
  await store.close()
  const [name] = fs.readdirSync(join(dir, 'transcripts'))
  return fs.readFileSync(join(dir, 'transcripts', name!), 'utf8')
}

function filesOf(dir: string): Map<string, string> {
  const names = fs.readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter((name) => !name.startsWith('locks'))
  const files = names.filter((name) => fs.statSync(join(dir, name)).isFile()).sort()
  return new Map(files.map((name) => [name, fs.readFileSync(join(dir, name), 'utf8')]))
}
