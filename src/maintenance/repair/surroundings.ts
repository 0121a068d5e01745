/** What is around the data: things that do not belong into the directory of a lock, and who may read. */

import type { Inside } from '../../file/backend.js'
import { parseEntry } from '../../file/lock/holder.js'
import type { Finding } from '../../findings.js'
import type { RepairAction, RepairPlan } from '../../repair-plan.js'
import type { Draft } from './log-plan.js'
import { Quarantine } from './quarantine.js'

const nothing = { seqs: [], keys: [], notes: [] } as const
/** Directories that have exactly one entry, which is their state. */
const lockPattern = /^locks\/(?:metadata|maintenance|transcripts\/\d\d|turns\/[0-9a-f]{32})$/

export function planSurroundings(inside: Inside, finding: Finding): Draft | undefined {
  if (finding.kind === 'wrong-permissions') return permissions(inside, finding)
  if (finding.kind === 'lock-foreign-entry') return foreignEntries(inside, finding)
  return undefined
}

function permissions({ host: { disk }, places }: Inside, { file }: Finding): Draft | undefined {
  const stat = disk.stat(file === '.' ? places.store : `${places.store}/${file}`)
  if (!disk.chmod || !stat || file === '.') return undefined
  const mode = stat.kind === 'directory' ? 0o700 : 0o600
  return {
    kind: 'set-permissions',
    file,
    key: undefined,
    sessionId: undefined,
    does: `Sets the permissions of ${file} to 0${mode.toString(8)}.`,
    recovers: { records: 0, keys: 0, notes: [] },
    loses: nothing,
    quarantines: [],
    requires: [],
    work: { kind: 'set-permissions', mode },
  }
}

/** What is a state of the lock, older ones included, is left alone: somebody may be about to rename it. */
function foreignEntries({ host: { disk }, places }: Inside, { file }: Finding): Draft | undefined {
  const path = `${places.store}/${file}`
  if (!lockPattern.test(file) || disk.stat(path)?.kind !== 'directory') return undefined
  const names = disk.readdir(path).filter((name) => !parseEntry(name))
  if (names.length === 0) return undefined
  const quarantines = names.flatMap((name) => {
    const stat = disk.stat(`${path}/${name}`)
    return stat?.kind === 'file' && stat.size > 0
      ? [{ file: `${file}/${name}`, ranges: [{ from: 0, to: stat.size }], bytes: stat.size }]
      : []
  })
  return {
    kind: 'move-aside',
    file,
    key: undefined,
    sessionId: undefined,
    does: `Moves ${names.map((name) => JSON.stringify(name)).join(', ')} out of the directory of a lock.`,
    recovers: { records: 0, keys: 0, notes: [] },
    loses: nothing,
    quarantines,
    requires: [],
    work: { kind: 'move-aside', names },
  }
}

/** Renamed as it is, under a name that says whence it came. */
export async function moveAside(
  { host, places }: Inside,
  plan: RepairPlan,
  action: RepairAction,
  names: readonly string[],
): Promise<string | undefined> {
  const { disk } = host
  const there = names.filter((name) => !parseEntry(name) && disk.stat(`${places.store}/${action.file}/${name}`))
  if (there.length === 0) return undefined
  const quarantine = new Quarantine(host, places.quarantine)
  try {
    const files = Object.fromEntries(
      there.map((name) => [`moved-${name}`, { file: `${action.file}/${name}`, ranges: rangesOf(action, `${action.file}/${name}`) }]),
    )
    await quarantine.note(plan, action, files)
    for (const name of there) {
      disk.rename(`${places.store}/${action.file}/${name}`, `${quarantine.path}/moved-${name}`)
      quarantine.needed = true
    }
    await disk.syncDirectory(quarantine.path)
    return quarantine.label
  } finally {
    quarantine.discard()
  }
}

function rangesOf({ quarantines }: RepairAction, file: string) {
  return quarantines.find((it) => it.file === file)?.ranges ?? []
}
