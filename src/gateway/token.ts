/** Bearer tokens. Compared as hashes, all of them, so that the time it takes says nothing of how much of a guess was right. */
import { createHash, timingSafeEqual } from 'node:crypto'
import { ChatError } from './failure.js'

const hash = (text: string) => createHash('sha256').update(text).digest()

/** @returns a check that throws 401 unless the request carries one of the tokens. Without tokens everybody is let in. */
export function tokenCheck(tokens: readonly string[]): (request: Request) => void {
  const wanted = tokens.map(hash)
  if (wanted.length === 0) return () => {}
  return (request) => {
    const given = /^Bearer +(\S+) *$/i.exec(request.headers.get('authorization') ?? '')?.[1]
    const theirs = hash(given ?? '')
    let right = false
    for (const one of wanted) right = timingSafeEqual(one, theirs) || right
    if (right && given !== undefined) return
    throw new ChatError(401, given === undefined ? 'missing_token' : 'invalid_token', 'A bearer token is needed: Authorization: Bearer …', {
      headers: { 'www-authenticate': 'Bearer' },
    })
  }
}
