/** A requirement as a line: what was measured, against which floor, and whether that is enough. Nothing is asserted here: a slow machine is
 *  not a broken build. */
import { type Measured, median, ratio } from './measure.js'
import type { Verdict } from './workload.js'

export function formatTime(us: number): string {
  if (!Number.isFinite(us)) return '-'
  if (us < 10) return `${us.toFixed(2)} us`
  if (us < 1_000) return `${us.toFixed(us < 100 ? 1 : 0)} us`
  return us < 1_000_000 ? `${(us / 1_000).toPrecision(3)} ms` : `${(us / 1e6).toPrecision(3)} s`
}

export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en-US')
}

const perSecond = (one: Measured, unit: number) => `${formatCount((1e6 / median(one.rounds)) * unit)}/s`

/** One's rate is at least `share` of the floor's. */
export function reachesShare(requirement: string, one: Measured, floor: Measured, share: number, unit = 1): Verdict {
  const reached = 1 / ratio(one, floor)
  return {
    requirement,
    measured: perSecond(one, unit),
    floor: `${floor.name} ${perSecond(floor, unit)}`,
    ratio: reached.toFixed(2),
    required: `at least ${share} x the floor's rate`,
    ok: reached >= share,
  }
}

/** One's time is at most `times` the floor's. */
export function staysWithin(requirement: string, one: Measured, floor: Measured, times: number): Verdict {
  const reached = ratio(one, floor)
  return {
    requirement,
    measured: formatTime(median(one.rounds)),
    floor: `${floor.name} ${formatTime(median(floor.rounds))}`,
    ratio: reached.toFixed(2),
    required: `at most ${times} x`,
    ok: reached <= times,
  }
}

export function isAhead(one: Measured, peer: Measured | undefined, peerName: string, unit = 1): Verdict {
  const requirement = `ahead of ${peerName}`
  if (!peer)
    return {
      requirement,
      measured: perSecond(one, unit),
      floor: 'not installed',
      ratio: '-',
      required: 'more than 1 x its rate',
      ok: false,
    }
  const reached = 1 / ratio(one, peer)
  return {
    requirement,
    measured: perSecond(one, unit),
    floor: `${peer.name} ${perSecond(peer, unit)}`,
    ratio: reached.toFixed(2),
    required: 'more than 1 x its rate',
    ok: reached > 1,
  }
}

/** A plain bound on a number, without a floor. */
export function isBelow(requirement: string, measured: number, most: number, unit: string, floor = '-'): Verdict {
  const shown = measured < 10 ? measured.toFixed(2) : measured.toFixed(1)
  const share = (measured / most).toFixed(2)
  return { requirement, measured: `${shown} ${unit}`, floor, ratio: share, required: `at most ${most} ${unit}`, ok: measured <= most }
}
