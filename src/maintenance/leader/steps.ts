/** What a round of maintenance consists of, in this order. Each step is safe by itself, whoever else does the same at the same time, and
 *  wherever it is cut off. */

import type { CheckedMaintenance } from '../../backend.js'
import type { Inside } from '../../file/backend.js'
import { compressArchives } from '../archive/compress.js'
import { archiveDeleted } from '../archive/deleted.js'
import type { Pace } from '../pace.js'
import { retaining } from '../retention/retain.js'
import { Sweeper } from '../sweep/sweep.js'
import { CompactStep } from './compact-step.js'
import { FinishStep } from './finish-step.js'
import type { Step, Unit } from './round.js'
import { VerifyStep } from './verify-step.js'

/** A journal smaller than this is folded when the store is closed, or falls idle. */
const journalBytesMin = 64 << 10

/** Archived transcripts are compressed when they have lain there for so long. */
const compressAfterMs = 600_000

export function stepsOf(inside: Inside, options: CheckedMaintenance): Step[] {
  const { retention, protect, verifyShare, compactBytes, compressArchives: compressing = true } = options
  const sweeper = new Sweeper(inside)
  const finishing = new FinishStep(inside)
  const compacting = new CompactStep(inside, compactBytes ?? {})
  const verifying = new VerifyStep(inside, verifyShare)
  return [
    { name: 'finish', wanted: true, run: (pace) => finish(inside, finishing, pace) },
    { name: 'sweep', wanted: true, run: (pace) => sweeper.run(pace) },
    { name: 'checkpoint', wanted: true, run: () => checkpoint(inside) },
    { name: 'marks', wanted: true, run: () => marks(inside) },
    { name: 'compact', wanted: compactBytes !== undefined, run: (pace) => compacting.run(pace) },
    { name: 'retain', wanted: retention !== undefined, run: (pace) => retainStep(inside, { rules: retention!, protect }, pace) },
    { name: 'compress', wanted: compressing, run: (pace) => compress(inside, pace) },
    { name: 'verify', wanted: verifyShare > 0, run: (pace) => verifying.run(pace) },
  ]
}

/** How far what this process has written is on the disk. */
async function* marks({ transcripts, vital }: Inside): AsyncGenerator<Unit> {
  vital.assertWritable()
  await transcripts.marks.flush({ waitMs: 1_000 })
  yield { outcome: 'noted' }
}

async function* finish(inside: Inside, finishing: FinishStep, pace: Pace): AsyncGenerator<Unit> {
  yield* finishing.run(pace)
  for await (const deleted of archiveDeleted(inside, pace)) yield { outcome: 'finished', ...deleted, text: 'deleted' }
}

async function* compress(inside: Inside, pace: Pace): AsyncGenerator<Unit> {
  for await (const { file, outcome, bytes, packedBytes } of compressArchives(inside, compressAfterMs, pace.signal)) {
    yield {
      outcome,
      file,
      bytes,
      text: outcome === 'compressed' ? `${packedBytes} bytes by now` : undefined,
      damage: outcome === 'damaged',
    }
    await pace.breathe()
  }
}

/** When there is enough in the journal that the next open would notice. */
async function* checkpoint({ metadata }: Inside): AsyncGenerator<Unit> {
  const { journalBytes, snapshotBytes } = metadata
  if (journalBytes < journalBytesMin || journalBytes < snapshotBytes / 4) return
  await metadata.checkpoint({ waitMs: 1_000 })
  yield { outcome: 'folded', file: 'sessions.journal.jsonl', bytes: journalBytes }
}

async function* retainStep(inside: Inside, options: Parameters<typeof retaining>[1], pace: Pace): AsyncGenerator<Unit> {
  const units = retaining(inside, { ...options, signal: pace.signal }, pace)
  for (;;) {
    const step = await units.next()
    if (!step.done) {
      yield step.value
      continue
    }
    for (const { rule, prefix, limit, least, protected: count } of step.value.unsatisfied)
      yield {
        outcome: 'unsatisfied',
        text: `${rule}${prefix ? ` of ${prefix}` : ''}: ${least} of at most ${limit} may not go (${count} protected)`,
      }
    return
  }
}
