/** Runs the built `holdfast` as a user's shell would. */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { run } from '../../src/cli/program.js'

export const bin = fileURLToPath(new URL('../../.build/src/cli/main.js', import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface Running {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  /** What has come so far. */
  stdout(): string
  stderr(): string
  /** Resolves once stdout fits; rejects when the process ends, or `withinMs` passes, before it does. */
  until(pattern: RegExp, withinMs?: number): Promise<void>
}

/** The environment of the tests, without what would lead the command elsewhere. */
function environment(extra: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { HOLDFAST_STORE: _store, NO_COLOR: _colour, FORCE_COLOR: _force, ...rest } = process.env
  return { ...rest, ...extra }
}

export function start(args: readonly string[], options: { env?: NodeJS.ProcessEnv; cwd?: string } = {}): Running {
  const child = spawn(process.execPath, [bin, ...args], {
    cwd: options.cwd ?? os.tmpdir(),
    env: environment(options.env ?? {}),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  let over = false
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => {
      over = true
      resolve({ code, signal, stdout, stderr })
    })
  })
  return {
    child,
    ended,
    stdout: () => stdout,
    stderr: () => stderr,
    async until(pattern, withinMs = 20_000) {
      for (const by = Date.now() + withinMs; !pattern.test(stdout); await new Promise((resolve) => setTimeout(resolve, 10))) {
        if (over || Date.now() > by) throw new Error(`holdfast ${args.join(' ')} never printed ${pattern}:\n${stdout}\n${stderr}`)
      }
    },
  }
}

export function holdfast(args: readonly string[], options: { env?: NodeJS.ProcessEnv; cwd?: string } = {}): Promise<Ended> {
  return start(args, options).ended
}

/** A fresh directory, and the way to be rid of it. */
export function scratch(): { readonly dir: string; path(...parts: string[]): string; remove(): void } {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-cli-'))
  return {
    dir,
    path: (...parts) => path.join(dir, ...parts),
    remove: () => fs.rmSync(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }),
  }
}

/** One JSON value a line. */
export function jsonLines<T = Record<string, unknown>>(text: string): T[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T)
}

export function writeLines(file: string, lines: readonly (object | string)[], end = '\n'): void {
  fs.mkdirSync(path.dirname(file), { recursive: true })
  fs.writeFileSync(file, lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n') + end)
}

/** The same without a process of its own, where nothing else is asked of it: starting one takes longer than most commands. */
export async function holdfastHere(args: readonly string[]): Promise<Pick<Ended, 'code' | 'stdout' | 'stderr'>> {
  const said = { stdout: '', stderr: '' }
  const { exitCode, env } = process
  const restore = (['stdout', 'stderr'] as const).map((name) => {
    const write = process[name].write
    process[name].write = ((text: string | Uint8Array) => {
      said[name] += String(text)
      return true
    }) as typeof write
    return () => {
      process[name].write = write
    }
  })
  process.env = environment({})
  process.exitCode = 0
  try {
    await run([process.execPath, bin, ...args])
    return { code: Number(process.exitCode), ...said }
  } finally {
    for (const back of restore) back()
    process.env = env
    process.exitCode = exitCode
  }
}
