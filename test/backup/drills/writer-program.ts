/** A writer for as long as it is let: appends to sessions of its own and to shared ones, updates, rotates, deletes. Says after each
 *  acknowledgement what it was told, and when, on the clock that all processes of this boot share. */
import { SessionStore } from '../../../src/index.js'

export interface Told {
  readonly id: string
  readonly atMs: number
}

const [dir, name] = process.argv.slice(2) as [string, string]
const store = await SessionStore.open(dir)
const monotonicMs = () => Number(process.hrtime.bigint()) / 1e6
let told: Told[] = []
let running = true
process.on('message', () => {
  running = false
})

for (let n = 0; running; n++) {
  const id = `${name}-${n}`
  const key = n % 3 === 0 ? `shared:${n % 5}` : `own:${name}`
  await store.session(key).append({ id, text: 'x'.repeat(200) })
  told.push({ id, atMs: monotonicMs() })
  if (n % 25 === 24) await store.session(key).rotate({ reason: 'reset' })
  if (n % 40 === 39) await store.delete(`own:${name}`)
  if (n % 10 === 9) await store.update(key, () => ({ n }))
  if (n === 0 || told.length >= 20) {
    process.send!(told)
    told = []
  }
}
process.send!(told)
await store.close()
process.disconnect()
