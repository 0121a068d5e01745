/** Made-up sources, and what the tests of the import ask about a store. */
import { SessionStore, type StoredRecord } from '../../src/index.js'
import { holdfast, jsonLines } from './run.js'

export interface Report {
  readonly finished: boolean
  readonly added: number
  readonly present: number
  readonly leftOut: number
  readonly sessions: {
    key: string
    added: number
    present: number
    leftOut: number
    version: number | null
    sessionId: string | null
    sourceSessionId: string
  }[]
  readonly problems: { path: string; line: number | null; key: string | null; why: string }[]
  readonly notes: string[]
}

export async function importing(
  store: string,
  source: string,
  ...options: string[]
): Promise<Report & { code: number | null; stderr: string }> {
  const { code, stdout, stderr } = await holdfast(['import', source, '--json', '--store', store, ...options])
  const [report] = jsonLines<Report>(stdout)
  if (!report) throw new Error(`no report: ${stderr}`)
  return { ...report, code, stderr }
}

export async function recordsOf(store: string, key: string): Promise<StoredRecord[]> {
  const opened = await SessionStore.open(store, { readOnly: true })
  const records: StoredRecord[] = []
  for await (const record of opened.session(key).read()) records.push(record)
  await opened.close()
  return records
}

export async function entryOf(store: string, key: string): Promise<Record<string, unknown> | undefined> {
  const opened = await SessionStore.open(store, { readOnly: true })
  const entry = await opened.get(key)
  await opened.close()
  return entry as Record<string, unknown> | undefined
}

export const userMessage = (n: number) => ({
  type: 'message',
  timestamp: `t${n}`,
  message: { role: 'user', content: [{ type: 'text', text: `message ${n} é 😀` }] },
})

/** Made-up sessions as the three versions write them. */
export const versions = {
  1: [
    { type: 'session', id: 'v1', timestamp: 't', cwd: '/home/me/shop', provider: 'p', modelId: 'm', thinkingLevel: 'off' },
    userMessage(1),
    { type: 'thinking_level_change', timestamp: 't2', thinkingLevel: 'high' },
    userMessage(2),
    { type: 'compaction', timestamp: 't3', summary: 's', firstKeptEntryIndex: 2, tokensBefore: 10 },
  ],
  2: [
    { type: 'session', version: 2, id: 'v2', timestamp: 't', cwd: '/home/me/shop' },
    { ...userMessage(1), id: 'a1', parentId: null },
    { type: 'message', id: 'a2', parentId: 'a1', timestamp: 't', message: { role: 'hookMessage', content: 'x' } },
  ],
  3: [
    { type: 'session', version: 3, id: 'v3', timestamp: 't', cwd: '/home/me/shop', parentSession: '/old.jsonl' },
    { ...userMessage(1), id: 'a1', parentId: null },
    { type: 'label', id: 'a2', parentId: 'a1', timestamp: 't', targetId: 'a1' },
    { type: 'custom_message', id: 'a3', parentId: 'a2', timestamp: 't', customType: 'c', content: 'hi', display: true },
  ],
} as const
