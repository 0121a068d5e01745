/** One of many processes that write one session, and compact it now and then. What it was told is written down before it goes on. */
import fs from 'node:fs'
import { SessionStore } from '../../../src/index.js'

const [dir, name, notes] = process.argv.slice(2) as [string, string, string]
const store = await SessionStore.open(dir, { durability: 'process', lock: { maxHoldMs: 250, waitMs: 30_000 } })
const session = store.session('shared')
const note = (what: object) => fs.appendFileSync(notes, `${JSON.stringify(what)}\n`)
let stopping = false
process.on('message', () => {
  stopping = true
})

for (let n = 0; !stopping; n++) {
  const said = `${name}-${n}`
  try {
    const { sessionId, seq, duplicate } = await session.append({ said, padding: 'p'.repeat(n % 700) }, { id: said })
    note({ said, sessionId, seq, duplicate })
    if (n % 4 === 3)
      await session.append({ said, again: true }, { id: said }).then((receipt) => receipt.seq !== seq && note({ wrong: said, receipt }))
    if (n % 25 === 24) await session.compact({ keepLast: 5, summarize: (records) => `${records.length}` })
    if (n % 25 === 24) await session.compactBytes()
    if (n % 5 === 4) {
      const [last] = await session.tail(1)
      if (last === undefined || last.seq < seq) note({ wrong: `${said} at ${seq} is not in the tail, which ends at ${last?.seq}` })
    }
  } catch (error) {
    note({ failed: said, why: String(error) })
  }
}
await store.close()
process.send?.('stopped')
process.disconnect?.()
