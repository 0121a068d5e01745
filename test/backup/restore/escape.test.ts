/** A restore of a snapshot that somebody has made to harm whoever restores it. */
import fs from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createBackup, createRepository, type Repository, restoreBackup } from '../../../src/backup/index.js'
import { SessionStore } from '../../../src/index.js'
import { factsOf, piecesOf, temporaryDirectory } from '../repository/depot.js'

let place: string
let outside: string
let repository: Repository

beforeEach(async () => {
  place = temporaryDirectory()
  outside = join(place, 'outside')
  fs.mkdirSync(outside, { mode: 0o700 })
  repository = (await createRepository({ directory: join(place, 'target') })).repository
})
afterEach(async () => {
  await repository.close()
  fs.rmSync(place, { recursive: true, force: true })
})

// F52
for (const [what, link, below] of [
  ['a file below a symbolic link', 'included/w/out', 'included/w/out/evil'],
  ['a file two levels below a symbolic link', 'included/w/out', 'included/w/out/deep/evil'],
  ['a directory below a symbolic link', 'included/w/out', 'included/w/out/evil/'],
  ['a symbolic link below a symbolic link', 'included/w/out', 'included/w/out/evil@'],
  ['a transcript in a directory that is a symbolic link', 'archive', 'archive/evil'],
] as const)
  test(`${what} is refused: nothing is written outside of the new directory`, async () => {
    const writer = await repository.begin({ storeId: 's', host: 'h' })
    const role = link.startsWith('included') ? 'included' : 'archive'
    await writer.file(factsOf(link, { role, type: 'symlink', linkTo: outside }))
    const path = below.replace(/[/@]$/, '')
    if (below.endsWith('/')) await writer.file(factsOf(path, { role, type: 'directory', mode: 0o777 }))
    else if (below.endsWith('@')) await writer.file(factsOf(path, { role, type: 'symlink', linkTo: '/etc' }))
    else await writer.file(factsOf(path, { role, mode: 0o777 }), piecesOf(Buffer.from('evil')))
    const { id } = await writer.commit({ source: [], damaged: true, findings: [] })
    const included = link.startsWith('included') ? { included: 'w' } : {}
    const restoring = restoreBackup({ repository, snapshot: id, into: join(place, 'into'), ...included })
    await expect(restoring).rejects.toMatchObject({ code: 'BACKUP_MISMATCH' })
    expect(fs.readdirSync(outside)).toEqual([])
    expect(fs.existsSync(join(place, 'into'))).toBe(false)
  })

test('a restore that is refused at its end does not name what it has taken away again', async () => {
  const store = join(place, 'store')
  const opened = await SessionStore.open(store)
  await opened.session('a').append({ n: 1 })
  await opened.close()
  const { snapshot } = await createBackup({ repository, store })
  const into = join(place, 'into')
  const restoring = restoreBackup({
    repository,
    snapshot: snapshot.id,
    into,
    onProgress: () => fs.writeFileSync(join(into, 'mine'), 'mine'),
  })
  const error = (await restoring.catch((it: unknown) => it)) as Error
  expect(error).toMatchObject({ code: 'INVALID_OPTION' })
  for (const [path] of error.message.matchAll(/\/[^\s,;]*unfinished-restore-[0-9a-f]+/g)) expect(fs.existsSync(path)).toBe(true)
  expect(fs.readFileSync(join(into, 'mine'), 'utf8')).toBe('mine')
})
