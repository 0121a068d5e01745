/** POST /v1/chat/completions. As JSON, headers and body go out when the turn is over. As a stream, the headers go out when the turn begins, or after
 *  `headersAfterMs`, whichever is first: a turn that cannot begin has a real status only as long as it has not been waited for. */
import { createHash } from 'node:crypto'
import type { Turn } from '../index.js'
import { readJson } from './body.js'
import { type Caller, identify } from './caller.js'
import { type Answer, chunkMaker, completion, type Origin, type Reply } from './completion.js'
import { EventStream } from './event-stream.js'
import { ChatError, errorBody, type Failure, retryHeaders } from './failure.js'
import { headerOfText } from './header-text.js'
import type { TurnLog } from './log.js'
import type { ChatModel } from './model.js'
import type { CheckedChatOptions } from './options.js'
import { type ChatRequest, checkRequest } from './request.js'
import { ChatRun, type Outcome } from './run.js'
import { piecesOf } from './said.js'

/** One request, with what all of its answer has in common. */
interface Exchange {
  readonly options: CheckedChatOptions
  readonly chat: ChatRequest
  readonly caller: Caller
  readonly modelName: string
  readonly model: ChatModel
  readonly created: number
  readonly arrivedMs: number
  readonly fingerprint: string
}

/** @throws what is refused before the request has a session key: ChatError, StoreError INVALID_KEY. */
export async function answerChat(request: Request, options: CheckedChatOptions): Promise<Response> {
  const arrivedMs = performance.now()
  const chat = checkRequest(await readJson(request, options))
  const [modelName, model] = modelOf(chat, options)
  const caller = await identify(request, chat, options)
  const fingerprint = createHash('sha256')
    .update(JSON.stringify([modelName, chat.messages]))
    .digest('hex')
    .slice(0, 32)
  const created = Math.floor(Date.now() / 1000)
  const exchange: Exchange = { options, chat, caller, modelName, model, created, arrivedMs, fingerprint }
  return chat.stream ? answerStream(request, exchange) : answerJson(request, exchange)
}

function modelOf({ model: asked }: ChatRequest, { models, anyName }: CheckedChatOptions): [string, ChatModel] {
  const [first] = models
  const [firstName, firstModel] = first!
  if (asked === undefined || anyName) return [asked ?? firstName, firstModel]
  const model = models.get(asked)
  if (model) return [asked, model]
  throw new ChatError(404, 'model_not_found', 'There is no model of that name; GET /v1/models lists those there are.', {
    type: 'invalid_request_error',
    param: 'model',
  })
}

async function answerJson(request: Request, exchange: Exchange): Promise<Response> {
  const run = startRun(exchange, { onBegin: () => {}, onPiece: () => {} })
  const unbind = abortWith(request, run)
  const outcome = await run.outcome
  unbind()
  if (outcome.kind === 'failed') return failedResponse(exchange, run, outcome)
  const sessionId = outcome.result.sessionId
  const origin = originOf(exchange, sessionId, outcome.result.turn, stateOf(outcome))
  const body = completion(identityOf(exchange, outcome), replyOf(outcome), origin)
  return Response.json(body, { status: statusOf(outcome), headers: { ...headersOf(exchange, origin), ...replayHeaders(outcome) } })
}

async function answerStream(request: Request, exchange: Exchange): Promise<Response> {
  const { options, caller } = exchange
  const chunks = chunkMaker(
    { requestId: caller.requestId, created: exchange.created, model: exchange.modelName },
    exchange.chat.includeUsage,
  )
  const stream = new EventStream({
    keepAliveMs: options.keepAliveMs,
    readerStallMs: options.readerStallMs,
    pieceJson: (delta) => JSON.stringify(chunks.piece(delta)),
    onGone: (why) => run.abort(why === 'stalled' ? stalled(options.readerStallMs) : disconnected()),
  })
  let begin!: (turn: Turn) => void
  const begun = new Promise<{ readonly turn: Turn }>((resolve) => {
    begin = (turn) => resolve({ turn })
  })
  const run: ChatRun = startRun(exchange, {
    onBegin: (turn) => {
      stream.event(chunks.first(originOf(exchange, turn.sessionId, turn.turn, 'active')))
      begin(turn)
    },
    onPiece: (delta) => stream.piece(delta),
  })
  const unbind = abortWith(request, run)
  const patience = sleep(caller.whenBusy === 'reject' && !caller.idempotent ? options.waitMs : options.headersAfterMs)
  const first = await Promise.race([begun, run.outcome, patience.promise])
  patience.stop()
  void run.outcome.then((outcome) => {
    unbind()
    endStream(stream, exchange, outcome)
  })
  if (first && 'kind' in first && first.kind === 'failed') {
    stream.discard()
    return failedResponse(exchange, run, first)
  }
  const response = (origin: Origin, status = 200, more = {}) =>
    new Response(stream.readable, { status, headers: { ...headersOf(exchange, origin), ...streamHeaders, ...more } })
  if (!first) return response(originOf(exchange, await sessionIdOf(exchange), undefined, 'queued'))
  if ('turn' in first) return response(originOf(exchange, first.turn.sessionId, first.turn.turn, 'active'))
  const { sessionId, turn } = first.result
  return response(originOf(exchange, sessionId, turn, stateOf(first)), statusOf(first), replayHeaders(first))
}

const streamHeaders = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store', 'x-accel-buffering': 'no' }

/** What comes after the pieces. An error ends a stream without `[DONE]`, so that nobody takes it for a whole reply. */
function endStream(stream: EventStream, exchange: Exchange, outcome: Outcome): void {
  if (outcome.kind === 'failed') {
    stream.event(errorBody(outcome.failure))
    return stream.end()
  }
  const { sessionId, turn } = outcome.result
  const origin = originOf(exchange, sessionId, turn, stateOf(outcome))
  const reply = replyOf(outcome)
  const chunks = chunkMaker(identityOf(exchange, outcome), exchange.chat.includeUsage)
  if (outcome.kind === 'coalesced' || outcome.replayed) {
    stream.event(chunks.first(origin))
    for (const delta of piecesOf(reply.message)) stream.event(chunks.piece(delta))
  }
  stream.event(chunks.finish(reply.finishReason, origin))
  if (exchange.chat.includeUsage) stream.event(chunks.usage(reply.usage))
  stream.end('[DONE]')
}

function startRun(exchange: Exchange, hooks: { onBegin: (turn: Turn) => void; onPiece: ChatRunPiece }): ChatRun {
  let begunMs: number | undefined
  const run = new ChatRun({
    ...exchange,
    ...hooks,
    onBegin: (turn) => {
      begunMs = performance.now()
      hooks.onBegin(turn)
    },
    onLeft: (turn, failure, finishReason) => writeLeftLog(exchange, turn, failure, finishReason),
  })
  void run.outcome.then((outcome) => writeLog(exchange, run, outcome, begunMs))
  return run
}

type ChatRunPiece = ConstructorParameters<typeof ChatRun>[0]['onPiece']

function writeLog(exchange: Exchange, run: ChatRun, outcome: Outcome, begunMs: number | undefined): void {
  const { caller, chat, arrivedMs } = exchange
  const now = performance.now()
  const result = outcome.kind === 'failed' ? undefined : outcome.result
  const failure = outcome.kind === 'failed' ? outcome.failure : undefined
  writeLine(exchange, failure, {
    requestId: caller.requestId,
    sessionId: run.turn?.sessionId ?? result?.sessionId,
    turn: run.turn?.turn ?? result?.turn ?? failure?.turn,
    attempt: run.turn?.attempt ?? result?.attempt,
    outcome: stateOf(outcome, run.turn),
    status: statusOf(outcome),
    stream: chat.stream,
    waitedMs: Math.round((begunMs ?? now) - arrivedMs),
    tookMs: Math.round(now - arrivedMs),
    finishReason: outcome.kind === 'answered' ? outcome.answer.finishReason : undefined,
  })
}

/** Of a turn that nobody waits for: it answers what others have left. */
function writeLeftLog(exchange: Exchange, turn: Turn, failure: Failure | undefined, finishReason: string | undefined): void {
  const outcome = failure === undefined ? 'completed' : turn.signal.aborted ? 'interrupted' : 'failed'
  const { requestId, sessionId, turn: number, attempt } = turn
  const tookMs = Math.round(performance.now() - exchange.arrivedMs)
  const status = failure?.status ?? 200
  const rest = { outcome, status, stream: false, waitedMs: 0, tookMs, finishReason } as const
  writeLine(exchange, failure, { requestId, sessionId, turn: number, attempt, ...rest })
}

type LineOf = Omit<TurnLog, 'event' | 'at' | 'channelId' | 'key' | 'lane' | 'whenBusy' | 'model' | 'error'>

function writeLine({ options, caller, modelName }: Exchange, failure: Failure | undefined, line: LineOf): void {
  const { requestId, sessionId, turn, attempt, outcome, status, ...rest } = line
  options.log({
    event: 'turn',
    at: new Date().toISOString(),
    requestId,
    channelId: caller.channelId,
    key: caller.key,
    sessionId,
    turn,
    attempt,
    outcome,
    status,
    lane: options.lane,
    whenBusy: caller.whenBusy,
    model: modelName,
    ...rest,
    error: failure && { code: failure.code, effect: failure.effect, detail: failure.detail },
  })
}

type State = TurnLog['outcome']

function stateOf(outcome: Outcome, turn?: Turn): State {
  if (outcome.kind === 'coalesced') return 'coalesced'
  if (outcome.kind === 'answered')
    return outcome.replayed ? 'duplicate' : outcome.result.outcome === 'interrupted' ? 'interrupted' : 'completed'
  return outcome.interrupted ? 'interrupted' : turn ? 'failed' : 'rejected'
}

/** 202: the message is stored and will be answered, in another request's response. */
const statusOf = (outcome: Outcome) => (outcome.kind === 'failed' ? outcome.failure.status : outcome.kind === 'coalesced' ? 202 : 200)

/** A coalesced request has no reply of its own, but clients of the chat API expect a message. */
const nothing: Reply = { message: { role: 'assistant', content: '' }, finishReason: 'stop', usage: undefined }
const replyOf = (outcome: Outcome & { readonly kind: 'answered' | 'coalesced' }): Reply =>
  outcome.kind === 'answered' ? outcome.answer : nothing

function identityOf(
  { caller, created, modelName: model }: Exchange,
  outcome: Outcome,
): { requestId: string } & Pick<Answer, 'created' | 'model'> {
  const of = outcome.kind === 'answered' ? outcome.answer : { created, model }
  return { requestId: caller.requestId, created: of.created, model: of.model }
}

function originOf({ caller }: Exchange, sessionId: string | undefined, turn: number | undefined, state: string): Origin {
  return { session_key: caller.key, session_id: sessionId, turn, state }
}

function headersOf({ caller }: Exchange, origin: Origin): Record<string, string> {
  return {
    'x-request-id': headerOfText(caller.requestId),
    'x-session-key': headerOfText(origin.session_key),
    ...(origin.session_id === undefined ? {} : { 'x-session-id': origin.session_id }),
    ...(origin.turn === undefined ? {} : { 'x-turn': String(origin.turn) }),
    'x-turn-state': origin.state,
    'cache-control': 'no-store',
  }
}

const replayHeaders = (outcome: Outcome): Record<string, string> =>
  outcome.kind === 'answered' && outcome.replayed ? { 'idempotent-replayed': 'true' } : {}

async function failedResponse(exchange: Exchange, run: ChatRun, outcome: Outcome & { readonly kind: 'failed' }): Promise<Response> {
  const { failure } = outcome
  const sessionId = run.turn?.sessionId ?? (await sessionIdOf(exchange))
  const origin = originOf(exchange, sessionId, run.turn?.turn ?? failure.turn, stateOf(outcome, run.turn))
  const headers = { ...headersOf(exchange, origin), ...retryHeaders(failure, exchange.caller.idempotent) }
  return Response.json(errorBody(failure), { status: failure.status, headers })
}

async function sessionIdOf({ options, caller }: Exchange): Promise<string | undefined> {
  try {
    return (await options.store.get(caller.key))?.sessionId
  } catch {
    // The store is in trouble, which the answer says; a header is not worth another error.
    return undefined
  }
}

function abortWith(request: Request, run: ChatRun): () => void {
  const gone = () => run.abort(disconnected())
  // The signal of a Request that nobody holds may be collected before it fires: this closure holds the request.
  request.signal.addEventListener('abort', gone, { once: true })
  if (request.signal.aborted) gone()
  return () => request.signal.removeEventListener('abort', gone)
}

const disconnected = () => new ChatError(499, 'client_disconnected', 'The client is gone.', { retryable: true })
const stalled = (ms: number) => new ChatError(499, 'reader_stalled', `The client took nothing for ${ms} ms.`, { retryable: true })

function sleep(ms: number): { readonly promise: Promise<undefined>; stop(): void } {
  let timer: NodeJS.Timeout | undefined
  const promise = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined)
  })
  return { promise, stop: () => clearTimeout(timer) }
}
