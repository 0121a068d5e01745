/** Which snapshots stay: a pure function of the policy and of what there is. */
import { StoreError } from '../../errors.js'
import type { ForgetPolicy, SnapshotInfo } from './repository.js'

export const keepLastDefault = 30

export interface Kept {
  readonly snapshot: SnapshotInfo
  readonly because: readonly string[]
}

/** @param snapshots  newest first. */
export function chooseKept(snapshots: readonly SnapshotInfo[], policy: ForgetPolicy): { kept: Kept[]; removed: SnapshotInfo[] } {
  assertPolicy(policy)
  const because = new Map<SnapshotInfo, string[]>()
  const keep = (snapshot: SnapshotInfo, why: string) => because.set(snapshot, [...(because.get(snapshot) ?? []), why])
  const named = new Set(policy.snapshots ?? [])
  const isAbout = (it: SnapshotInfo) => policy.storeId === undefined || it.storeId === policy.storeId
  for (const it of snapshots) {
    // What cannot be read cannot be judged; it goes only when a person says so.
    if (it.unreadable !== undefined) keep(it, 'its manifest cannot be read')
    else if (!isAbout(it)) keep(it, 'of another store')
  }
  const judged = snapshots.filter((it) => it.unreadable === undefined && isAbout(it))
  if (policy.snapshots) for (const it of judged) keep(it, 'not named')
  else
    for (const store of new Set(judged.map((it) => it.storeId)))
      chooseOfStore(
        judged.filter((it) => it.storeId === store),
        policy,
        keep,
      )
  const isRemoved = (it: SnapshotInfo) => named.has(it.id) || !because.has(it)
  return {
    kept: snapshots.filter((it) => !isRemoved(it)).map((snapshot) => ({ snapshot, because: because.get(snapshot)! })),
    removed: snapshots.filter(isRemoved),
  }
}

function chooseOfStore(snapshots: readonly SnapshotInfo[], policy: ForgetPolicy, keep: (it: SnapshotInfo, why: string) => void): void {
  const good = snapshots.filter((it) => !it.damaged)
  const rules = [policy.keepLast, policy.keepDaily, policy.keepWeekly, policy.keepMonthly]
  const keepLast = rules.every((it) => it === undefined) ? keepLastDefault : (policy.keepLast ?? 0)
  for (const it of good.slice(0, keepLast)) keep(it, 'last')
  for (const it of newestOfEach(good, dayOf, policy.keepDaily ?? 0)) keep(it, 'daily')
  for (const it of newestOfEach(good, weekOf, policy.keepWeekly ?? 0)) keep(it, 'weekly')
  for (const it of newestOfEach(good, monthOf, policy.keepMonthly ?? 0)) keep(it, 'monthly')
  for (const it of snapshots.filter((it) => it.damaged).slice(0, policy.keepDamaged ?? keepLastDefault)) keep(it, 'damaged')
  // However the rules read: what cannot be had again is not all given up.
  const [newest] = good
  if (newest) keep(newest, 'the newest good one')
}

function newestOfEach(snapshots: readonly SnapshotInfo[], spanOf: (timeMs: number) => string, most: number): SnapshotInfo[] {
  const newest = new Map<string, SnapshotInfo>()
  for (const it of snapshots) {
    const span = spanOf(it.time)
    if (!newest.has(span) && newest.size < most) newest.set(span, it)
  }
  return [...newest.values()]
}

const dayMs = 86_400_000
const dayOf = (timeMs: number) => new Date(timeMs).toISOString().slice(0, 10)
const monthOf = (timeMs: number) => dayOf(timeMs).slice(0, 7)
/** 1970-01-01 was a Thursday: three days on, weeks begin on Monday. */
const weekOf = (timeMs: number) => String(Math.floor((Math.floor(timeMs / dayMs) + 3) / 7))

function assertPolicy(policy: ForgetPolicy): void {
  for (const name of ['keepLast', 'keepDaily', 'keepWeekly', 'keepMonthly', 'keepDamaged'] as const) {
    const value = policy[name]
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 0 && value <= 1_000_000))
      throw new StoreError('INVALID_OPTION', `${name} must be a whole number from 0 to 1,000,000, not ${String(value)}.`)
  }
}
