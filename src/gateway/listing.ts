/** What can be looked at: models, sessions, turns, health. Reads only, takes no lock. */
import type { TurnStatus } from '../index.js'
import { ChatError, errorBody, failureOf } from './failure.js'
import type { CheckedChatOptions } from './options.js'

const json = (body: unknown, status = 200) => Response.json(body, { status, headers: { 'cache-control': 'no-store' } })

export function listModels({ models }: CheckedChatOptions, created: number): Response {
  return json({ object: 'list', data: [...models.keys()].map((id) => modelEntry(id, created)) })
}

export function showModel({ models, anyName }: CheckedChatOptions, created: number, id: string): Response {
  if (!models.has(id) && !anyName) throw new ChatError(404, 'model_not_found', 'There is no model of that name.', { param: 'model' })
  return json(modelEntry(id, created))
}

const modelEntry = (id: string, created: number) => ({ id, object: 'model', created, owned_by: 'holdfast' })

const pageDefault = 100
const pageMax = 1_000

/** By key, from `after` on: an order that holds while sessions come and go. */
export async function listSessions({ store }: CheckedChatOptions, query: URLSearchParams): Promise<Response> {
  const limit = wholeNumber(query, 'limit', pageDefault)
  const after = query.get('after')
  const rows: { readonly key: string; readonly sessionId: string; readonly createdAt: number; readonly updatedAt: number }[] = []
  for await (const [key, { sessionId, createdAt, updatedAt }] of store.entries({ prefix: query.get('prefix') ?? '' }))
    if (after === null || key > after) rows.push({ key, sessionId, createdAt, updatedAt })
  rows.sort((a, b) => (a.key < b.key ? -1 : 1))
  const page = rows.slice(0, limit)
  const turns = new Map<string, TurnStatus[]>(page.map(({ key }) => [key, []]))
  for (const turn of await store.turns()) turns.get(turn.key)?.push(turn)
  const data = page.map((row) => ({ ...row, turns: turns.get(row.key) }))
  return json({ object: 'list', data, has_more: rows.length > page.length })
}

/** Active and queued turns, then those that are over, newest first. */
export async function listTurns({ store }: CheckedChatOptions, key: string, query: URLSearchParams): Promise<Response> {
  const limit = wholeNumber(query, 'limit', 50)
  const [entry, data] = await Promise.all([store.get(key), store.turns({ key, limit })])
  if (!entry && data.length === 0) throw new ChatError(404, 'session_not_found', 'There is no session with this key.')
  return json({ object: 'list', key, sessionId: entry?.sessionId, data })
}

function wholeNumber(query: URLSearchParams, name: string, byDefault: number): number {
  const text = query.get(name)
  if (text === null) return byDefault
  const value = /^\d{1,5}$/.test(text) ? Number(text) : 0
  if (value >= 1 && value <= pageMax) return value
  throw new ChatError(400, 'invalid_request', `${name} must be a whole number from 1 to ${pageMax}.`, { param: name })
}

/** Without token, so it says nothing of what is in the store. Ok means that its metadata can be read. */
export async function health({ store }: CheckedChatOptions): Promise<Response> {
  try {
    await store.get('healthz')
    return json({ status: 'ok' })
  } catch (error) {
    const failure = failureOf(error, false)
    return json({ status: 'failing', ...errorBody(failure) }, 503)
  }
}
