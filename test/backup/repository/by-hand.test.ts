/** docs/backup-format.md is true: its own commands restore what was stored, with tools that know nothing of holdfast. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { join } from 'node:path'
import { generateX25519Identity, identityToRecipient } from 'age-encryption'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createRepository } from '../../../src/backup/repository/open.js'
import type { Repository } from '../../../src/backup/repository/repository.js'
import { blocksOf } from '../../docs/markdown.js'
import { digested, factsOf, piecesOf, plainFacts, temporaryDirectory, transcript } from './depot.js'

const root = join(import.meta.dirname, '../../..')
let work: string

beforeEach(() => {
  work = temporaryDirectory()
  for (const name of ['repository', 'work', 'out', 'plain', 'bin']) fs.mkdirSync(join(work, name))
})

afterEach(() => {
  fs.rmSync(work, { recursive: true, force: true })
})

const [list, places, restore, decrypt, nameKey, nameOf] = blocksOf('docs/backup-format.md')
  .filter(({ language }) => language === 'sh')
  .map(({ text }) => text) as [string, string, string, string, string, string]

const files = {
  'transcripts/one.jsonl': transcript(1_300_000),
  "odd/a name with spaces, 'quotes' and ünïcode": Buffer.from('x\n'),
  empty: Buffer.alloc(0),
}

async function stored(repository: Repository): Promise<string> {
  const grown = transcript(1_000_000)
  const first = await repository.begin({ storeId: 's', host: 'h' })
  const { row } = await first.file(factsOf('transcripts/one.jsonl'), piecesOf(grown))
  await first.commit(plainFacts)
  const second = await repository.begin({ storeId: 's', host: 'h' })
  for (const [path, bytes] of Object.entries(files)) {
    const previous = path === row.path ? { row, keepBytes: grown.length } : undefined
    await second.file(factsOf(path, { mode: 0o640 }), piecesOf(bytes), previous)
  }
  await second.file(factsOf('directory', { type: 'directory', mode: 0o755 }))
  await second.file(factsOf('link', { type: 'symlink', linkTo: 'odd/target' }))
  const { id } = await second.commit(plainFacts)
  await repository.close()
  return id
}

function run(script: string, env: Record<string, string> = {}): string {
  const paths = { REPOSITORY: join(work, 'repository'), WORK: join(work, 'work'), OUT: join(work, 'out'), PLAIN: join(work, 'plain') }
  const PATH = `${process.env.PATH}:${join(work, 'bin')}`
  const { status, stdout, stderr } = spawnSync('sh', ['-euc', script], { env: { ...paths, PATH, ...env }, encoding: 'utf8' })
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  return stdout
}

function assertRestored(): void {
  const out = join(work, 'out')
  const found = Object.fromEntries(Object.keys(files).map((path) => [path, fs.readFileSync(join(out, path))]))
  expect(digested(found)).toEqual(digested(files))
  expect(fs.statSync(join(out, 'empty')).mode & 0o777).toBe(0o640)
  expect(fs.statSync(join(out, 'directory')).isDirectory()).toBe(true)
  expect(fs.readlinkSync(join(out, 'link'))).toBe('odd/target')
  expect(fs.readdirSync(out, { recursive: true })).toHaveLength(7)
}

test('a snapshot is restored with the commands of the page', async () => {
  const { repository } = await createRepository(join(work, 'repository'))
  const id = await stored(repository)
  expect(run(list).split('\n')[1]).toMatch(new RegExp(`^${id}  5 files  1300002 bytes  damaged: false$`))
  run(`${places}\n${restore}`, { SNAPSHOT: id })
  assertRestored()
})

test('an encrypted snapshot is restored with the commands of the page', async () => {
  const identity = await generateX25519Identity()
  fs.writeFileSync(join(work, 'identity'), `# a comment\n${identity}\n`)
  if (spawnSync('age', ['--version']).error) standInForAge()
  const { repository } = await createRepository(join(work, 'repository'), {
    encryption: { recipients: [await identityToRecipient(identity)] },
  })
  const id = await stored(repository)
  const script = [decrypt, nameKey, 'REPOSITORY="$PLAIN"', places, nameOf, restore].join('\n')
  run(script, { SNAPSHOT: id, IDENTITY: join(work, 'identity') })
  assertRestored()
})

test('a shell of Debian knows the tools', () => {
  for (const tool of ['jq', 'gunzip', 'sha256sum', 'openssl']) expect(execFileSync('which', [tool]).length).toBeGreaterThan(0)
})

/** What the page uses of the `age` tool, by the library that the package uses; where the tool is there, it is the tool. */
function standInForAge(): void {
  const program = `#!${process.execPath}
const fs = require('node:fs')
const argv = process.argv.slice(2)
const option = (name) => (argv.includes(name) ? argv.splice(argv.indexOf(name), 2)[1] : undefined)
argv.splice(argv.indexOf('-d'), 1)
const identity = option('-i'), output = option('-o'), input = fs.readFileSync(argv[0] ?? 0)
import(${JSON.stringify(join(root, 'node_modules/age-encryption/dist/index.js'))}).then(async ({ armor, Decrypter }) => {
  const decrypter = new Decrypter()
  for (const line of fs.readFileSync(identity, 'utf8').split('\\n')) if (line.startsWith('AGE-')) decrypter.addIdentity(line)
  const isArmored = input.subarray(0, 10).toString() === '-----BEGIN'
  fs.writeFileSync(output ?? 1, await decrypter.decrypt(isArmored ? armor.decode(input.toString()) : input))
}).catch((error) => { console.error(error.message); process.exitCode = 1 })
`
  fs.writeFileSync(join(work, 'bin', 'age'), program, { mode: 0o755 })
}
