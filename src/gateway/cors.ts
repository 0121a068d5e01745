/** Cross-origin requests, for pages of the origins that are named, and no others. */

export interface Cors {
  /** The headers for a request's answer. */
  headers(request: Request): Record<string, string>
  /** The answer to a preflight; undefined when the request is none, or its origin is not welcome. */
  preflight(request: Request): Response | undefined
}

const exposed = 'x-request-id, x-session-key, x-session-id, x-turn, x-turn-state, retry-after, x-should-retry, idempotent-replayed'

export function corsFor(origins: readonly string[]): Cors {
  const welcome = (request: Request) => {
    const origin = request.headers.get('origin')
    return origin !== null && (origins.includes('*') || origins.includes(origin)) ? origin : undefined
  }
  const headers = (request: Request): Record<string, string> => {
    if (origins.length === 0) return {}
    const origin = welcome(request)
    return origin === undefined
      ? { vary: 'origin' }
      : { vary: 'origin', 'access-control-allow-origin': origin, 'access-control-expose-headers': exposed }
  }
  return {
    headers,
    preflight(request) {
      if (request.headers.get('access-control-request-method') === null || welcome(request) === undefined) return undefined
      const asked = request.headers.get('access-control-request-headers')
      return new Response(null, {
        status: 204,
        headers: {
          ...headers(request),
          'access-control-allow-methods': 'GET, POST',
          ...(asked === null ? {} : { 'access-control-allow-headers': asked }),
          'access-control-max-age': '600',
        },
      })
    },
  }
}
