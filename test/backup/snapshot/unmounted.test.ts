/** A target that is not there yet, and one that goes away in the middle. */
import fs from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createBackup, openRepository } from '../../../src/backup/index.js'
import { SessionStore } from '../../../src/index.js'
import { temporaryDirectory } from '../repository/depot.js'

let place: string
let store: string

beforeEach(async () => {
  place = temporaryDirectory()
  store = join(place, 'store')
  const opened = await SessionStore.open(store)
  for (const key of ['a', 'b']) await opened.session(key).append({ text: key })
  await opened.close()
})
afterEach(() => fs.rmSync(place, { recursive: true, force: true }))

test('createBackup makes the repository where nothing is, and says which', async () => {
  const made: object[] = []
  const to = join(place, 'deep', 'target')
  const report = await createBackup({
    store,
    to,
    encryption: { passphrase: 'x', passphraseWork: 10 },
    onCreated: (it) => void made.push(it),
  })
  expect(report).toMatchObject({ ok: true, sessions: 2 })
  expect(made).toMatchObject([{ isEncrypted: true, key: expect.stringContaining('AGE-SECRET-KEY') }])
  await createBackup({ store, to, encryption: { passphrase: 'x' } })
  const repository = await openRepository(to, { encryption: { passphrase: 'x' } })
  expect(await repository.snapshots()).toHaveLength(2)
})

// F52
for (const mountPoint of ['is empty', 'is gone, too'])
  test(`a repository that goes away in mid-backup is not made again where it was: the mount point ${mountPoint}`, async () => {
    const to = join(place, 'target')
    await createBackup({ store, to })
    const opened = await SessionStore.open(store)
    await opened.session('a').append({ text: 'more' })
    await opened.close()
    const repository = await openRepository(to)
    let isMounted = true
    const failure = createBackup({
      store,
      repository,
      onProgress() {
        if (!isMounted) return
        isMounted = false
        fs.renameSync(to, join(place, 'away'))
        if (mountPoint === 'is empty') fs.mkdirSync(to)
      },
    })
    await expect(failure).rejects.toMatchObject({ code: 'BACKEND_UNAVAILABLE' })
    expect(fs.existsSync(to) ? fs.readdirSync(to) : 'gone').toEqual(mountPoint === 'is empty' ? [] : 'gone')
    await repository.close()
    expect(fs.existsSync(to) ? fs.readdirSync(to) : 'gone').toEqual(mountPoint === 'is empty' ? [] : 'gone')
    await expect(openRepository(to)).rejects.toMatchObject({ code: 'NOT_FOUND' })
  })
