/** A large store through a small process. HOLDFAST_SOAK=1: 2 GB; else large enough to see that memory does not follow size. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { createRepository } from '../../../src/backup/index.js'
import { encodeLine, systemBody } from '../../../src/file/log/record.js'
import { inStore, setting, transcriptOf } from '../settings.js'

const program = fileURLToPath(new URL('../../../.build/test/backup/drills/memory-program.js', import.meta.url))
const soak = process.env.HOLDFAST_SOAK === '1'
const transcripts = 4
const recordBytes = 4_000
const recordsEach = soak ? 130_000 : 3_000
const rssBytesMax = 256 << 20

/** What an agent would have written in a year, without waiting for it. */
async function fill(dir: string): Promise<number> {
  let total = 0
  for (let t = 0; t < transcripts; t++) {
    await inStore(dir, (store) => store.update(`k${t}`, () => ({})))
    const file = await transcriptOf(dir, `k${t}`)
    const fd = fs.openSync(file, 'w')
    const header = { log: 'transcript' as const, version: 1 as const, key: `k${t}`, createdAt: 1 }
    let prev = 0
    for (let seq = 0; seq <= recordsEach; seq++) {
      const text = Math.sin(seq * 12.9898 + t).toString(36)
      const body = seq === 0 ? systemBody({ header }) : JSON.stringify({ seq, text: text.padEnd(recordBytes, text) })
      const { line, crc } = encodeLine(body, { seq, left: 0, synced: seq - 1, writer: 'b00700000001', prev })
      total += fs.writeSync(fd, line)
      prev = crc
    }
    fs.closeSync(fd)
  }
  return total
}

test('creating, checking, comparing and restoring take no more memory than a small machine has, whatever the size of the store', async () => {
  const at = setting('memory')
  try {
    const bytes = await fill(at.dir)
    expect(bytes).toBeGreaterThan(transcripts * recordsEach * recordBytes)
    await (await createRepository({ directory: at.path('target') })).repository.close()
    for (const what of ['create', 'check', 'compare', 'restore']) {
      const args = [what, at.dir, at.path('target'), at.path('restored')]
      const child = fork(program, args, { execArgv: ['--max-old-space-size=96', '--max-semi-space-size=2'] })
      const told = once(child, 'message')
      const ended = once(child, 'exit')
      const [message] = await Promise.race([told, ended])
      expect(message, what).toEqual({ rssBytes: expect.any(Number) })
      const { rssBytes } = message as { rssBytes: number }
      console.log(`${what} of ${bytes >> 20} MiB: ${rssBytes >> 20} MiB`)
      expect(rssBytes, what).toBeLessThan(rssBytesMax)
      await ended
    }
    for (const name of fs.readdirSync(`${at.dir}/transcripts`))
      expect(fs.statSync(`${at.path('restored')}/transcripts/${name}`).size).toBe(fs.statSync(`${at.dir}/transcripts/${name}`).size)
  } finally {
    at.remove()
  }
}, 1_800_000)
