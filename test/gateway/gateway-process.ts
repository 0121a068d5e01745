/** The gateway as `npm run gateway` starts it: a process of its own, that a test may kill. */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import OpenAI from 'openai'

const program = fileURLToPath(new URL('../../.build/src/gateway/main.js', import.meta.url))

export interface GatewayProcess {
  readonly url: string
  readonly child: ChildProcess
  /** What it has said on stderr, line by line. */
  readonly lines: string[]
  /** Resolves with the exit code, or the signal. */
  readonly ended: Promise<number | string>
  stop(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | string>
}

const running = new Set<ChildProcess>()

/** @returns how it ended, when that is what it did instead of listening. */
export function run(
  flags: readonly string[],
  env: Record<string, string> = {},
): Promise<GatewayProcess | { code: number | string; stderr: string; stdout: string }> {
  const bare = Object.entries(process.env).filter(([name]) => !/^(HOLDFAST|OPENAI)_/.test(name))
  const child = spawn(process.execPath, [program, ...flags], {
    env: { ...Object.fromEntries(bare), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  const lines: string[] = []
  let stderr = ''
  let stdout = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    const parts = (stderr + text).split('\n')
    stderr = parts.pop()!
    lines.push(...parts)
  })
  const ended = new Promise<number | string>((resolve) => {
    child.on('close', (code, signal) => {
      running.delete(child)
      resolve(code ?? signal!)
    })
  })
  return new Promise((resolve) => {
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
      const url = /http:\S+(?=,)/.exec(stdout)?.[0]
      const stop = (signal: 'SIGKILL' | 'SIGTERM') => {
        child.kill(signal)
        return ended
      }
      if (url) resolve({ url, child, lines, ended, stop })
    })
    void ended.then((code) => resolve({ code, stderr: [...lines, stderr].join('\n'), stdout }))
  })
}

export async function startGateway(flags: readonly string[], env: Record<string, string> = {}): Promise<GatewayProcess> {
  const started = await run(['--port', '0', ...flags], env)
  if ('url' in started) return started
  throw new Error(`The gateway did not start: ${started.code} ${started.stderr}`)
}

/** Those that a failed test has left. */
export function killAll(): void {
  for (const child of running) child.kill('SIGKILL')
}

export function freshDirectory(): string {
  return fs.mkdtempSync(join(os.tmpdir(), 'holdfast-gateway-'))
}

export function clientOf({ url }: { readonly url: string }, key: string, more: ConstructorParameters<typeof OpenAI>[0] = {}): OpenAI {
  return new OpenAI({
    baseURL: `${url}/v1`,
    apiKey: 'of-no-use',
    maxRetries: 0,
    ...more,
    defaultHeaders: { 'x-session-key': key, ...more.defaultHeaders },
  })
}
