/** What is cut short: short scenarios in which every outcome of a power cut can be tried, and a long one of which a choice is. */
import type { Backend } from '../../src/backend.js'
import { isStoreError } from '../../src/errors.js'
import type { FileBackendOptions } from '../../src/file/backend.js'
import type { Host } from '../../src/file/host.js'
import { attempt, type Teller } from '../simulation/ledger.js'
import { compactAll, encoded, increment, openStore, retainNone, writeMarks } from '../simulation/store-on-disk.js'

export interface Scenario {
  readonly name: string
  /** Not cut. */
  readonly before?: (act: Acting) => Promise<unknown>
  readonly during: (act: Acting) => Promise<unknown>
  /** Whether the store is opened, and so made, before anything is cut. */
  readonly opened: boolean
}

/** Things to do to a store that say how they ended. */
export interface Acting {
  count(key: string): Promise<unknown>
  append(key: string, names: string, options?: { id: string }): Promise<unknown>
  rotate(key: string): Promise<unknown>
  remove(key: string): Promise<unknown>
  /** By a rule, as maintenance does it. */
  retain(key: string): Promise<unknown>
  checkpoint(): Promise<unknown>
  /** A summary for all but the last record, then the bytes. */
  compact(key: string): Promise<unknown>
  marks(): Promise<unknown>
  close(): Promise<unknown>
}

export async function acting(host: Host, teller: Teller, options: Partial<FileBackendOptions>): Promise<Acting> {
  let store: Backend = await openedAtLast(host, options)
  return {
    count: (key) => attempt(teller, `count ${key}`, () => increment(store, key)),
    append: (key, names, options = undefined) =>
      attempt(teller, `append ${key} ${names}`, () => store.append(key, encoded(...names.split(',')), { id: options?.id })),
    rotate: (key) => attempt(teller, `rotate ${key}`, () => store.rotate(key, 'reset', {})),
    remove: (key) => attempt(teller, `delete ${key}`, () => store.delete(key, {})),
    retain: (key) => attempt(teller, `delete ${key}`, () => retainNone(store, key)),
    compact: (key) => attempt(teller, `compact ${key}`, () => compactAll(store, key)),
    checkpoint: () => attempt(teller, 'checkpoint', () => store.checkpoint()),
    marks: () => attempt(teller, 'marks', () => writeMarks(store)),
    async close() {
      await store.close()
      store = await openedAtLast(host, options)
    },
  }
}

/** Opening may fail, with a type; then once more, as anybody would. */
async function openedAtLast(host: Host, options: Partial<FileBackendOptions>): Promise<Backend> {
  try {
    return await openStore(host, options)
  } catch (error) {
    if (!isStoreError(error) || error.code === 'INVARIANT') throw error
    return openStore(host, options)
  }
}

const twoSessions = async (act: Acting) => {
  await act.count('one')
  await act.append('one', 'a')
  await act.append('two', 'b,c')
}

export const shortScenarios: readonly Scenario[] = [
  { name: 'making a store', opened: false, during: async (act) => act.count('one') },
  { name: 'an update', opened: true, before: twoSessions, during: async (act) => act.count('one') },
  { name: 'the first append of a session', opened: true, during: async (act) => act.append('one', 'a') },
  {
    name: 'appends and a batch',
    opened: true,
    before: twoSessions,
    during: async (act) => {
      await act.append('one', 'd')
      await act.append('one', 'e,f,g', { id: 'id-e' })
    },
  },
  {
    name: 'calls at once',
    opened: true,
    before: twoSessions,
    during: (act) =>
      Promise.all([act.count('one'), act.append('one', 'd'), act.append('two', 'e,f'), act.append('three', 'g'), act.count('two')]),
  },
  {
    name: 'a checkpoint and an update',
    opened: true,
    before: twoSessions,
    during: async (act) => {
      await act.checkpoint()
      await act.count('one')
    },
  },
  {
    name: 'a rotation and an append',
    opened: true,
    before: twoSessions,
    during: async (act) => {
      await act.rotate('one')
      await act.append('one', 'd')
    },
  },
  {
    name: 'a deletion and a new beginning',
    opened: true,
    before: twoSessions,
    during: async (act) => {
      await act.remove('two')
      await act.append('two', 'd')
    },
  },
  {
    name: 'a rule that archives, and a new beginning',
    opened: true,
    before: twoSessions,
    during: async (act) => {
      await act.retain('two')
      await act.append('two', 'd')
    },
  },
  {
    name: 'marks among appends',
    opened: true,
    before: twoSessions,
    during: async (act) => {
      const appending = [act.append('one', 'd'), act.append('three', 'e')]
      // They have landed by then, and are not on the disk yet.
      for (let turn = 0; turn < 20; turn++) await Promise.resolve()
      await Promise.all([act.marks(), ...appending])
      await Promise.all([act.marks(), act.append('three', 'f'), act.rotate('one')])
      await act.marks()
    },
  },
  {
    name: 'a compaction and an append',
    opened: true,
    before: twoSessions,
    during: async (act) => {
      await act.append('one', 'd,e', { id: 'id-d' })
      await act.compact('one')
      await act.append('one', 'f')
    },
  },
  { name: 'closing', opened: true, before: twoSessions, during: async (act) => act.close() },
]

/** The morning of the day that follows. */
export async function morning(act: Acting): Promise<void> {
  await twoSessions(act)
  await Promise.all([act.append('three', 'd'), act.append('three', 'e,f', { id: 'id-e' }), act.count('three'), act.count('one')])
  await act.checkpoint()
  await act.append('one', 'g')
  await act.marks()
  await act.count('one')
  await act.rotate('one')
  await Promise.all([act.append('one', 'h,i'), act.count('three'), act.append('two', 'j')])
  await act.remove('two')
  await act.append('two', 'k')
}

export const longScenario: Scenario = {
  name: 'a day in the life of three sessions',
  opened: false,
  async during(act) {
    await morning(act)
    await act.close()
    await Promise.all([act.append('one', 'l'), act.append('two', 'm'), act.append('three', 'n', { id: 'id-n' }), act.checkpoint()])
    await act.append('three', 'o')
    await act.close()
  },
}
