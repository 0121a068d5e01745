/** Makes the table of the README's "Why not a lock file", by the harness of the process tests. Takes minutes, wants a quiet machine, and is
 *  not part of the suite:  npm run build && HOLDFAST_TABLE=1 npx vitest run test/docs/rivals-table.test.ts */
import os from 'node:os'
import { describe, expect, test } from 'vitest'
import type { FaultKind } from '../../src/cli/stress/schedule.js'
import { fleetOptions, freshDirectory, freshSeed, holdfast, trial } from '../processes/trials.js'
import { readPage } from './markdown.js'

const faults: FaultKind[] = ['kill', 'stall', 'freeze']
const subjects = {
  'proper-lockfile around read, change, rename': 'test/processes/rivals/proper-lockfile.js',
  'lock file with pid and time, unlinked when stale': 'test/processes/rivals/unlink-when-stale.js',
  'the same, compared before it is unlinked': 'test/processes/rivals/compare-before-unlink.js',
  'the same, renamed to a tombstone first': 'test/processes/rivals/tombstone.js',
  'the lock of this store, without its log': 'test/processes/rivals/unfenced-baton.js',
  'this store': holdfast,
}

describe.skipIf(process.env.HOLDFAST_TABLE !== '1')('the table of the README', () => {
  test('is made', { timeout: 1_800_000 }, async () => {
    const rows: string[] = []
    for (const [name, subject] of Object.entries(subjects)) {
      const cells: string[] = []
      for (const fault of faults) {
        const options = {
          subject,
          kinds: [fault],
          seconds: 12,
          maxHoldMs: 2_000,
          gapMs: 1_200,
          waitMs: 6_000,
          mix: { update: 1, append: 0, get: 0 },
        }
        const { analysis } = await trial(`${name} under ${fault}`, fleetOptions(freshDirectory(), { ...options, seed: freshSeed() }))
        const { acknowledged, violations } = analysis ?? {}
        cells.push(`${violations?.counts.lost.toLocaleString('en')} of ${acknowledged?.updates.toLocaleString('en')}`)
      }
      rows.push(`| ${[name, ...cells].join(' | ')} |`)
      console.log(rows.at(-1))
    }
    console.log(
      [...rows, `${os.cpus().length} x ${os.cpus()[0]?.model}, ${os.type()} ${os.release()}, Node ${process.versions.node}`].join('\n'),
    )
  })
})

test('the README has a row for each construction that the tests know', () => {
  const readme = readPage('README.md')
  expect(Object.keys(subjects).filter((name) => !readme.includes(`| ${name} |`))).toEqual([])
})
