/** The distributed backend against the specification of the port, on a real server. */
import { describe, test } from 'vitest'
import { postgresPlace } from '../postgres/place.js'
import { server } from '../postgres/server.js'
import { describeBackend } from './conformance.js'
import { describeTurns } from './turns-conformance.js'

const found = await server()
if ('unavailable' in found) describe('postgres', () => test.skip(`skipped: ${found.unavailable}`, () => {}))
else {
  describeBackend('postgres', async () => postgresPlace(found.url))
  describeTurns('postgres', async () => postgresPlace(found.url))
}
