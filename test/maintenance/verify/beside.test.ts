/** verify beside live writers: no false alarm, whatever eight processes do to the store meanwhile, one of them killed and one frozen (P5). */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import type { Finding } from '../../../src/findings.js'
import { SessionStore } from '../../../src/store.js'
import { storeDirectory } from '../../metadata/store-directory.js'
import { compiled } from '../../processes/trials.js'

const seconds = process.env.HOLDFAST_SOAK ? 60 : 3

async function start(directory: string, seed: number): Promise<ChildProcess> {
  const child = fork(fileURLToPath(new URL('test/maintenance/verify/beside-program.js', compiled)), [directory, String(seed)], {
    execArgv: [],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  await once(child, 'message')
  return child
}

async function stop(child: ChildProcess): Promise<{ done: number; failures: string[] }> {
  const told = once(child, 'message')
  child.send('stop')
  return (await told)[0] as { done: number; failures: string[] }
}

test('beside eight processes that append, rotate, delete, compact and checkpoint, nothing is called damaged, and nothing a warning', async () => {
  const seed = Math.floor(Math.random() * 1e9)
  const directory = storeDirectory()
  await (await SessionStore.open(directory)).close()
  const children = await Promise.all(Array.from({ length: 8 }, (_, at) => start(directory, seed + at)))
  const [killed, frozen, ...others] = children as [ChildProcess, ChildProcess, ...ChildProcess[]]
  const reader = await SessionStore.open(directory, { readOnly: true })
  onTestFinished(() => reader.close())
  const endMs = performance.now() + seconds * 1_000
  const wrong: unknown[] = []
  let looks = 0
  let records = 0
  const looking = (async () => {
    while (performance.now() < endMs || looks < 3) {
      const report = await reader.verify({ chat: true })
      wrong.push(...report.damage, ...report.findings.filter((found) => found.severity !== 'notice' && !isLeftOver(found)))
      records += report.files.reduce((sum, file) => sum + file.records, 0)
      looks++
    }
  })()
  await sleep((seconds * 1_000) / 3)
  frozen.kill('SIGSTOP')
  killed.kill('SIGKILL')
  await sleep((seconds * 1_000) / 3)
  frozen.kill('SIGCONT')
  await looking
  const told = await Promise.all([frozen, ...others].map(stop))
  expect(
    told.flatMap(({ failures }) => failures),
    `seed ${seed}`,
  ).toEqual([])
  for (const { done } of told) expect(done).toBeGreaterThan(3)
  expect(records).toBeGreaterThan(0)
  expect(wrong, `seed ${seed}, ${looks} looks`).toEqual([])
}, 120_000)

/** No false alarm: a rotation that meets a deletion by a mutator leaves the log that was to come next, without a record, and without a key. */
function isLeftOver({ kind, meaning }: Finding): boolean {
  return kind === 'transcript-orphan' && meaning.startsWith('0 records, ')
}
