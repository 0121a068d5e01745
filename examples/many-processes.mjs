// Four processes add to one counter and one transcript. One of them is killed on the way. What was acknowledged is there.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { SessionStore } from 'holdfast'

const [dir = join(mkdtempSync(join(tmpdir(), 'holdfast-many-')), 'sessions'), role] = process.argv.slice(2)
const key = 'shared'

if (role === 'worker') await work()
else await watch()

async function work() {
  const store = await SessionStore.open(dir)
  for (let n = 0; n < 50; n++) {
    await store.update(key, (entry) => ({ ...entry, count: (entry?.count ?? 0) + 1 }))
    const { seq } = await store.session(key).append({ by: process.pid, n })
    process.send({ seq })
  }
  await store.close()
  process.disconnect()
}

async function watch() {
  let acknowledged = 0
  const workers = Array.from({ length: 4 }, () => fork(fileURLToPath(import.meta.url), [dir, 'worker']))
  for (const worker of workers) worker.on('message', () => acknowledged++)
  once(workers[0], 'message').then(() => workers[0].kill('SIGKILL'))
  await Promise.all(workers.map((worker) => once(worker, 'close')))

  const store = await SessionStore.open(dir)
  const { count } = await store.get(key)
  let records = 0
  for await (const _ of store.session(key).read()) records++
  const { ok } = await store.verify()
  await store.close()
  // The killed one may have been told less than it did; never more.
  console.log(count >= acknowledged && records >= acknowledged ? 'nothing lost' : 'LOST', ok ? 'and no damage' : 'DAMAGED')
  console.error(`${acknowledged} acknowledged to the parent, count ${count}, ${records} records, store in ${dir}`)
}
