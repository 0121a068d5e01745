/** The gateway as one function from a request to a response. It opens no port and no file, so it runs wherever fetch handlers run. */
import { answerChat } from './chat.js'
import { corsFor } from './cors.js'
import { ChatError, errorBody, type Failure, failureOf, retryHeaders } from './failure.js'
import { health, listModels, listSessions, listTurns, showModel } from './listing.js'
import { type ChatHandlerOptions, type CheckedChatOptions, checkChatOptions } from './options.js'
import { tokenCheck } from './token.js'

export type ChatHandler = (request: Request) => Promise<Response>

interface Asked {
  readonly request: Request
  readonly url: URL
  /** The parts of the path that the route leaves open, decoded. */
  readonly parts: readonly string[]
}

interface Route {
  readonly method: 'GET' | 'POST'
  readonly path: RegExp
  /** Anybody may ask. */
  readonly open?: true
  readonly answer: (asked: Asked) => Response | Promise<Response>
}

/** Answers `POST /v1/chat/completions`, `GET /v1/models`, `GET /sessions`, `GET /sessions/:key/turns` and `GET /healthz`. Never rejects.
 *  @throws INVALID_OPTION. */
export function createChatHandler(options: ChatHandlerOptions): ChatHandler {
  const checked = checkChatOptions(options)
  const routes = routesFor(checked)
  const checkToken = tokenCheck(checked.tokens)
  const cors = corsFor(checked.corsOrigins)
  return async (request) => {
    const response = cors.preflight(request) ?? (await answer(request, { routes, checkToken, options: checked }))
    for (const [name, value] of Object.entries(cors.headers(request))) response.headers.set(name, value)
    return response
  }
}

function routesFor(options: CheckedChatOptions): readonly Route[] {
  const created = Math.floor(Date.now() / 1000)
  return [
    { method: 'POST', path: /^\/v1\/chat\/completions$/, answer: ({ request }) => answerChat(request, options) },
    { method: 'GET', path: /^\/v1\/models$/, answer: () => listModels(options, created) },
    { method: 'GET', path: /^\/v1\/models\/([^/]+)$/, answer: ({ parts }) => showModel(options, created, parts[0]!) },
    { method: 'GET', path: /^\/sessions$/, answer: ({ url }) => listSessions(options, url.searchParams) },
    { method: 'GET', path: /^\/sessions\/([^/]+)\/turns$/, answer: ({ url, parts }) => listTurns(options, parts[0]!, url.searchParams) },
    { method: 'GET', path: /^\/healthz$/, open: true, answer: () => health(options) },
  ]
}

interface Tools {
  readonly routes: readonly Route[]
  readonly checkToken: (request: Request) => void
  readonly options: CheckedChatOptions
}

async function answer(request: Request, tools: Tools): Promise<Response> {
  try {
    const response = await routed(request, tools)
    return request.method === 'HEAD' ? new Response(null, response) : response
  } catch (error) {
    const failure = failureOf(error, false)
    if (failure.status >= 500) report(request, failure, tools.options)
    const headers = { 'cache-control': 'no-store', ...retryHeaders(failure, false) }
    if (request.method === 'HEAD') return new Response(null, { status: failure.status, headers })
    return Response.json(errorBody(failure), { status: failure.status, headers })
  }
}

async function routed(request: Request, { routes, checkToken, options }: Tools): Promise<Response> {
  const url = new URL(request.url)
  const { hosts } = options
  if (hosts && !hosts.includes(url.hostname)) throw new ChatError(421, 'unknown_host', 'This gateway is not known by that host name.')
  const there = routes.filter(({ path }) => path.test(url.pathname))
  if (!there.some(({ open }) => open)) checkToken(request)
  if (there.length === 0) throw new ChatError(404, 'not_found', 'There is nothing at this path.')
  const method = request.method === 'HEAD' ? 'GET' : request.method
  const allow = [...new Set(there.flatMap((route) => (route.method === 'GET' ? ['GET', 'HEAD'] : [route.method])))].join(', ')
  if (method === 'OPTIONS') return new Response(null, { status: 204, headers: { allow } })
  const route = there.find((one) => one.method === method)
  if (!route) throw new ChatError(405, 'method_not_allowed', `This path takes ${allow}.`, { headers: { allow } })
  return route.answer({ request, url, parts: partsOf(route.path, url.pathname) })
}

function partsOf(path: RegExp, pathname: string): string[] {
  try {
    return path.exec(pathname)!.slice(1).map(decodeURIComponent)
  } catch {
    throw new ChatError(400, 'invalid_path', 'The path is not percent-encoded UTF-8.')
  }
}

function report(request: Request, { status, code, detail }: Failure, { log }: CheckedChatOptions): void {
  log({ event: 'failure', at: new Date().toISOString(), method: request.method, url: request.url, status, code, detail })
}
