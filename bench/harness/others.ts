/** How much of the machine went to others while we measured: everything that was busy, less ourselves and our children. The kernel's own
 *  threads count as others: a few per cent are its work for us. */
import { readFileSync } from 'node:fs'
import os from 'node:os'

/** Returns a function that says which share of all processors others have used since; undefined where the system does not tell. */
export function watchOthers(): () => number | undefined {
  const before = cpuTicks()
  return () => {
    const after = cpuTicks()
    if (!before || !after) return undefined
    const all = after.all - before.all
    const ours = after.ours - before.ours
    return all === 0 ? 0 : Math.max(0, (after.busy - before.busy - ours) / all)
  }
}

function cpuTicks(): { all: number; busy: number; ours: number } | undefined {
  try {
    const [user, nice, system, idle, iowait, irq, softirq, steal] = numbers(readFileSync('/proc/stat', 'latin1').split('\n')[0]!.slice(5))
    const stat = readFileSync('/proc/self/stat', 'latin1')
    // After the command's name: state is the first; utime, stime, and those of children that have ended, are 12 to 15.
    const own = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const busy = user! + nice! + system! + irq! + softirq! + steal!
    return { all: busy + idle! + iowait!, busy, ours: numbers(own.slice(11, 15).join(' ')).reduce((sum, ticks) => sum + ticks, 0) }
  } catch {
    return undefined
  }
}

function numbers(text: string): number[] {
  return text.trim().split(/\s+/).map(Number)
}

/** Above this share the numbers say more about the neighbours than about the stores. */
export const disturbedShare = 0.15

export function othersText(share: number | undefined): string {
  if (share === undefined) return ''
  const text = `; others used ${(share * 100).toFixed(0)} % of the ${os.cpus().length} processors`
  return share > disturbedShare ? `${text}: DISTURBED, run it again on a quiet machine` : text
}
