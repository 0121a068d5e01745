/** One turn in a process of its own: `node turn-program.js <url> <schema> <key>`. Says what happens; goes on with its turn when it is sent a line. */
import fs from 'node:fs'
import { createInterface } from 'node:readline'
import { isStoreError } from '../../src/errors.js'
import { openPostgres } from '../../src/postgres.js'

const [url, schema, key] = process.argv.slice(2)
const say = (line: object) => fs.writeSync(1, `${JSON.stringify(line)}\n`)
const store = await openPostgres(url!, { schema: schema!, connections: 2, leaseMs: 1_000 })
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
try {
  const { turn } = await store.runTurn(key!, { input: { asks: process.pid } }, async (active) => {
    say({ turn: active.turn })
    await lines.next()
    await active.append({ answers: process.pid }).catch((error: unknown) => {
      say({ refused: isStoreError(error) ? error.code : String(error) })
      throw error
    })
  })
  say({ ended: turn })
} catch (error) {
  say({ failed: isStoreError(error) ? error.code : String(error) })
}
await store.close()
process.exit()
