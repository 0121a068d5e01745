/** Who this process is, and what can be learned of another. Every part may be missing; a missing part only makes verdicts more patient. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import { crc32 } from 'node:zlib'
import type { Identity, ProcessProbe } from './staleness.js'

export function readIdentity(): Identity {
  return {
    boot: bootId(),
    machine: shortened(readText('/etc/machine-id') ?? readText('/var/lib/dbus/machine-id')),
    pidNamespace: pidNamespace(),
    pid: process.pid,
    startTime: startOf(process.pid).startTime ?? '0',
    host:
      os
        .hostname()
        .replace(/[^A-Za-z0-9-]/g, '-')
        .slice(0, 24) || 'unknown',
  }
}

function bootId(): string {
  if (process.platform === 'linux') return shortened(readText('/proc/sys/kernel/random/boot_id'))
  if (process.platform === 'darwin') return shortened(runText('sysctl', ['-n', 'kern.bootsessionuuid']))
  return '0'
}

function pidNamespace(): string {
  try {
    return /\d+/.exec(fs.readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0'
  } catch {
    return '0'
  }
}

export function probeProcess(pid: number): ProcessProbe {
  try {
    process.kill(pid, 0)
  } catch (error) {
    // Only ESRCH says that there is none. EPERM says that there is one, of another user.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return { exists: false }
  }
  return { exists: true, ...startOf(pid) }
}

/** Start time and zombie state; an unreadable /proc (hidepid, another system) is not evidence of death. */
function startOf(pid: number): { startTime: string | undefined; zombie: boolean } {
  if (process.platform === 'darwin') {
    const started = runText('ps', ['-o', 'lstart=', '-p', String(pid)])
    return { startTime: started && shortened(started), zombie: false }
  }
  const stat = process.platform === 'linux' ? readText(`/proc/${pid}/stat`) : undefined
  if (!stat) return { startTime: undefined, zombie: false }
  // The command name may itself hold spaces and brackets: fields are counted after its last `)`.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return { startTime: fields[19], zombie: fields[0] === 'Z' || fields[0] === 'X' }
}

function shortened(text: string | undefined): string {
  return text ? crc32(text.trim()).toString(16).padStart(8, '0') : '0'
}

function readText(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'latin1').trim() || undefined
  } catch {
    return undefined
  }
}

function runText(command: string, args: string[]): string | undefined {
  try {
    return execFileSync(command, args, { encoding: 'latin1', timeout: 2_000, stdio: ['ignore', 'pipe', 'ignore'] }).trim() || undefined
  } catch {
    return undefined
  }
}
