/** @openclaw/fs-safe, jsonStore with its lock. Versions from 0.2 on need Node 22 and more: it runs in the Node that bench/compare brings. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { entryFields, type Fields, sessionKey } from '../harness/data.js'
import { compareDir, countOf, type Peer, type PeerOptions, whyMissing } from './peer.js'

type All = Record<string, Fields>
interface JsonStore {
  readRequired(): Promise<All>
  write(value: All): Promise<void>
  updateOr(fallback: All, run: (current: All) => All): Promise<All>
}
interface Module {
  jsonStore(options: {
    filePath: string
    lock: {
      staleMs: number
      timeoutMs: number
      staleRecovery: 'fail-closed' | 'remove-if-unchanged'
      retry: { retries: number; factor: number; minTimeout: number; maxTimeout: number; randomize: boolean }
    }
  }): JsonStore
}

const node24 = join(compareDir, 'node_modules/node/bin/node')

async function openStore(dir: string, options: PeerOptions = {}): Promise<JsonStore> {
  const { jsonStore } = (await import(pathToFileURL(join(compareDir, 'node_modules/@openclaw/fs-safe/dist/store.js')).href)) as Module
  return jsonStore({
    filePath: join(dir, 'sessions.json'),
    lock: {
      staleMs: options.staleMs ?? 30_000,
      timeoutMs: options.staleMs === undefined ? 60_000 : 5_000,
      // As shipped it fails closed, and one killed writer stops all others for good. The workload with kills asks for its recovery.
      staleRecovery: options.staleMs === undefined ? 'fail-closed' : 'remove-if-unchanged',
      retry: { retries: 10_000, factor: 1.5, minTimeout: 1, maxTimeout: 50, randomize: true },
    },
  })
}

export const fsSafe: Peer = {
  name: 'fs-safe jsonStore',
  promise: 'power',
  rewrites: true,
  execPath: node24,
  missing: () =>
    whyMissing('@openclaw/fs-safe') ?? (existsSync(node24) ? undefined : 'the Node 24 that @openclaw/fs-safe needs is not installed'),
  async seed(dir, count) {
    const all: All = {}
    for (let index = 0; index < count; index++) all[sessionKey(index)] = entryFields(index)
    await (await openStore(dir)).write(all)
  },
  async sessions(dir, options) {
    const store = await openStore(dir, options)
    return {
      update: (key, change) => store.updateOr({}, (all) => ({ ...all, [key]: change(all[key] ?? {}) })),
      get: async (key) => (await store.readRequired())[key],
      close: () => {},
    }
  },
  async counters(dir) {
    const all = await (await openStore(dir)).readRequired()
    return new Map(Object.entries(all).map(([key, fields]) => [key, countOf(fields)]))
  },
}
