/** A transcript loses its end, or goes, while eight processes write to it and to others: its session is refused, theirs go on (F29, P5). */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import type { Told } from './damaged-program.js'
import { compiled, freshDirectory } from './trials.js'

async function start(dir: string, name: string): Promise<ChildProcess> {
  const child = fork(fileURLToPath(new URL('test/processes/damaged-program.js', compiled)), [dir, name], { execArgv: [] })
  onTestFinished(() => void child.kill('SIGKILL'))
  await once(child, 'message')
  return child
}

async function stop(child: ChildProcess): Promise<Told> {
  const told = once(child, 'message')
  child.send('stop')
  return (await told)[0] as Told
}

// F29
test.each<[how: string, damage: (path: string) => void]>([
  ['cut at the end of a line', (path) => fs.truncateSync(path, lineEnds(path)[10])],
  ['removed', (path) => fs.unlinkSync(path)],
])(
  'a transcript that is %s under eight processes is refused by all of them, and by those that come later',
  async (_, damage) => {
    const dir = join(freshDirectory(), 'store')
    const first = await SessionStore.open(dir)
    for (let n = 0; n < 20; n++) await first.session('hurt').append({ by: 'first', n })
    const { sessionId } = (await first.get('hurt'))!
    await first.close()
    const path = join(dir, `transcripts/${sessionId}.jsonl`)

    const names = Array.from({ length: 8 }, (_, at) => String(at))
    // Half of them have had it open; the others come when it is damaged already.
    const early = await Promise.all(names.slice(0, 4).map((name) => start(dir, name)))
    await sleep(400)
    damage(path)
    const left = fs.existsSync(path) ? fs.readFileSync(path) : undefined
    for (const child of early) child.send('damaged')
    const late = await Promise.all(names.slice(4).map((name) => start(dir, name)))
    for (const child of late) child.send('damaged')
    await sleep(800)
    const told = await Promise.all([...early, ...late].map(stop))

    for (const { failures, refusals, appended, turnsAfter } of told) {
      expect(failures).toEqual([])
      expect(refusals).toEqual(['LOG_CORRUPT'])
      expect(appended).toBe(0)
      expect(turnsAfter).toBeGreaterThan(2)
    }
    // A write that was under way may have landed behind the cut; nothing was written since by anybody who looked.
    if (left) expect(fs.readFileSync(path).subarray(0, left.length)).toEqual(left)
    else expect(fs.existsSync(path)).toBe(false)
    const store = await SessionStore.open(dir, { readOnly: true })
    for (const [at, { turns }] of told.entries()) {
      const found: object[] = []
      for await (const { record } of store.session(`well:${at}`).read()) found.push(record)
      expect(found).toEqual(Array.from({ length: turns }, (_, n) => [{ asked: n }, { answered: n }]).flat())
    }
    await expect(store.session('hurt').tail(1)).rejects.toMatchObject({ code: 'LOG_CORRUPT' })
    const { damage: reported } = await store.verify()
    expect(new Set(reported.map(({ file }) => file))).toEqual(new Set([`transcripts/${sessionId}.jsonl`]))
    await store.close()
  },
  60_000,
)

function lineEnds(path: string): number[] {
  const bytes = fs.readFileSync(path)
  const ends: number[] = []
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) ends.push(at + 1)
  return ends
}
