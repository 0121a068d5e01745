/** Programs that the pages and the examples show: they run, and print what is said. */
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { programsOf, root } from './markdown.js'
import { runFile, runProgram } from './programs.js'

let dir: string
beforeEach(() => {
  dir = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-programs-'))
})
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }))

for (const page of ['README.md', 'docs/errors.md', 'docs/gateway.md'])
  describe(`a program of ${page} prints what the page says`, () => {
    const programs = programsOf(page, 'js')
    test('there is one', () => expect(programs.length).toBeGreaterThan(0))
    for (const { program, prints } of programs)
      test(`line ${program.line}`, async () => {
        const ran = await runProgram(`${page.replace(/\W/g, '-')}-${program.line}`, program.text, [], dir)
        expect(ran).toEqual({ code: 0, stdout: prints, stderr: '' })
      })
  })

describe('an example does what it says', () => {
  const example = (name: string) => runFile(fileURLToPath(new URL(`examples/${name}`, root)), [join(dir, 'store')], dir)

  test('chat.mjs', async () => {
    expect(await example('chat.mjs')).toMatchObject({
      code: 0,
      stdout: `You said "Hello". That was message 1 from you.
You said "How are you?". That was message 2 from you.
undefined (delivered twice)
the transcript:
 1 user: Hello
 2 assistant: You said "Hello". That was message 1 from you.
 3 user: How are you?
 4 assistant: You said "How are you?". That was message 2 from you.
You said "Do you remember me?". That was message 1 from you.
3 messages in all
`,
    })
  })

  test('agent-runtime.mjs, which is the program of the README', async () => {
    const shown = programsOf('README.md', 'js').find(({ program }) => program.heading === 'Turns')!
    expect(shown.program.text).toBe(fs.readFileSync(new URL('examples/agent-runtime.mjs', root), 'utf8'))
    expect(await example('agent-runtime.mjs')).toEqual({ code: 0, stdout: shown.prints, stderr: '' })
  })

  test('many-processes.mjs', async () => {
    expect(await example('many-processes.mjs')).toMatchObject({ code: 0, stdout: 'nothing lost and no damage\n' })
  })

  test('compare-and-append.mjs', async () => {
    expect(await example('compare-and-append.mjs')).toMatchObject({
      code: 0,
      stdout: 'answered after 2 tries\nuser: first\nuser: one more thing\nassistant: answer to 2 records\n',
    })
  })

  test('and each is listed', () => {
    const names = fs.readdirSync(new URL('examples/', root)).filter((name) => name.endsWith('.mjs'))
    const listed = fs.readFileSync(new URL('examples/README.md', root), 'utf8')
    expect(names.filter((name) => !listed.includes(`(${name})`))).toEqual([])
  })
})
