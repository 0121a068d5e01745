import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { bin, holdfast, holdfastHere, jsonLines, scratch, start } from './run.js'

const place = scratch()
const store = place.path('store')

beforeAll(async () => {
  const opened = await SessionStore.open(store)
  await opened.session('agent:main:main').append({ type: 'message', message: { role: 'user', content: 'hi' } })
  await opened.close()
})
afterAll(() => place.remove())

const commands = ['list', 'show', 'tail', 'turns', 'interrupt', 'locks', 'stats', 'verify', 'repair', 'retain', 'maintain', 'import']
const reading: [string, string[]][] = [
  ['list', ['list']],
  ['show', ['show', 'k']],
  ['tail', ['tail', 'k']],
  ['turns', ['turns']],
  ['interrupt', ['interrupt', 'k']],
  ['locks', ['locks']],
  ['stats', ['stats']],
  ['verify', ['verify']],
  ['repair', ['repair']],
  ['retain', ['retain', '--max-age', '1d']],
  ['maintain', ['maintain', '--watch']],
]

describe('help and wrong use', () => {
  test('docs/cli.md has a section for every command and names every option of its help', async () => {
    const docs = fs.readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8')
    for (const command of [...commands, 'stress']) {
      const section = docs.split(/^## /m).find((part) => part.startsWith(`${command}\n`))
      expect(section, `a section on ${command}`).toBeDefined()
      const { stdout } = await holdfastHere([command, '--help'])
      const options = [...stdout.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm)].map(([, option]) => option!)
      for (const option of options.filter((name) => !['--store', '--json', '--help'].includes(name))) expect(section).toContain(option)
    }
  })

  test.each(commands)('%s --help has its options, examples and exit codes', async (command) => {
    const { code, stdout, stderr } = await holdfastHere([command, '--help'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    for (const part of ['--store <dir>', 'HOLDFAST_STORE', '--json', 'Examples:', `$ holdfast ${command}`, 'Exit codes: 0 '])
      expect(stdout).toContain(part)
  })

  test('--help names every command, --version the version of the package', async () => {
    const help = await holdfast(['--help'])
    for (const command of [...commands, 'stress']) expect(help.stdout).toContain(`  ${command} `)
    const { version } = JSON.parse(fs.readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
    expect(await holdfast(['--version'])).toMatchObject({ code: 0, stdout: `${version}\n` })
  })

  test.each([
    [['list', '--nonsense'], /unknown option '--nonsense'/],
    [['nonsense'], /unknown command 'nonsense'/],
    [['show'], /missing required argument 'key'/],
    [['tail', 'k', '-n', 'many'], /whole number from 0 to/],
    [['tail', 'k', '-n', '-1'], /whole number from 0 to|unknown option/],
    [['list', 'too', 'many'], /too many arguments/],
    [['import', 'x', '--key', ''], /must not be empty/],
  ])('%j is wrong use: exit 2, a sentence on stderr, nothing on stdout', async (args, said) => {
    const { code, stdout, stderr } = await holdfast(args)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(said)
  })

  test('no command at all shows the help and is wrong use', async () => {
    expect(await holdfast([])).toMatchObject({ code: 2, stdout: '' })
  })
})

describe('which store', () => {
  test.each(reading)('%s in a directory that is not there is refused with the next step, and makes nothing', async (_name, args) => {
    const missing = place.path('missing')
    const { code, stdout, stderr } = await holdfastHere([...args, '--store', missing])
    expect({ code, stdout }).toEqual({ code: 3, stdout: '' })
    expect(stderr).toBe(
      `holdfast: There is no store at ${missing}. Name it with --store DIR or the environment variable HOLDFAST_STORE; \`holdfast import PATH\` makes a new one.\n`,
    )
    expect(fs.existsSync(missing)).toBe(false)
  })

  test.each(reading)('%s in some other directory is refused, and leaves it as it is', async (_name, args) => {
    const other = place.path('other')
    fs.mkdirSync(other, { recursive: true })
    expect(await holdfastHere([...args, '--store', other])).toMatchObject({
      code: 3,
      stdout: '',
      stderr: expect.stringContaining('holds no store'),
    })
    expect(fs.readdirSync(other)).toEqual([])
  })

  test('--store on a file is refused', async () => {
    fs.writeFileSync(place.path('file'), '')
    expect(await holdfast(['list', '--store', place.path('file')])).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('is not a directory'),
    })
  })

  test('with --json the refusal is JSON too', async () => {
    const { code, stdout, stderr } = await holdfast(['list', '--json', '--store', place.path('missing')])
    expect({ code, stdout }).toEqual({ code: 3, stdout: '' })
    expect(jsonLines(stderr)).toEqual([
      {
        error: {
          code: 'FAILED',
          exitCode: 3,
          message: expect.stringContaining('There is no store'),
          hint: expect.any(String),
          effect: 'none',
          retryable: false,
        },
      },
    ])
  })

  test('HOLDFAST_STORE names it, --store overrides that, ./sessions is the default', async () => {
    const keys = async (args: string[], options: Parameters<typeof holdfast>[1]) =>
      (await holdfast(['list', ...args], options)).stdout.split('\t')[0]
    expect(await keys([], { env: { HOLDFAST_STORE: store } })).toBe('agent:main:main')
    expect(await keys(['--store', store], { env: { HOLDFAST_STORE: place.path('missing') } })).toBe('agent:main:main')
    fs.symlinkSync(store, place.path('sessions'))
    expect(await keys([], { cwd: place.dir })).toBe('agent:main:main')
    expect(await keys([], { cwd: place.dir, env: { HOLDFAST_STORE: '' } })).toBe('agent:main:main')
  })

  test.each(['show', 'tail'])('%s of a key that is not there is wrong use, and says where to look', async (command) => {
    const { code, stdout, stderr } = await holdfast([command, 'agent:nobody', '--store', store])
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toBe(`holdfast: There is no session "agent:nobody" in ${store}. See \`holdfast list\`; keys are compared exactly.\n`)
  })

  test('reading commands change nothing, not even a journal that a writer would fold', async () => {
    const copy = place.path('frozen')
    const live = await SessionStore.open(place.path('live'))
    await live.session('agent:main:main').append({ n: 1 })
    fs.cpSync(place.path('live'), copy, { recursive: true })
    await live.close()
    const before = listing(copy)
    for (const args of [
      ['list'],
      ['show', 'agent:main:main'],
      ['tail', 'agent:main:main'],
      ['turns', 'agent:main:main', '--json'],
      ['locks'],
      ['stats'],
      ['verify'],
    ]) {
      expect(await holdfast([...args, '--store', copy])).toMatchObject({ code: 0, stderr: '' })
    }
    expect(listing(copy)).toEqual(before)
  })
})

/** Every name below a directory with size and time: what a reader must not change. */
function listing(dir: string): string[] {
  return fs
    .readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => {
      const { size, mtimeMs, ino } = fs.lstatSync(`${dir}/${name}`)
      return `${name} ${size} ${mtimeMs} ${ino}`
    })
}

describe('pipes and terminals', () => {
  test('a reader that goes away early is no error', async () => {
    const many = place.path('many')
    const opened = await SessionStore.open(many, { durability: 'process' })
    await opened.withStoreLock((sessions) => {
      for (let i = 0; i < 5_000; i++) sessions.set(`agent:${'x'.repeat(100)}:${i}`, {})
    })
    await opened.close()
    const ended = await new Promise<{ code: number | null; stderr: string }>((resolve) => {
      const { child, ended, stderr } = start(['list', '--store', many])
      child.stdout?.once('data', () => child.stdout?.destroy())
      ended.then(({ code }) => resolve({ code, stderr: stderr() }))
    })
    expect(ended).toEqual({ code: 0, stderr: '' })
  })

  test('a pipe gets no colour and no escape code', async () => {
    const { stdout } = await holdfast(['verify', '--store', store])
    expect(stdout).toMatch(/^ok\t/m)
    expect(stdout).not.toContain('\u001b')
  })

  const script = spawnSync('script', ['--version']).status === 0
  const onTerminal = (args: string[], env: NodeJS.ProcessEnv) => {
    const line = [process.execPath, bin, ...args].map((part) => `'${part}'`).join(' ')
    const { NO_COLOR: _colour, FORCE_COLOR: _force, CI: _ci, ...rest } = process.env
    return spawnSync('script', ['-qec', line, '/dev/null'], { encoding: 'utf8', env: { ...rest, TERM: 'xterm-256color', ...env } }).stdout
  }

  test.skipIf(!script)('a terminal gets columns with a head, and colour unless NO_COLOR is set', () => {
    const coloured = onTerminal(['list', '--store', store], {})
    expect(coloured).toContain('SESSION ID')
    expect(coloured).toContain('\u001b[1m')
    const bare = onTerminal(['list', '--store', store], { NO_COLOR: '1' })
    expect(bare).toContain('SESSION ID')
    expect(bare).not.toContain('\u001b')
  })

  test.skipIf(!script)('what stands in a transcript cannot speak to the terminal', async () => {
    const hostile = place.path('hostile')
    const opened = await SessionStore.open(hostile)
    await opened
      .session('k')
      .append({ type: 'message', message: { role: 'user\u001b[31m', content: 'a\u001b]0;title\u0007b\u009b2J\r\nc\u202e' } })
    await opened.close()
    for (const args of [
      ['tail', 'k'],
      ['tail', 'k', '--json'],
      ['show', 'k'],
    ]) {
      const shown = onTerminal([...args, '--store', hostile], { NO_COLOR: '1' })
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
      expect(shown).not.toMatch(/[\u0000-\u0009\u000b\u000c\u000e-\u001f\u007f-\u009f\u202e]/)
    }
  })
})
