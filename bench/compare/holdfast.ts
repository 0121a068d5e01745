import { SessionStore } from '../../src/index.js'
import { entryFields, type Fields, sessionKey } from '../harness/data.js'
import { countOf, type Peer } from './peer.js'

const seedBatch = 1_000

function holdfast(name: string, durability: 'power' | 'process'): Peer {
  const open = (dir: string, staleMs?: number) =>
    SessionStore.open(dir, { durability, lock: { waitMs: 60_000, ...(staleMs === undefined ? {} : { maxHoldMs: staleMs }) } })
  return {
    name,
    promise: durability,
    missing: () => undefined,
    seed,
    async sessions(dir, options) {
      const store = await open(dir, options?.staleMs)
      return {
        update: (key, change) => store.update(key, (entry) => change(ownFields(entry))),
        get: (key) => store.get(key),
        close: () => store.close(),
      }
    },
    async counters(dir) {
      const store = await SessionStore.open(dir)
      const counters = new Map<string, number>()
      for await (const [key, entry] of store.entries()) counters.set(key, countOf(entry))
      await store.close()
      return counters
    },
    async transcripts(dir) {
      const store = await open(dir)
      return {
        append: (session, record) => store.session(session).append(record),
        appendMany: (session, records) => store.session(session).append([...records]),
        close: () => store.close(),
      }
    },
    async recordCount(dir, session) {
      const store = await SessionStore.open(dir)
      let count = 0
      for await (const _ of store.session(session).read()) count++
      await store.close()
      return count
    },
  }
}

/** The store's own fields are not the caller's to set. */
function ownFields(entry: object | undefined): Fields {
  const { sessionId, createdAt, updatedAt, revision, ...fields } = (entry ?? {}) as Fields
  return fields
}

async function seed(dir: string, count: number): Promise<void> {
  const store = await SessionStore.open(dir, { durability: 'process' })
  for (let from = 0; from < count; from += seedBatch) {
    await store.withStoreLock((sessions) => {
      for (let index = from; index < Math.min(count, from + seedBatch); index++) sessions.set(sessionKey(index), entryFields(index))
    })
  }
  await store.checkpoint()
  await store.close()
}

export const holdfastPower = holdfast('holdfast', 'power')
export const holdfastProcess = holdfast('holdfast (process)', 'process')
