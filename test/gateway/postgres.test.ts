/** The gateway on a store in a database: two of them, as on two machines, answer one conversation. */
import { randomUUID } from 'node:crypto'
import { describe, expect, onTestFinished, test } from 'vitest'
import { withClient } from '../postgres/place.js'
import { server } from '../postgres/server.js'
import { run } from './gateway-process.js'

const found = await server()
const describeOnServer = 'unavailable' in found ? describe.skip : describe

describeOnServer('two gateways on one database', () => {
  test('know one conversation, whichever is asked', async () => {
    // P6
    const schema = `test-${randomUUID()}`
    const url = 'url' in found ? found.url : ''
    onTestFinished(() => withClient(url, async (client) => void (await client.query(`drop schema "${schema}" cascade`))))
    const gateways = await Promise.all([0, 1].map(() => run(['--store', `${url}?schema=${schema}`, '--port', '0'])))
    const addresses = gateways.map((gateway) => ('url' in gateway ? gateway.url : gateway.stderr))
    const ask = async (at: number, content: string) => {
      const response = await fetch(`${addresses[at]}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-session-key': 'agent:main:shared' },
        body: JSON.stringify({ model: 'echo', messages: [{ role: 'user', content }] }),
      })
      expect(response.status).toBe(200)
      return (await response.json()) as { choices: { message: { content: string } }[] }
    }
    for (let n = 0; n < 4; n++) await ask(n % 2, `message ${n}`)
    const records = await withClient(url, async (client) => {
      const { rows } = await client.query(`select body from "${schema}".records where kind in ('r', 'i') order by seq`)
      return rows.map(({ body }) => JSON.parse(body) as { message?: { role: string } })
    })
    expect(records.flatMap(({ message }) => message?.role ?? [])).toEqual(Array.from({ length: 4 }, () => ['user', 'assistant']).flat())
    for (const gateway of gateways) if ('stop' in gateway) expect(await gateway.stop('SIGTERM')).toBe(0)
  })
})
