/** The commands of docs/backup.md, in the order of the page, as somebody would type them. */
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { bin } from '../cli/run.js'
import { blocksOf } from './markdown.js'
import { runProgram } from './programs.js'

const page = 'docs/backup.md'
let dir: string
beforeEach(async () => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-backup-page-'))
  fs.mkdirSync(join(dir, 'bin'))
  fs.writeFileSync(join(dir, 'bin', 'holdfast'), `#!/bin/sh\nexec '${process.execPath}' '${bin}' "$@"\n`, { mode: 0o755 })
  const store = await SessionStore.open(join(dir, 'sessions'))
  for (let n = 1; n <= 5; n++) for (const key of ['agent:a', 'agent:b']) await store.session(key).append({ n, text: `text ${n}` })
  await store.close()
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

function shell(text: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { ...process.env, PATH: `${join(dir, 'bin')}:${process.env.PATH}` }
  return new Promise((resolve) => {
    execFile('sh', ['-e', '-c', text], { cwd: dir, env, timeout: 60_000 }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code ?? -1) : 0, stdout, stderr })
    })
  })
}

test('setting up, looking after, and the drill after damage go as the page says', async () => {
  const blocks = blocksOf(page).filter(({ language }) => language === 'sh')
  expect(blocks.length).toBeGreaterThan(6)
  let said = ''
  for (const { text, heading } of blocks) {
    if (heading === 'The drill after damage' && !said.includes('broken')) {
      const [name] = fs.readdirSync(join(dir, 'sessions', 'transcripts')).sort()
      const file = join(dir, 'sessions', 'transcripts', name!)
      fs.writeFileSync(file, `${fs.readFileSync(file, 'utf8').split('\n').slice(0, 4).join('\n')}\n`)
      said += 'broken\n'
    }
    const ran = await shell(text)
    expect(ran, text).toMatchObject({ code: 0, stderr: '' })
    said += ran.stdout
  }
  for (const part of ['alarm\t', 'marked, as expected', 'shrunk\tagent:a', 'something is wrong', 'seq 4 was\t{"n":4'])
    expect(said).toContain(part)
  const store = await SessionStore.open(join(dir, 'sessions'), { readOnly: true })
  expect(await store.session('agent:a').tail(10)).toHaveLength(5)
  await store.close()
})

test('the program of the page takes a snapshot and brings it back', async () => {
  const block = blocksOf(page).find(({ language }) => language === 'js')!
  const args = ['sessions', 'program-backups', 'program-restored'].map((name) => join(dir, name))
  expect(await runProgram('backup-page', block.text, args, dir)).toEqual({ code: 0, stdout: 'true 2\n2 0\n', stderr: '' })
})
