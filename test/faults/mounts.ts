/** Real file systems of a size and kind that a test asks for. Only root may mount; tests of others are skipped by name. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-faults-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** Whether this process may mount at all; a container's root often may not. */
export function mayMount(): boolean {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-mount-'))
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', directory]).status === 0
  if (mounted) execFileSync('umount', [directory])
  rmSync(directory, { recursive: true })
  return mounted
}

/** Whether the tool that makes such a file system is installed. */
export function canMake(kind: string): boolean {
  return spawnSync(`mkfs.${kind}`, ['-V'], { stdio: 'ignore' }).error === undefined
}

export function mountTmpfs(size: string): string {
  const directory = join(temporaryDirectory(), 'mount')
  mkdirSync(directory)
  mount(directory, ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs'])
  return directory
}

/** An image on a loop device. */
export function mountImage(kind: string, bytes: number): string {
  const base = temporaryDirectory()
  const image = join(base, 'image')
  const directory = join(base, 'mount')
  mkdirSync(directory)
  writeFileSync(image, '')
  truncateSync(image, bytes)
  execFileSync(`mkfs.${kind}`, ['-q', image], { stdio: 'ignore' })
  mount(directory, ['-t', kind, '-o', 'loop', image])
  return directory
}

/** The same directory once more, read-only. */
export function mountReadOnly(source: string): string {
  const directory = join(temporaryDirectory(), 'mount')
  mkdirSync(directory)
  mount(directory, ['--bind', source])
  execFileSync('mount', ['-o', 'remount,bind,ro', directory])
  return directory
}

function mount(directory: string, options: string[]): void {
  execFileSync('mount', [...options, directory])
  onTestFinished(() => void execFileSync('umount', [directory]))
}
