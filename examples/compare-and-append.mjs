// Read, think for a while without holding any lock, then write only if nobody has added anything meanwhile.
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isStoreError, SessionStore } from 'holdfast'

const dir = process.argv[2] ?? join(mkdtempSync(join(tmpdir(), 'holdfast-compare-')), 'sessions')
const store = await SessionStore.open(dir)
const session = store.session('agent:main:main')

async function answer() {
  for (let tries = 1; ; tries++) {
    const last = await session.tail(10)
    const expectedSeq = last.at(-1)?.seq ?? 0
    await sleep(50) // A model call: no lock is held.
    try {
      await session.append({ role: 'assistant', text: `answer to ${last.length} records` }, { expectedSeq })
      return tries
    } catch (error) {
      // Somebody was faster; nothing of ours was written. Look at what is new, think again.
      if (!isStoreError(error, 'SEQ_CONFLICT') || tries === 5) throw error
    }
  }
}

await session.append({ role: 'user', text: 'first' })
const answering = answer()
await sleep(10)
await session.append({ role: 'user', text: 'one more thing' })
console.log('answered after', await answering, 'tries')
for await (const { record } of session.read()) console.log(`${record.role}: ${record.text}`)
await store.close()
