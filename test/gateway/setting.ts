/** A gateway on a store of its own, asked without a network in between; and models that a test holds in its hand. */
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import type {
  ChatHandler,
  ChatHandlerOptions,
  ChatMessage,
  ChatModel,
  ChatStore,
  GatewayLog,
  ModelContext,
  TurnLog,
} from '../../src/gateway/index.js'
import { createChatHandler, echoModel } from '../../src/gateway/index.js'
import { SessionStore, type StoredRecord, type StoreOptions } from '../../src/index.js'

export interface Setting {
  readonly dir: string
  readonly store: SessionStore
  readonly handler: ChatHandler
  readonly lines: GatewayLog[]
  readonly turnLines: () => TurnLog[]
  ask(body: object | string, headers?: Record<string, string>, signal?: AbortSignal): Promise<Response>
  look(path: string, headers?: Record<string, string>): Promise<Response>
  /** Role and text of each stored message, in the order of the log. */
  said(key: string): Promise<string[]>
  records(key: string): Promise<Record<string, unknown>[]>
  close(): Promise<void>
}

export const origin = 'http://gateway.test'
export const user = (content: string): ChatMessage => ({ role: 'user', content })
export const assistant = (content: string): ChatMessage => ({ role: 'assistant', content })

export async function setUp(options: Partial<ChatHandlerOptions> = {}, storeOptions: StoreOptions = {}): Promise<Setting> {
  const dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-gateway-'))
  const store = await SessionStore.open(join(dir, 'store'), { durability: 'process', closeMs: 1_000, ...storeOptions })
  const lines: GatewayLog[] = []
  const handler = createChatHandler({ store, model: echoModel(), log: (line) => lines.push(line), ...options })
  const records = async (key: string) => (await store.session(key).tail(10_000)).map(({ record }: StoredRecord) => record)
  return {
    dir,
    store,
    handler,
    lines,
    turnLines: () => lines.filter((line) => line.event === 'turn'),
    ask: (body, headers = {}, signal) =>
      handler(
        new Request(`${origin}/v1/chat/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...headers },
          body: typeof body === 'string' ? body : JSON.stringify(body),
          signal: signal ?? null,
        }),
      ),
    look: (path, headers = {}) => handler(new Request(`${origin}${path}`, { headers })),
    records,
    said: async (key) =>
      (await records(key)).flatMap((record) => {
        if (record.type !== 'message') return []
        const { role, content } = record.message as ChatMessage
        return [`${role}: ${typeof content === 'string' ? content : JSON.stringify(content)}${record.interrupted ? ' …' : ''}`]
      }),
    async close() {
      await store.close()
      fs.rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** A store that does some things in another way. */
export function storeWith(store: SessionStore, otherwise: Partial<ChatStore>): ChatStore {
  return {
    runTurn: (key, options, work) => store.runTurn(key, options, work),
    turns: (options) => store.turns(options),
    get: (key) => store.get(key),
    entries: (options) => store.entries(options),
    session: (key) => store.session(key),
    ...otherwise,
  }
}

export interface Call {
  readonly messages: readonly ChatMessage[]
  readonly context: ModelContext
  say(token: string): void
  finish(text?: string): void
  fail(error: unknown): void
}

export interface HeldModel {
  readonly model: ChatModel
  readonly calls: Call[]
  /** Resolves with the n-th call, counted from 0. */
  call(n: number): Promise<Call>
}

/** A model that says what the test says, when the test says it. Heeds its signal. */
export function heldModel(): HeldModel {
  const calls: Call[] = []
  const waiting: { n: number; resolve: (call: Call) => void }[] = []
  const model: ChatModel = (messages, context) =>
    new Promise((resolve, reject) => {
      const call: Call = {
        messages,
        context,
        say: context.onToken,
        finish: (text) => resolve(text),
        fail: reject,
      }
      context.signal.addEventListener('abort', () => reject(context.signal.reason), { once: true })
      calls.push(call)
      for (const { n, resolve: found } of waiting) if (calls[n]) found(calls[n])
    })
  return {
    model,
    calls,
    call: (n) => new Promise((resolve) => (calls[n] ? resolve(calls[n]) : waiting.push({ n, resolve }))),
  }
}

export interface Chunk {
  readonly id: string
  readonly choices: readonly { readonly delta: Record<string, unknown>; readonly finish_reason: string | null }[]
  readonly usage?: unknown
  readonly error?: Record<string, unknown>
  readonly holdfast?: Record<string, unknown>
}

export interface Heard {
  readonly chunks: Chunk[]
  readonly comments: number
  readonly done: boolean
  readonly text: string
  readonly error: Record<string, unknown> | undefined
}

/** Everything that a stream says. */
export async function hear(response: Response): Promise<Heard> {
  return heardIn(await response.text())
}

export function heardIn(text: string): Heard {
  const events = text.split('\n\n').filter(Boolean)
  const data = events.filter((event) => event.startsWith('data: ')).map((event) => event.slice(6))
  const chunks = data.filter((it) => it !== '[DONE]').map((it) => JSON.parse(it) as Chunk)
  return {
    chunks,
    comments: events.filter((event) => event.startsWith(':')).length,
    done: data.at(-1) === '[DONE]',
    text: chunks.map(({ choices }) => choices?.[0]?.delta.content ?? '').join(''),
    error: chunks.find(({ error }) => error)?.error,
  }
}

export async function contentOf(response: Response): Promise<string> {
  const body = (await response.json()) as { choices: { message: { content: string } }[] }
  return body.choices[0]!.message.content
}

/** Waits until `look` finds something, for at most 5 s. */
export async function until<T>(look: () => T | undefined | Promise<T | undefined>, what = 'it'): Promise<T> {
  const end = Date.now() + 5_000
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (Date.now() > end) throw new Error(`Waited 5 s for ${what}.`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
