/** Who may do what with an encrypted repository, and what a thief of the target learns. */
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { generateX25519Identity, identityToRecipient } from 'age-encryption'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { EncryptionOptions } from '../../../src/backup/repository/access.js'
import { createRepository, openRepository, repositoryKey } from '../../../src/backup/repository/open.js'
import { contentsOf, digested, factsOf, objectsIn, piecesOf, plainFacts, snapshotOf, temporaryDirectory, transcript } from './depot.js'

let place: string

beforeEach(() => {
  place = temporaryDirectory()
})

afterEach(() => {
  fs.rmSync(place, { recursive: true, force: true })
})

const files = { a: transcript(200_000), b: Buffer.from('a secret that must not be seen'), c: Buffer.alloc(0) }
const passphrase = 'correct horse battery staple'
const quick = { passphraseWork: 4 }

async function made(encryption: EncryptionOptions) {
  const { repository, key } = await createRepository(place, { encryption })
  const { info } = await snapshotOf(repository, files)
  await repository.close()
  return { id: info.id, key: key! }
}

async function readWith(encryption: EncryptionOptions | undefined, id: string) {
  const repository = await openRepository(place, { encryption })
  try {
    return await contentsOf(repository, id)
  } finally {
    await repository.close()
  }
}

const code = (wanted: string, message?: RegExp) =>
  expect.objectContaining({ code: wanted, ...(message ? { message: expect.stringMatching(message) } : {}) })

describe('a repository with a passphrase', () => {
  test('is read with it, and with nothing else', async () => {
    const { id } = await made({ passphrase, ...quick })
    expect(await readWith({ passphrase }, id)).toEqual(digested(files))
    await expect(readWith({ passphrase: 'another' }, id)).rejects.toEqual(code('INVALID_OPTION', /does not open/))
    await expect(readWith(undefined, id)).rejects.toEqual(code('INVALID_OPTION', /is encrypted/))
    await expect(readWith({ identities: [await generateX25519Identity()] }, id)).rejects.toEqual(code('INVALID_OPTION'))
  })

  test('shows a thief of the target neither contents, names, nor hashes of contents', async () => {
    await made({ passphrase, ...quick })
    const all = Buffer.concat(objectsIn(place).map((name) => fs.readFileSync(`${place}/${name}`)))
    const names = objectsIn(place).join('\n')
    for (const it of [
      'a secret that must',
      'AGE-SECRET-KEY',
      'a store',
      ...Object.values(files).map((bytes) => createHash('sha256').update(bytes).digest('hex')),
    ]) {
      expect(all.includes(it)).toBe(false)
      expect(names.includes(it)).toBe(false)
    }
    for (const name of objectsIn(place, 'packs/')) expect(() => gunzipSync(fs.readFileSync(`${place}/${name}`))).toThrow()
  })
})

describe('a repository for recipients', () => {
  test('is added to with the key file alone, which lists, forgets and prunes, and does not read', async () => {
    const identity = await generateX25519Identity()
    const recipient = await identityToRecipient(identity)
    const { id, key } = await made({ recipients: [recipient] })
    const depositor = await openRepository(place, { encryption: { key } })
    expect(depositor.readable).toBe(false)
    const { files: rows } = await depositor.manifest(id)
    expect(rows.map(({ path }) => path)).toEqual(['a', 'b', 'c'])
    const writer = await depositor.begin({ storeId: 's', host: 'h' })
    const grown = Buffer.concat([files.a, Buffer.from('more\n')])
    const stored = await writer.file(factsOf('a'), piecesOf(grown), { row: rows[0]!, keepBytes: files.a.length })
    expect(stored).toMatchObject({ readFrom: files.a.length, newBytes: 5 })
    const second = await writer.commit(plainFacts)
    await expect(contentsOf(depositor, second.id)).rejects.toEqual(code('INVALID_OPTION', /does not open what they contain/))
    await expect(depositor.check({ deep: true })).rejects.toEqual(code('INVALID_OPTION'))
    expect((await depositor.check()).ok).toBe(true)
    await depositor.forget({ keepLast: 1 })
    await depositor.prune()
    expect((await depositor.check()).ok).toBe(true)
    expect(await readWith({ identities: [identity] }, second.id)).toEqual(digested({ a: grown }))
  })

  test('gives its key file again to whoever can open it', async () => {
    const identity = await generateX25519Identity()
    const { key } = await made({ recipients: [await identityToRecipient(identity)], passphrase, ...quick })
    expect(await repositoryKey(place, { encryption: { identities: [identity] } })).toBe(key)
    expect(await repositoryKey(place, { encryption: { passphrase } })).toBe(key)
  })

  test('is never written to for somebody whom only the target names', async () => {
    const [one, other] = [await generateX25519Identity(), await generateX25519Identity()]
    const recipients = [await identityToRecipient(one), await identityToRecipient(other)]
    const { id } = await made({ recipients })
    expect(await readWith({ identities: [other] }, id)).toEqual(digested(files))
    const unsure = await openRepository(place, { encryption: { identities: [one] } })
    await expect(unsure.begin({ storeId: 's', host: 'h' })).rejects.toEqual(code('INVALID_OPTION', /also encrypted for age1/))
    const sure = await openRepository(place, { encryption: { identities: [one], recipients } })
    await (await sure.begin({ storeId: 's', host: 'h' })).abandon()
  })

  test('refuses what is no recipient, and a key file of another repository', async () => {
    await expect(createRepository(place, { encryption: { recipients: ['age1nonsense'] } })).rejects.toEqual(
      code('INVALID_OPTION', /no recipient/),
    )
    await expect(createRepository(place, { encryption: {} })).rejects.toEqual(code('INVALID_OPTION'))
    const { key } = await made({ passphrase, ...quick })
    fs.rmSync(place, { recursive: true })
    await made({ passphrase, ...quick })
    await expect(openRepository(place, { encryption: { key } })).rejects.toEqual(code('INVALID_OPTION', /belongs to/))
  })
})

describe('whoever can write to the target', () => {
  const configs = ['holdfast-backup.json', 'holdfast-backup.copy.json']
  const rewrite = (change: (config: { encryption: { recipients: string[] } }) => object) => {
    const [line] = fs.readFileSync(`${place}/${configs[0]}`, 'utf8').split('\n')
    const changed = `${JSON.stringify(change(JSON.parse(line!)))}\n`
    const seal = `{"seal":"${createHash('sha256').update(changed).digest('hex')}"}\n`
    for (const name of configs) fs.writeFileSync(`${place}/${name}`, changed + seal)
  }

  test('cannot have new snapshots encrypted for themselves as well', async () => {
    const { key } = await made({ passphrase, ...quick })
    const thief = await identityToRecipient(await generateX25519Identity())
    rewrite((config) => ({ ...config, encryption: { ...config.encryption, recipients: [...config.encryption.recipients, thief] } }))
    for (const encryption of [{ passphrase }, { key }])
      await expect(openRepository(place, { encryption })).rejects.toEqual(code('BACKUP_MISMATCH', /own encryption/))
  })

  test('cannot have plain text sent to them', async () => {
    const { key } = await made({ passphrase, ...quick })
    rewrite((config) => ({ ...config, encryption: null }))
    for (const encryption of [{ passphrase }, { key }])
      await expect(openRepository(place, { encryption })).rejects.toEqual(code('INVALID_OPTION', /is not encrypted/))
  })

  test('cannot pass one object off as another', async () => {
    const { id } = await made({ passphrase, ...quick })
    const again = await openRepository(place, { encryption: { passphrase } })
    const { info } = await snapshotOf(again, { a: Buffer.from('newer') })
    fs.copyFileSync(`${place}/snapshots/${id}.json.gz.age`, `${place}/snapshots/${info.id}.json.gz.age`)
    await expect(again.manifest(info.id)).rejects.toEqual(code('BACKUP_MISMATCH', /another snapshot/))
    expect((await again.snapshots()).map(({ unreadable }) => unreadable !== undefined)).toEqual([true, false])
    const packs = objectsIn(place, 'packs/')
    fs.copyFileSync(`${place}/${packs[0]}`, `${place}/${packs[1]}`)
    expect((await again.check()).ok).toBe(false)
    await again.close()
  })

  test('gets nothing out of anybody by cutting objects short or changing them: an error, never a part of the text', async () => {
    const { id } = await made({ passphrase, ...quick })
    const pristine = new Map(objectsIn(place).map((name) => [name, fs.readFileSync(`${place}/${name}`)]))
    for (const [name, bytes] of pristine) {
      if (!name.startsWith('packs/') && !name.startsWith('snapshots/')) continue
      const changes = [bytes.subarray(0, bytes.length - 1), bytes.subarray(0, bytes.length >> 1), Buffer.alloc(0), Buffer.from(bytes)]
      changes[3]![bytes.length >> 1]! ^= 1
      for (const changed of changes) {
        fs.writeFileSync(`${place}/${name}`, changed)
        await expect(readWith({ passphrase }, id), name).rejects.toEqual(code('BACKUP_MISMATCH'))
      }
      fs.writeFileSync(`${place}/${name}`, bytes)
    }
    expect(await readWith({ passphrase }, id)).toEqual(digested(files))
  })
})
