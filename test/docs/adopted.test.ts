/** A snapshot that somebody has made, with a journal that fits: what is in it is checked before it is believed. docs/on-disk-format.md: files
 *  are named by session id, a UUIDv7; a session key is never part of a path. */
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { newJournal } from '../../src/file/metadata/checkpoint.js'
import { SessionStore } from '../../src/index.js'

let dir: string
beforeEach(() => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-adopted-'))
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

const times = { createdAt: 1, updatedAt: 1, revision: 1 }
const entries = {
  'a session id that leads out of the store': { sessionId: '../../elsewhere', ...times },
  'no session id': times,
  'a session id that is a number': { sessionId: 7, ...times },
  'no revision': { sessionId: '019b7703-e400-7000-8000-000000000001', createdAt: 1, updatedAt: 1 },
  'no object': 5,
}

// Found: entries are believed as they stand. `../../elsewhere` makes a file outside the store; no session id is a TypeError of crc32.
describe('an entry that the store cannot have written is damage, whoever has made it fit', () => {
  for (const [what, entry] of Object.entries(entries))
    test(what, async () => {
      const store = join(dir, 'a', 'store')
      await (await SessionStore.open(store)).close()
      const snapshot = `{\n"k":${JSON.stringify(entry)}\n}\n`
      fs.writeFileSync(join(store, 'sessions.json'), snapshot)
      const base = createHash('sha256').update(snapshot).digest('hex')
      fs.writeFileSync(join(store, 'sessions.journal.jsonl'), newJournal(base, 0, 1, 'byhand'))
      const appended = SessionStore.open(store).then((opened) => opened.session('k').append({ n: 1 }))
      await expect(appended).rejects.toMatchObject({ code: 'STORE_CORRUPT', effect: 'none' })
      expect([fs.readdirSync(dir), fs.readdirSync(join(dir, 'a'))]).toEqual([['a'], ['store']])
    })
})
