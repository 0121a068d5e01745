/** `holdfast locks`: who holds what, since when, whether the store believes it, and why. Looks only; takes nothing over. */
import type { Command } from 'commander'
import type { LockStatus } from '../index.js'
import { type CommonOptions, storeCommand, withStoreToRead } from './options.js'
import { count, durationText, moment, paint, plain, print, printJson, printTable } from './output.js'

interface LocksOptions extends CommonOptions {
  readonly all?: boolean
}

export function locksCommand(): Command {
  return storeCommand('locks', 'Show who holds which lock, since when, and whether it would be taken over', [
    'holdfast locks',
    'holdfast locks --all',
    'holdfast locks --json | jq -r \'select(.holder.verdict == "alive") | .holder.pid\'',
  ])
    .option('--all', 'free locks as well')
    .addHelpText(
      'after',
      `
Verdicts: alive, left alone · dead or expired, taken over by whoever comes next · unknown, on another machine or in another
container: taken over once it has not moved for its maxHoldMs. A takeover never costs data, so there is no lock to remove by hand.
turns/… is the lease of a conversation that has an active turn; it is held for since its last progress, and its limit is maxTurnMs.
\`holdfast turns\` tells more.`,
    )
    .action(locks)
}

async function locks({ store: dir, json, all }: LocksOptions): Promise<void> {
  await withStoreToRead(dir, async (store) => {
    const known = await store.locks()
    const shown = known.filter((lock) => all || lock.state === 'held' || lock.state === 'foreign' || lock.waiting > 0)
    if (json) {
      for (const lock of shown) await printJson(factsOf(lock))
      return
    }
    if (shown.length === 0) return print(`No lock is held (${count(known.length, 'lock')} looked at).`)
    await printTable(['LOCK', 'STATE', 'HOLDER', 'DOES', 'HELD FOR', 'LIMIT', 'WAITING', 'VERDICT', 'WHY'], shown.map(rowOf))
  })
}

/** The store's own facts, and the moment of taking as a time, which is what a log has. */
function factsOf(lock: LockStatus): object {
  const { holder } = lock
  return { ...lock, holder: holder ? { ...holder, since: since(holder.heldMs) ?? null } : null }
}

function since(heldMs: number | undefined): string | undefined {
  return heldMs === undefined ? undefined : moment(Date.now() - heldMs)
}

const styles: Record<string, 'green' | 'yellow' | 'red'> = { alive: 'green', unknown: 'yellow', dead: 'red', expired: 'red' }

function rowOf({ lock, key, state, holder, waiting }: LockStatus): string[] {
  if (!holder) return [lock, state, '-', '-', '-', '-', String(waiting), '-', '-']
  const held = holder.heldMs === undefined ? '-' : `${durationText(holder.heldMs)} (${since(holder.heldMs)})`
  const verdict = paint(styles[holder.verdict] ?? 'yellow', holder.verdict)
  const who = `pid ${holder.pid} on ${plain(holder.host)}`
  const does = key === undefined ? plain(holder.does) : `${plain(holder.does)} of ${plain(key)}`
  return [lock, state, who, does, held, durationText(holder.maxHoldMs), String(waiting), verdict, plain(holder.why)]
}
