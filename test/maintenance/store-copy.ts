import { chmodSync, cpSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** A copy with the permissions of what was copied: Node 24 makes the directories of a copy as the umask has it. */
export function copyStore(from: string, to: string): void {
  cpSync(from, to, { recursive: true })
  chmodSync(to, statSync(from).mode & 0o777)
  for (const name of readdirSync(from, { recursive: true, encoding: 'utf8' }))
    if (statSync(join(from, name)).isDirectory()) chmodSync(join(to, name), statSync(join(from, name)).mode & 0o777)
}
