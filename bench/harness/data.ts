/** What the workloads store: entries of about 600 bytes and message records of about 620, the median line of a real agent transcript. The
 *  floors write the same bytes as Holdfast's own line for the same record, mark included. */
import { encodeLine } from '../../src/file/log/record.js'

export type Fields = Record<string, unknown>

export const recordText = 'The build passes on both machines now; the flaky test was the one that slept for a fixed time. '.repeat(5)

export function sessionKey(index: number): string {
  return `agent:main:telegram:direct:${1_000_000 + index}`
}

/** The caller's part of an entry; with the store's own fields it is 600 bytes of JSON. */
export function entryFields(index: number): Fields {
  return {
    n: 0,
    displayName: `Direct conversation ${index}`,
    channel: 'telegram',
    lastTo: `${1_000_000 + index}`,
    model: 'claude-sonnet-4-5',
    modelProvider: 'anthropic',
    inputTokens: 123_456,
    outputTokens: 7_890,
    totalTokens: 131_346,
    contextTokens: 200_000,
    thinkingLevel: 'medium',
    systemSent: true,
    workspace: `/home/agent/workspaces/project-${index % 97}`,
    skills: ['search', 'calendar', 'browser', 'files'],
    summary: 'Asked about the travel plan, then about two open invoices.',
  }
}

export function messageRecord(index: number): Fields {
  return {
    type: 'message',
    timestamp: '2026-01-05T10:00:00.000Z',
    message: {
      role: index % 2 === 0 ? 'user' : 'assistant',
      content: [{ type: 'text', text: recordText }],
      timestamp: 1_767_607_200_000 + index,
    },
  }
}

const mark = { seq: 12_345, left: 0, synced: 12_340, writer: 'a1b2c3d4e5f6', prev: 0x89ab_cdef }

/** The line that Holdfast's journal gets for an update of such an entry. */
export function journalLine(index: number): Buffer {
  const entry = {
    sessionId: '0198a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b',
    createdAt: 1_767_607_200_000,
    updatedAt: 1_767_607_200_000,
    revision: 12,
    ...entryFields(index),
  }
  return Buffer.from(encodeLine(JSON.stringify({ op: 'put', key: sessionKey(index), entry }), mark).line)
}

/** The line that Holdfast's transcript gets for such a record. */
export function transcriptLine(index: number): Buffer {
  return Buffer.from(encodeLine(JSON.stringify(messageRecord(index)), mark).line)
}

/** Small, fast, and the same in every run: which key is next does not depend on the machine. */
export function randomIndex(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}
