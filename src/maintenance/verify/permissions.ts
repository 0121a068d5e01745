/** Directories are the owner's alone (0700), and so are files (0600): transcripts hold what people have said. */
import type { FileStat } from '../../file/durable.js'
import type { Finding } from '../../findings.js'
import { findingSaying } from './report.js'

/** A file or directory of the store. undefined: as it should be, or neither of the two. */
export function permissions(file: string, { kind, mode }: FileStat, platform = process.platform): Finding | undefined {
  // Windows has other ways to say who may do what.
  if (platform === 'win32' || (kind !== 'file' && kind !== 'directory')) return undefined
  const should = kind === 'directory' ? 0o700 : 0o600
  const is = mode & 0o777
  return is === should ? undefined : findingSaying('wrong-permissions', file, `${octal(is)}, should be ${octal(should)}.`)
}

/** The store's own directory may have been made by somebody else, for others to look into; but nobody else may change what is in it. */
export function rootPermissions({ kind, mode }: FileStat, platform = process.platform): Finding | undefined {
  if (platform === 'win32' || kind !== 'directory' || (mode & 0o022) === 0) return undefined
  return findingSaying('wrong-permissions', '.', `${octal(mode & 0o777)}: others may remove and replace what is in the store.`)
}

function octal(mode: number): string {
  return `0${mode.toString(8).padStart(3, '0')}`
}
