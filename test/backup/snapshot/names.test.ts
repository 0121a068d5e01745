/** Names of files that are none in UTF-8. */
import fs from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { createBackup } from '../../../src/backup/index.js'
import { SessionStore } from '../../../src/index.js'
import { temporaryDirectory } from '../repository/depot.js'

// F52
test('a file whose name cannot be read is told, not left out in silence', async () => {
  const place = temporaryDirectory()
  onTestFinished(() => fs.rmSync(place, { recursive: true, force: true }))
  const opened = await SessionStore.open(join(place, 'store'))
  await opened.session('a').append({ n: 1 })
  await opened.close()
  const workspace = join(place, 'workspace')
  fs.mkdirSync(workspace)
  fs.writeFileSync(Buffer.concat([Buffer.from(`${workspace}/caf`), Buffer.of(0xe9), Buffer.from('.md')]), 'latin1')
  fs.writeFileSync(join(workspace, 'fine.md'), '')
  const report = await createBackup({ store: join(place, 'store'), to: join(place, 'to'), include: [workspace] })
  expect(report.ok).toBe(false)
  expect(report.findings).toMatchObject([{ level: 'warning', path: expect.stringContaining('caf') }])
})
