/** Who asks, and how: what the headers of a chat request say. No header and no key ever becomes a path: the store names files by ids of its own. */
import { createHash } from 'node:crypto'
import { uuidv7 } from 'uuidv7'
import type { WhenBusy } from '../index.js'
import { checkKey } from '../input.js'
import { ChatError } from './failure.js'
import { textOfHeader } from './header-text.js'
import type { CheckedChatOptions } from './options.js'
import type { ChatRequest } from './request.js'

export interface Caller {
  readonly key: string
  /** The key was made for this request. */
  readonly fresh: boolean
  readonly requestId: string
  /** The request id came from the client, so that a second try can be known. */
  readonly idempotent: boolean
  readonly channelId: string | undefined
  readonly whenBusy: WhenBusy
}

const idCharactersMax = 256
const policies: readonly string[] = ['queue', 'reject', 'coalesce', 'interrupt'] satisfies WhenBusy[]

/** @throws ChatError 400, 403 · StoreError INVALID_KEY. */
export async function identify(request: Request, chat: ChatRequest, options: CheckedChatOptions): Promise<Caller> {
  const idempotencyKey = idHeader(request, 'idempotency-key')
  const channelId = idHeader(request, 'x-channel-id') ?? idText(chat.user, 'user')
  const named = await nameOf(request, chat, options)
  if (named === undefined && options.keyless === 'refuse')
    throw new ChatError(400, 'missing_session_key', 'A session key is needed: x-session-key.', { param: 'x-session-key' })
  const key = named ?? freshKey(request, chat, idempotencyKey)
  checkKey(key)
  if (options.reserved(key))
    throw new ChatError(403, 'reserved_session_key', 'This session key belongs to a reserved lane; the gateway does not speak for it.', {
      param: 'x-session-key',
    })
  return {
    key,
    fresh: named === undefined,
    requestId: idempotencyKey ?? `req-${uuidv7()}`,
    idempotent: idempotencyKey !== undefined,
    channelId,
    whenBusy: policyOf(request) ?? options.whenBusy,
  }
}

async function nameOf(request: Request, chat: ChatRequest, { sessionKey }: CheckedChatOptions): Promise<string | undefined> {
  if (sessionKey) return sessionKey(request, chat)
  const value = request.headers.get('x-session-key')
  if (value === null) return undefined
  return textOfHeader(value) ?? refuse('x-session-key', 'is not UTF-8')
}

/** A second try without a session key must come to the same conversation, or it would be answered twice. The token and the messages are in it, so
 *  that nobody comes to another's conversation by using the same idempotency key. */
function freshKey(request: Request, { messages }: ChatRequest, idempotencyKey: string | undefined): string {
  if (idempotencyKey === undefined) return `chat:${uuidv7()}`
  const seed = JSON.stringify([idempotencyKey, request.headers.get('authorization'), messages])
  return `chat:${createHash('sha256').update(seed).digest('hex').slice(0, 32)}`
}

function policyOf(request: Request): WhenBusy | undefined {
  const value = request.headers.get('x-when-busy')?.trim().toLowerCase()
  if (value === undefined) return undefined
  return policies.includes(value) ? (value as WhenBusy) : refuse('x-when-busy', `must be one of ${policies.join(', ')}`)
}

function idHeader(request: Request, name: string): string | undefined {
  const value = request.headers.get(name)
  if (value === null) return undefined
  return idText(textOfHeader(value) ?? refuse(name, 'is not UTF-8'), name)
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for.
const control = /[\u0000-\u001f\u007f-\u009f]/

function idText(text: string | undefined, name: string): string | undefined {
  if (text === undefined) return undefined
  if (text.length === 0 || text.length > idCharactersMax) refuse(name, `must have 1 to ${idCharactersMax} characters`)
  if (control.test(text) || !text.isWellFormed()) refuse(name, 'has a control character, or half a surrogate pair')
  return text
}

function refuse(param: string, why: string): never {
  throw new ChatError(400, 'invalid_header', `${param} ${why}.`, { param })
}
