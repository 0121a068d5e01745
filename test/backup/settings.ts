/** Stores to back up, and what is in them. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { SessionStore } from '../../src/index.js'

export interface Setting {
  readonly root: string
  /** The store. */
  readonly dir: string
  path(...parts: string[]): string
  remove(): void
}

export function setting(name: string): Setting {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), `holdfast-${name}-`))
  return {
    root,
    dir: path.join(root, 'store'),
    path: (...parts) => path.join(root, ...parts),
    remove: () => fs.rmSync(root, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 }),
  }
}

export async function inStore<R>(dir: string, work: (store: SessionStore) => Promise<R>): Promise<R> {
  const store = await SessionStore.open(dir)
  try {
    return await work(store)
  } finally {
    await store.close()
  }
}

/** Every record that can be read, by key. */
export async function recordsIn(dir: string): Promise<Record<string, unknown[]>> {
  return inStore(dir, async (store) => {
    const found: Record<string, unknown[]> = {}
    for await (const [key] of store.entries()) {
      found[key] = []
      for await (const { record } of store.session(key).read()) found[key].push(record)
    }
    return found
  })
}

/** All files but the locks, with their bytes. */
export function treeOf(at: string): Record<string, string> {
  const found: Record<string, string> = {}
  for (const entry of fs.readdirSync(at, { recursive: true, withFileTypes: true })) {
    const file = path.join(entry.parentPath, entry.name)
    const name = path.relative(at, file)
    if (entry.isFile() && !name.startsWith('locks')) found[name] = fs.readFileSync(file, 'utf8')
  }
  return found
}

export async function transcriptOf(dir: string, key: string): Promise<string> {
  const { sessionId } = await inStore(dir, async (store) => (await store.get(key))!)
  return path.join(dir, 'transcripts', `${sessionId}.jsonl`)
}
