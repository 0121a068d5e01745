/** What `createChatHandler` is told. */
import { z } from 'zod'
import type {
  AppendOptions,
  AppendReceipt,
  Entry,
  StoredRecord,
  TranscriptRecord,
  Turn,
  TurnOptions,
  TurnResult,
  TurnStatus,
  TurnsOptions,
  WhenBusy,
} from '../index.js'
import { StoreError } from '../index.js'
import type { GatewayLog } from './log.js'
import type { ChatModel } from './model.js'
import type { ChatRequest } from './request.js'

/** What the gateway needs of a store. A SessionStore is one. */
export interface ChatStore {
  runTurn<R>(key: string, options: TurnOptions, work: (turn: Turn) => Promise<R> | R): Promise<TurnResult<R>>
  turns(options?: TurnsOptions): Promise<TurnStatus[]>
  get(key: string): Promise<Entry<object> | undefined>
  entries(options?: { prefix?: string }): AsyncIterable<[string, Entry<object>]>
  session(key: string): {
    append(records: TranscriptRecord | readonly TranscriptRecord[], options?: AppendOptions): Promise<AppendReceipt>
    tail(count: number): Promise<StoredRecord[]>
  }
}

export interface ChatHandlerOptions {
  readonly store: ChatStore
  /** One model, for whatever name a request asks; or several by name, the first for requests that name none. */
  readonly model: ChatModel | Readonly<Record<string, ChatModel>>
  /** What `GET /v1/models` calls a single model. Default `default`. */
  readonly modelName?: string | undefined

  /** The session key of a request, instead of the header `x-session-key`. Undefined: the request has none. */
  readonly sessionKey?: ((request: Request, chat: ChatRequest) => string | undefined | Promise<string | undefined>) | undefined
  /** A request without a key: fresh (default) gives it a conversation of its own, whose key the response names; refuse is a 400. */
  readonly keyless?: 'fresh' | 'refuse' | undefined
  /** Keys that are refused: those with one of these segments between colons, whatever their case, or those that a function says yes to. Default `subagent`, `cron`. */
  readonly reserved?: readonly string[] | ((key: string) => boolean) | undefined
  /** For requests without `x-when-busy`. Default `queue`. */
  readonly whenBusy?: WhenBusy | undefined
  /** The global lane of all its turns. Default `main`. */
  readonly lane?: string | undefined
  /** How many records of the conversation the model is shown. Default 200. */
  readonly historyMax?: number | undefined

  /** Bearer tokens, any of which lets a request in. Default: everybody is let in. */
  readonly tokens?: string | readonly string[] | undefined
  /** Origins whose pages may call it, or `*`. Default none: no CORS headers. */
  readonly corsOrigins?: readonly string[] | undefined
  /** Host names (without port) that a request may be addressed to; against pages that have their own name point here. Default any. */
  readonly hosts?: readonly string[] | undefined

  /** Default 8 MiB. */
  readonly bodyBytesMax?: number | undefined
  /** How long a body may take to arrive. Default 30,000. */
  readonly bodyMs?: number | undefined
  /** How long a request waits for its turn. Default 600,000. */
  readonly waitMs?: number | undefined
  /** How long a model may take for one reply. Default 600,000. */
  readonly replyMs?: number | undefined
  /** Default 4 MiB. */
  readonly replyBytesMax?: number | undefined
  /** As of a turn: without progress for so long, it is over. Default 1,020,000. Must be more than `replyMs`. */
  readonly maxTurnMs?: number | undefined
  /** A stream that has nothing to say says so as often. Default 15,000. */
  readonly keepAliveMs?: number | undefined
  /** The headers of a stream wait so long for the turn to begin, so that they can name it. Default 1,000. */
  readonly headersAfterMs?: number | undefined
  /** How long an answer waits for a model that goes on although its signal has aborted. Its turn waits longer: until it has settled. Default 2,000. */
  readonly settleMs?: number | undefined
  /** A reader that takes nothing for so long counts as gone. Default 120,000. */
  readonly readerStallMs?: number | undefined

  /** Gets one line for each chat request, and one for each other that failed here. What it throws is dropped. */
  readonly log?: ((line: GatewayLog) => void) | undefined
}

const count = (min: number, max: number) => z.number().int().min(min).max(max)
const milliseconds = (min: number) => count(min, 3_600_000)
const named = z.string().min(1).max(256)
const isFunction = (value: unknown) => typeof value === 'function'
const anyFunction = <F>() => z.custom<F>(isFunction, 'must be a function')
const isStore = (value: unknown) =>
  typeof value === 'object' && value !== null && isFunction((value as ChatStore).runTurn) && isFunction((value as ChatStore).turns)

const schema = z.strictObject({
  store: z.custom<ChatStore>(isStore, 'must be an open SessionStore'),
  model: z.union([
    anyFunction<ChatModel>(),
    z.record(named, anyFunction<ChatModel>()).refine((models) => Object.keys(models).length > 0, 'must have a model'),
  ]),
  modelName: named.default('default'),
  sessionKey: anyFunction<NonNullable<ChatHandlerOptions['sessionKey']>>().optional(),
  keyless: z.enum(['fresh', 'refuse']).default('fresh'),
  reserved: z.union([anyFunction<(key: string) => boolean>(), z.array(named)]).default(['subagent', 'cron']),
  whenBusy: z.enum(['queue', 'reject', 'coalesce', 'interrupt']).default('queue'),
  lane: named.default('main'),
  historyMax: count(1, 10_000).default(200),
  tokens: z.union([named.transform((token) => [token]), z.array(z.string().min(1)).min(1)]).default([]),
  corsOrigins: z.array(z.string().min(1)).default([]),
  hosts: z.array(z.string().min(1)).optional(),
  bodyBytesMax: count(1 << 10, 256 << 20).default(8 << 20),
  bodyMs: milliseconds(1).default(30_000),
  waitMs: milliseconds(0).default(600_000),
  replyMs: milliseconds(1).default(600_000),
  replyBytesMax: count(1 << 10, 256 << 20).default(4 << 20),
  maxTurnMs: count(100, 86_400_000).default(1_020_000),
  keepAliveMs: milliseconds(10).default(15_000),
  headersAfterMs: milliseconds(0).default(1_000),
  settleMs: milliseconds(0).default(2_000),
  readerStallMs: milliseconds(10).default(120_000),
  log: anyFunction<(line: GatewayLog) => void>().optional(),
})

export interface CheckedChatOptions extends Omit<z.infer<typeof schema>, 'model' | 'reserved' | 'log'> {
  readonly models: ReadonlyMap<string, ChatModel>
  /** A single model takes any name. */
  readonly anyName: boolean
  readonly reserved: (key: string) => boolean
  readonly log: (line: GatewayLog) => void
}

/** @throws INVALID_OPTION. */
export function checkChatOptions(options: ChatHandlerOptions): CheckedChatOptions {
  const result = schema.safeParse(options)
  if (!result.success) {
    const issue = result.error.issues[0]
    const path = issue?.path.join('.')
    throw new StoreError('INVALID_OPTION', `options${path ? `.${path}` : ''}: ${issue?.message ?? 'not valid'}.`, {
      details: { option: path, issues: result.error.issues },
      hint: 'No handler was made.',
    })
  }
  const { model, reserved, log, ...checked } = result.data
  if (checked.maxTurnMs <= checked.replyMs)
    throw new StoreError('INVALID_OPTION', `options.maxTurnMs: must be more than replyMs (${checked.replyMs}).`, {
      details: { option: 'maxTurnMs' },
      hint: 'No handler was made. A model that takes all the time it has would lose its turn.',
    })
  return {
    ...checked,
    models: new Map(typeof model === 'function' ? [[checked.modelName, model]] : Object.entries(model)),
    anyName: typeof model === 'function',
    reserved: typeof reserved === 'function' ? reserved : hasSegment(reserved),
    log: quietly(log),
  }
}

function hasSegment(names: readonly string[]): (key: string) => boolean {
  const wanted = new Set(names.map((name) => name.toLowerCase()))
  return (key) => key.split(':').some((segment) => wanted.has(segment.trim().toLowerCase()))
}

/** A log that is full must not cost anybody an answer. */
function quietly(log: ((line: GatewayLog) => void) | undefined): (line: GatewayLog) => void {
  return (line) => {
    try {
      log?.(line)
    } catch {
      // There is nobody left to tell.
    }
  }
}
