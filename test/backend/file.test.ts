/** The embedded backend against the specification of the port, with both durabilities and both ways of checkpointing. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { openFileBackend } from '../../src/file/backend.js'
import { checkKey } from '../../src/input.js'
import type { Durability } from '../../src/types.js'
import { careOf } from './care.js'
import { describeBackend } from './conformance.js'
import { describeSummaries } from './summaries-conformance.js'
import { describeTurns } from './turns-conformance.js'

function fileBackend(durability: Durability, checkpoint: 'auto' | 'always'): void {
  const makePlace = async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-backend-'))
    return {
      open: () => openFileBackend(dir, { durability, checkpoint, waitMs: 10_000, maxHoldMs: 15_000, readOnly: false, checkKey }),
      care: careOf,
      remove: async () => fs.rmSync(dir, { recursive: true, force: true }),
    }
  }
  describeBackend(`file, ${durability}, ${checkpoint}`, makePlace)
  describeSummaries(`file, ${durability}, ${checkpoint}`, makePlace)
  describeTurns(`file, ${durability}, ${checkpoint}`, makePlace)
}

fileBackend('power', 'auto')
fileBackend('process', 'always')
