/** Opens what a crash has left, and holds it against what had been acknowledged. */
import { type Census, census } from '../simulation/census.js'
import { assertBorneOut, type Deed, deedsOf } from '../simulation/ledger.js'
import { processDisk } from '../simulation/process-disk.js'
import type { SimulatedDisk } from '../simulation/simulated-disk.js'
import { simulatedHost } from '../simulation/simulated-host.js'
import type { Cut } from './recording.js'

/** Another boot of the same machine: pids, clocks and locks of the one before mean nothing. */
export const nextBoot = 'b0000002'

export interface AfterACut {
  readonly boot: string
  /** Acknowledged writes may be gone: durability `process`, and the power was cut. */
  readonly forgetful?: boolean
}

export async function assertSurvived(cut: Cut, left: SimulatedDisk, { boot, forgetful = false }: AfterACut): Promise<void> {
  const deeds = deedsOf(cut.facts).map(
    (deed): Deed => (forgetful && deed.outcome === 'did' ? { what: deed.what, outcome: 'unsure' } : deed),
  )
  try {
    const found = await opened(left, 801, boot)
    assertBorneOut(deeds, found, { powerCut: true })
    assertSame(found, await opened(left, 802, boot))
  } catch (error) {
    const facts = cut.facts.map(({ fact }) => `  ${fact}`).join('\n')
    const files = [...left.listing()].map(([path, node]) => `  ${path}${node.kind === 'file' ? ` ${node.bytes.length}` : ''}`).join('\n')
    throw new Error(`after ${cut.after}: ${(error as Error).message}\nfacts\n${facts}\nfound on the disk before or after\n${files}`, {
      cause: error,
    })
  }
}

/** Looks, and then writes, to see that the store goes on. */
function opened(disk: SimulatedDisk, pid: number, boot: string): Promise<Census> {
  return census(simulatedHost(processDisk(disk, pid), { pid, boot }), true).finally(() => disk.exit(pid))
}

/** What the second to open finds is what the first one found, and what it added. */
function assertSame(first: Census, second: Census): void {
  const shown = ({ records }: Census) =>
    records
      .filter(({ name }) => name !== 'afterwards')
      .map(({ sessionId, seq, name }) => `${sessionId} ${seq} ${name}`)
      .sort()
      .join('\n')
  if (shown(first) !== shown(second)) throw new Error(`a second reopening finds something else:\n${shown(first)}\n---\n${shown(second)}`)
  if (!second.report.ok) throw new Error(`damage after going on: ${second.report.damage.map(({ message }) => message).join('; ')}`)
}
