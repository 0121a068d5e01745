/** A model that is another server with an OpenAI-compatible chat API. Its answer is streamed, so that pieces are handed on as they come and silence is
 *  noticed; servers that answer a request for a stream with plain JSON are understood as well. */
import { createParser } from 'eventsource-parser'
import { z } from 'zod'
import { StoreError } from '../../index.js'
import { ChatError } from '../failure.js'
import type { AssistantMessage, ChatDelta, ChatModel, ChatReply, ChatUsage, ModelContext } from '../model.js'
import { Said } from '../said.js'

export interface UpstreamOptions {
  /** Up to and without `/chat/completions`, such as `https://api.openai.com/v1`. Default: the environment's OPENAI_BASE_URL. */
  readonly baseUrl?: string | undefined
  /** Default: the environment's OPENAI_API_KEY. Servers without keys need none. */
  readonly apiKey?: string | undefined
  /** Default: the name that the request asked for. */
  readonly model?: string | undefined
  /** More headers for every request. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** How long it may take to begin its answer. Default 120,000. */
  readonly firstByteMs?: number | undefined
  /** How long it may say nothing in between. Default 60,000. */
  readonly silenceMs?: number | undefined
  /** Ask for token counts at the end of the stream (`stream_options`). Some servers refuse that. Default true. */
  readonly includeUsage?: boolean | undefined
  /** Instead of the global fetch. */
  readonly fetch?: typeof fetch | undefined
}

const milliseconds = z.number().int().min(1).max(3_600_000)
const schema = z.strictObject({
  baseUrl: z.url({ protocol: /^https?$/ }),
  apiKey: z.string().min(1).optional(),
  model: z.string().min(1).optional(),
  headers: z.record(z.string(), z.string()).default({}),
  firstByteMs: milliseconds.default(120_000),
  silenceMs: milliseconds.default(60_000),
  includeUsage: z.boolean().default(true),
  fetch: z.custom<typeof fetch>((value) => typeof value === 'function', 'must be a function').optional(),
})
type Upstream = z.infer<typeof schema>

/** @throws INVALID_OPTION  at once; without base URL, too. */
export function upstreamModel(options: UpstreamOptions = {}): ChatModel {
  const baseUrl = options.baseUrl ?? (process.env.OPENAI_BASE_URL || undefined)
  const apiKey = options.apiKey ?? (process.env.OPENAI_API_KEY || undefined)
  const result = schema.safeParse({ ...options, baseUrl, apiKey })
  if (!result.success) {
    const issue = result.error.issues[0]
    throw new StoreError('INVALID_OPTION', `upstreamModel: ${issue?.path.join('.')}: ${issue?.message ?? 'not valid'}.`, {
      hint: 'Name the base URL, such as https://api.openai.com/v1, or set OPENAI_BASE_URL.',
    })
  }
  const upstream = result.data
  return async (messages, context) => {
    const { stream: _, ...params } = context.params
    const body = {
      ...params,
      model: upstream.model ?? context.model,
      messages,
      stream: true,
      ...(upstream.includeUsage ? { stream_options: { include_usage: true } } : {}),
    }
    const watch = watchSilence(context.signal, upstream.firstByteMs)
    try {
      const response = await post(upstream, JSON.stringify(body), watch.signal)
      if (!response.ok) throw await refusalOf(response)
      watch.expectWithin(upstream.silenceMs)
      const isStream = response.headers.get('content-type')?.includes('text/event-stream') ?? false
      return isStream ? await readStream(response, context, watch, upstream) : wholeReply(await textWithin(response, answerBytesMax))
    } catch (error) {
      throw context.signal.aborted ? context.signal.reason : asChatError(error, watch.signal)
    } finally {
      watch.stop()
    }
  }
}

function post({ baseUrl, apiKey, headers, fetch: theirs }: Upstream, body: string, signal: AbortSignal): Promise<Response> {
  return (theirs ?? fetch)(`${baseUrl.replace(/\/+$/, '')}/chat/completions`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'text/event-stream, application/json',
      ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
      ...headers,
    },
    body,
    signal,
  })
}

interface SilenceWatch {
  readonly signal: AbortSignal
  expectWithin(ms: number): void
  stop(): void
}

/** Aborts with the outer signal, or when nothing has come for too long. */
function watchSilence(outer: AbortSignal, firstByteMs: number): SilenceWatch {
  const controller = new AbortController()
  const follow = () => controller.abort(outer.reason)
  if (outer.aborted) follow()
  outer.addEventListener('abort', follow, { once: true })
  let timer: NodeJS.Timeout | undefined
  const expectWithin = (ms: number) => {
    clearTimeout(timer)
    const silent = () => controller.abort(new ChatError(504, 'upstream_timeout', `The upstream model said nothing for ${ms} ms.`))
    timer = setTimeout(silent, ms)
  }
  expectWithin(firstByteMs)
  return {
    signal: controller.signal,
    expectWithin,
    stop() {
      clearTimeout(timer)
      outer.removeEventListener('abort', follow)
    },
  }
}

const usage = z.looseObject({ prompt_tokens: z.number(), completion_tokens: z.number(), total_tokens: z.number() })
const toolCallPiece = z.looseObject({
  index: z.number().int().min(0).max(1_000).default(0),
  id: z.string().nullish().transform(orUndefined),
  type: z.string().nullish().transform(orUndefined),
  function: z
    .object({ name: z.string().nullish().transform(orUndefined), arguments: z.string().nullish().transform(orUndefined) })
    .optional(),
})
const chunk = z.looseObject({
  choices: z
    .array(
      z.looseObject({
        delta: z.looseObject({ content: z.string().nullish(), tool_calls: z.array(toolCallPiece).nullish() }).nullish(),
        finish_reason: z.string().nullish(),
      }),
    )
    .nullish(),
  usage: usage.nullish().catch(null),
  error: z.unknown().optional(),
})
const whole = z.looseObject({
  choices: z.tuple(
    [z.looseObject({ message: z.looseObject({ role: z.literal('assistant') }), finish_reason: z.string().nullish() })],
    z.unknown(),
  ),
  usage: usage.nullish().catch(null),
})

function orUndefined(text: string | null | undefined): string | undefined {
  return text ?? undefined
}

/** One event of a stream; what servers send is far smaller. */
const eventCharactersMax = 16 << 20

async function readStream(response: Response, context: ModelContext, watch: SilenceWatch, { silenceMs }: Upstream): Promise<ChatReply> {
  const said = new Said()
  let finishReason: string | undefined
  let counted: ChatUsage | undefined
  let done = false
  const parser = createParser({
    maxBufferSize: eventCharactersMax,
    onError: (error) => {
      if (error.type === 'max-buffer-size-exceeded') throw broken('an event of its stream is too large', error)
    },
    onEvent: ({ data }) => {
      if (data === '[DONE]') {
        done = true
        return
      }
      const piece = chunkOf(data)
      counted = piece.usage ?? counted
      const choice = piece.choices?.[0]
      finishReason = choice?.finish_reason ?? finishReason
      const { role: _, ...delta } = choice?.delta ?? {}
      if (!saysAnything(delta)) return
      said.add(delta as ChatDelta)
      context.onToken(plainly(delta as ChatDelta))
    },
  })
  const decoder = new TextDecoder()
  for await (const bytes of response.body ?? []) {
    watch.expectWithin(silenceMs)
    parser.feed(decoder.decode(bytes, { stream: true }))
    if (done) break
  }
  // Some servers leave [DONE] out; a stream without either has been cut off, and half a reply must not be taken for a whole one.
  if (!done && finishReason === undefined) throw broken('its stream ended before its end')
  return { message: said.message(), finishReason, usage: counted }
}

const saysAnything = (delta: object) => Object.values(delta).some((value) => value !== null && value !== undefined && value !== '')

/** Without fields that say nothing, so that pieces of text can be joined. */
function plainly(delta: ChatDelta): ChatDelta {
  return Object.fromEntries(Object.entries(delta).filter(([, value]) => value !== null && value !== undefined))
}

function chunkOf(data: string): z.infer<typeof chunk> {
  const value = jsonOf(data)
  if (value === undefined) throw broken('an event of its stream is not JSON')
  const result = chunk.safeParse(value)
  if (!result.success) throw broken('an event of its stream is no chunk', result.error)
  if (result.data.error !== undefined && result.data.error !== null) throw saidError(502, value, undefined)
  return result.data
}

function wholeReply(text: string): ChatReply {
  const result = whole.safeParse(jsonOf(text))
  if (!result.success) throw broken('its answer is no chat completion', result.error)
  const { message, finish_reason: finishReason } = result.data.choices[0]
  return { message: message as unknown as AssistantMessage, finishReason: finishReason ?? undefined, usage: result.data.usage ?? undefined }
}

const broken = (why: string, cause?: unknown) =>
  new ChatError(502, 'upstream_broken', `The upstream model cannot be understood: ${why}.`, { cause })

const answerBytesMax = 64 << 20
const refusalBytesMax = 1 << 20

async function textWithin(response: Response, bytesMax: number): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength
    if (bytes > bytesMax) throw broken(`its answer has more than ${bytesMax} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** Undefined for what is none, such as a proxy's page. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Its key, its quota and its faults are ours to our clients; what is wrong with the request is theirs. */
async function refusalOf(response: Response): Promise<ChatError> {
  const { status, headers } = response
  const text = await textWithin(response, refusalBytesMax)
  const body = jsonOf(text)
  const retryAfterMs = retryAfterOf(headers.get('retry-after'))
  if (status === 429) return saidError(429, body, retryAfterMs)
  if (status === 400 || status === 413 || status === 422) return saidError(status, body, undefined)
  if (status === 503) return saidError(503, body, retryAfterMs)
  const code = status === 401 || status === 403 ? 'upstream_refused' : 'upstream_failed'
  const cause = new Error(
    `upstream answered ${status}: ${typeof body === 'string' ? body.slice(0, 500) : JSON.stringify(body).slice(0, 500)}`,
  )
  return new ChatError(502, code, `The upstream model answered ${status}.`, { cause, retryable: status >= 500 })
}

const errorSaid = z.object({ error: z.looseObject({ message: z.string(), code: z.string().nullish(), param: z.string().nullish() }) })

function saidError(status: number, body: unknown, retryAfterMs: number | undefined): ChatError {
  const said = errorSaid.safeParse(body)
  const { message, code, param } = said.success ? said.data.error : { message: 'It gave no reason.', code: undefined, param: undefined }
  return new ChatError(status, code ?? 'upstream_failed', `The upstream model refused: ${message.slice(0, 1_000)}`, {
    param: param ?? undefined,
    retryAfterMs,
    ...(status === 502 ? {} : { retryable: status === 429 || status === 503 }),
  })
}

function retryAfterOf(retryAfter: string | null): number | undefined {
  const seconds = Number(retryAfter ?? Number.NaN)
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined
}

function asChatError(error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason
  if (error instanceof ChatError) return error
  return new ChatError(502, 'upstream_unreachable', 'The upstream model cannot be reached, or broke off.', { cause: error })
}
