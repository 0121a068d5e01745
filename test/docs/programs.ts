/** Runs programs that a page shows. They import the package by its name, so they are put where that name leads to this build. */
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { root } from './markdown.js'

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

const folder = fileURLToPath(new URL('.build/docs/', root))
const run = promisify(execFile)

export async function runProgram(name: string, text: string, args: readonly string[], cwd: string): Promise<Ran> {
  return runFile(programPath(name, text), args, cwd)
}

export function programPath(name: string, text: string): string {
  fs.mkdirSync(folder, { recursive: true })
  const path = join(folder, `${name}.mjs`)
  fs.writeFileSync(path, text)
  return path
}

export async function runFile(path: string, args: readonly string[], cwd: string): Promise<Ran> {
  try {
    const { stdout, stderr } = await run(process.execPath, [path, ...args], { cwd, timeout: 30_000, encoding: 'utf8' })
    return { code: 0, stdout, stderr }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { code, stdout, stderr }
  }
}
