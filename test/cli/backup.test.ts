import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { generateIdentity, identityToRecipient } from 'age-encryption'
import { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { backupCommand } from '../../src/cli/backup/command.js'
import { SessionStore } from '../../src/index.js'
import { bin, holdfast, jsonLines, scratch, start } from './run.js'

const place = scratch()
const store = place.path('store')
const target = place.path('target')

async function append(key: string, ...records: object[]): Promise<void> {
  const opened = await SessionStore.open(store)
  for (const record of records) await opened.session(key).append(record)
  await opened.close()
}

beforeAll(async () => {
  await append('agent:main:main', { n: 1 }, { n: 2 }, { n: 3 })
  await append('agent:main:other', { n: 1 })
})
afterAll(() => place.remove())

const backup = (...args: string[]) => holdfast(['backup', ...args, '--to', target])

describe('backup', () => {
  test('docs/cli.md names every option of every help, and each help has examples and exit codes', () => {
    const section = fs
      .readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8')
      .split(/^## /m)
      .find((part) => part.startsWith('backup\n'))!
    const { commands } = backupCommand(new Command('holdfast').exitOverride())
    expect(commands).toHaveLength(10)
    for (const command of commands) {
      let help = ''
      command
        .configureOutput({
          writeOut(text) {
            help += text
          },
        })
        .outputHelp()
      expect(help).toContain(`$ holdfast backup ${command.name()}`)
      expect(help).toContain('Exit codes: 0 ')
      expect(section).toContain(`holdfast backup ${command.name()} `)
      for (const { long } of command.options) if (long !== '--json') expect(section).toContain(long)
    }
  })

  test('a command that is no backup loads nothing of backups, age or S3', async () => {
    const code = `process.argv = ['node', 'holdfast', '--version']
      const { register } = await import('node:module')
      const hooks = "export const load = (url, context, next) => { if (/src.backup|node_modules.(age-|aws4)/.test(url)) process._rawDebug(url); return next(url, context) }"
      register('data:text/javascript,' + encodeURIComponent(hooks))
      await import(${JSON.stringify(pathToFileURL(bin).href)})`
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', code], { encoding: 'utf8' })
    expect(stderr).not.toMatch(/backup|age-|aws4/)
    expect(stdout).toMatch(/^\d+\.\d+/)
  })

  test('create makes the repository where nothing is, says so, and leaves alone what is not its own', async () => {
    const fresh = (name: string, ...args: string[]) => holdfast(['backup', 'create', '--store', store, '--to', place.path(name), ...args])
    expect(await fresh('fresh')).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^made repository [0-9a-f]{32} in .*, not encrypted\n$/),
    })
    expect(await fresh('fresh')).toMatchObject({ code: 0, stderr: '' })
    fs.mkdirSync(place.path('others'))
    fs.writeFileSync(place.path('others', 'photo.jpg'), '')
    expect(await fresh('others')).toMatchObject({ code: 2, stderr: expect.stringContaining('NOT_FOUND') })
    expect(fs.readdirSync(place.path('others'))).toEqual(['photo.jpg'])
    const recipient = await identityToRecipient(await generateIdentity())
    const key = place.path('fresh.key')
    expect(await fresh('encrypted', '--recipient', recipient)).toMatchObject({ code: 2, stderr: expect.stringContaining('--key-file') })
    expect(await fresh('encrypted', '--recipient', recipient, '--key-file', key)).toMatchObject({
      code: 0,
      stderr: expect.stringContaining(', encrypted; the key for adding is in'),
    })
    expect(await fresh('encrypted', '--key-file', key)).toMatchObject({ code: 0, stderr: '' })
    // The key says that there is a repository: its disk is not mounted.
    expect(await fresh('unmounted', '--key-file', key)).toMatchObject({ code: 2, stderr: expect.stringContaining('NOT_FOUND') })
    expect(fs.existsSync(place.path('unmounted'))).toBe(false)
    expect(await holdfast(['backup', 'create', '--store', place.path('no-store'), '--to', place.path('none')])).toMatchObject({ code: 2 })
    expect(fs.existsSync(place.path('none'))).toBe(false)
  })

  test('watch makes a repository only with --init, and not a second one when the first has gone', async () => {
    const options = ['backup', 'watch', '--every', '1s', '--store', store, '--to', place.path('watched')]
    const without = start(options)
    await expect.poll(() => without.stderr(), { timeout: 10_000 }).toContain('NOT_FOUND')
    without.child.kill('SIGINT')
    await without.ended
    expect(fs.existsSync(place.path('watched'))).toBe(false)
    const watching = start([...options, '--init'])
    await watching.until(/ok\tsnapshot/)
    fs.renameSync(place.path('watched'), place.path('away'))
    fs.mkdirSync(place.path('watched'))
    await expect.poll(() => watching.stderr(), { timeout: 10_000 }).toMatch(/NOT_FOUND|BACKEND_UNAVAILABLE/)
    watching.child.kill('SIGINT')
    await watching.ended
    expect(fs.readdirSync(place.path('watched'))).toEqual([])
  })

  test('init wants to be told about encryption', async () => {
    expect(await backup('init')).toMatchObject({ code: 2, stderr: expect.stringContaining('--no-encryption') })
    expect(await backup('init', '--no-encryption')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^ok\trepository [0-9a-f]+, not/),
    })
  })

  test('create, list, check and restore go together', async () => {
    const workspace = place.path('workspace')
    fs.mkdirSync(workspace)
    fs.writeFileSync(path.join(workspace, 'MEMORY.md'), '# Memory')
    const created = await backup('create', '--store', store, '--include', workspace)
    expect(created).toMatchObject({ code: 0, stderr: '', stdout: expect.stringMatching(/^ok\tsnapshot \S+: 2 sessions, /) })
    const [listed] = jsonLines<{ id: string; sessions: number }>((await backup('list', '--json')).stdout)
    expect(listed).toMatchObject({ damaged: false, source: [store, workspace] })
    expect((await backup('list', 'latest')).stdout).toContain('included/workspace/MEMORY.md')
    const deep = await backup('check', '--deep', '--json')
    expect(deep.code).toBe(0)
    expect(jsonLines(deep.stdout)[0]).toMatchObject({ ok: true, deep: true, contents: { logs: 2, problems: [] } })
    const into = place.path('restored')
    const restored = await backup('restore', 'good', '--into', into)
    expect(restored).toMatchObject({ code: 0, stdout: expect.stringMatching(/^ok\t.*restored: 2 sessions/) })
    expect(restored.stdout).toContain(`next\tholdfast verify --store ${into}`)
    expect((await holdfast(['tail', 'agent:main:main', '--store', into, '--json'])).stdout.trimEnd().split('\n')).toHaveLength(3)
    expect(await backup('restore', listed!.id.slice(0, -1), '--into', place.path('w'), '--included', 'workspace')).toMatchObject({
      code: 0,
    })
    expect(fs.readFileSync(place.path('w', 'MEMORY.md'), 'utf8')).toBe('# Memory')
    expect(await backup('restore', 'good', '--into', into)).toMatchObject({ code: 2, stderr: expect.stringContaining('not empty') })
  })

  test('compare and status tell a shrunken transcript by their exit code', async () => {
    expect(await backup('status', '--every', '1h')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('ok\tthe last good snapshot is'),
    })
    const [name] = fs.readdirSync(path.join(store, 'transcripts')).sort()
    const file = path.join(store, 'transcripts', name!)
    const whole = fs.readFileSync(file, 'utf8')
    fs.writeFileSync(file, `${whole.split('\n').slice(0, 3).join('\n')}\n`)
    const compared = await backup('compare', 'good', '--store', store)
    expect(compared).toMatchObject({ code: 1, stdout: expect.stringContaining('shrunk\tagent:main:main') })
    expect(compared.stdout).toContain('seq 3 was\t{"n":3}')
    expect(await backup('create', '--store', store)).toMatchObject({ code: 1, stdout: expect.stringContaining('alarm\t') })
    expect(await backup('status', '--every', '1h')).toMatchObject({ code: 1, stdout: expect.stringContaining('damage\t') })
    fs.writeFileSync(file, whole)
  })

  test('forget and prune say what they have done', async () => {
    expect(await backup('forget', '--keep-last', '1', '--keep-damaged', '0')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('forgotten\t'),
    })
    expect(jsonLines((await backup('list', '--json')).stdout)).toHaveLength(1)
    expect(await backup('prune')).toMatchObject({ code: 0, stdout: expect.stringMatching(/^ok\t\d+ packs? removed/m) })
    expect(await backup('check', '--deep')).toMatchObject({ code: 0 })
  })

  test('with a public key: what backs up cannot read, what reads has the secret key, a passphrase does both', async () => {
    const [secret, keyFile, passphrase] = ['age.txt', 'backup.key', 'passphrase'].map((name) => place.path(name)) as [
      string,
      string,
      string,
    ]
    const identity = await generateIdentity()
    fs.writeFileSync(secret, `# a comment\n${identity}\n`)
    fs.writeFileSync(passphrase, 'correct horse battery staple\n')
    const sealed = (name: string, ...args: string[]) => holdfast(['backup', name, ...args, '--to', place.path('sealed')])
    const recipient = await identityToRecipient(identity)
    expect(await sealed('init', '--recipient', recipient, '--key-file', keyFile)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(', encrypted'),
    })
    expect(fs.statSync(keyFile).mode & 0o777).toBe(0o600)
    expect(await sealed('create', '--store', store, '--key-file', keyFile)).toMatchObject({ code: 0 })
    expect(await sealed('restore', 'good', '--into', place.path('no'), '--key-file', keyFile)).toMatchObject({ code: 2 })
    expect(fs.existsSync(place.path('no'))).toBe(false)
    expect(await sealed('restore', 'good', '--into', place.path('unsealed'), '--identity', secret)).toMatchObject({ code: 0 })
    const phrased = (name: string, ...args: string[]) =>
      holdfast(['backup', name, ...args, '--to', place.path('phrased'), '--passphrase-file', passphrase])
    expect(await phrased('init')).toMatchObject({ code: 0 })
    expect(await phrased('list')).toMatchObject({ code: 0 })
  })

  test('watch takes one after another, tells its status, lives through an outage of the target, and ends on Ctrl-C', async () => {
    const status = place.path('status.json')
    const watching = start(['backup', 'watch', '--every', '1s', '--store', store, '--to', target, '--status', status, '--keep-last', '5'])
    await watching.until(/(ok\tsnapshot[\s\S]*){2}/)
    const config = fs.readdirSync(target).filter((name) => name.endsWith('.json'))
    for (const name of config) fs.renameSync(path.join(target, name), place.path(name))
    await expect.poll(() => JSON.parse(fs.readFileSync(status, 'utf8')).failure?.times, { timeout: 10_000 }).toBeGreaterThan(0)
    expect(await holdfast(['backup', 'status', '--status', status])).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('failure\t'),
    })
    for (const name of config) fs.renameSync(place.path(name), path.join(target, name))
    await expect.poll(() => JSON.parse(fs.readFileSync(status, 'utf8')).failure, { timeout: 10_000 }).toBeUndefined()
    watching.child.kill('SIGINT')
    expect(await watching.ended).toMatchObject({ code: 130 })
    expect(JSON.parse(fs.readFileSync(status, 'utf8'))).toMatchObject({ state: 'stopped', lastGood: { id: expect.any(String) } })
    const old = { ...JSON.parse(fs.readFileSync(status, 'utf8')), lastGood: { id: 'x', at: Date.now() - 86_400_000 } }
    fs.writeFileSync(status, JSON.stringify(old))
    expect(await holdfast(['backup', 'status', '--status', status])).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('overdue\t'),
    })
  })
})
