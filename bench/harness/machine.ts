/** What the numbers were measured on. */
import { execFileSync } from 'node:child_process'
import { readFileSync, statfsSync } from 'node:fs'
import os from 'node:os'

export interface Machine {
  readonly cpu: string
  readonly kernel: string
  readonly node: string
  readonly fileSystem: string
  readonly commit: string
  readonly loadAverage: number
  readonly date: string
}

const magic: Record<number, string> = { 61267: 'ext4', 16914836: 'tmpfs', 1481003842: 'xfs', 2435016766: 'btrfs', 2035054128: 'overlayfs' }

export function describeMachine(dir: string): Machine {
  const cpus = os.cpus()
  const { type } = statfsSync(dir)
  return {
    cpu: `${cpus.length} x ${cpus[0]?.model.trim() ?? 'unknown'}, ${Math.round(os.totalmem() / 2 ** 30)} GiB`,
    kernel: `${os.type()} ${os.release()}`,
    node: process.version,
    fileSystem: `${magic[type] ?? `0x${type.toString(16)}`}${optionsOf(dir)}`,
    commit: commitOf(),
    loadAverage: os.loadavg()[0]!,
    date: new Date().toISOString().slice(0, 16),
  }
}

/** The mount options, where the system shows them: `nobarrier` or `data=` explain a fast disk. */
function optionsOf(dir: string): string {
  try {
    const mounts = readFileSync('/proc/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' '))
    const mount = mounts
      .filter(([, at]) => at !== undefined && `${dir}/`.startsWith(at === '/' ? '/' : `${at}/`))
      .sort((a, b) => b[1]!.length - a[1]!.length)[0]
    return mount ? ` (${mount[3]})` : ''
  } catch {
    return ''
  }
}

function commitOf(): string {
  try {
    const git = (...args: string[]) => execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
    return `${git('rev-parse', '--short', 'HEAD')}${git('status', '--porcelain', '--', 'src', 'bench') ? ' with local changes' : ''}`
  } catch {
    return 'unknown'
  }
}
