/** Backs up again and again into one repository, until it is killed: says `committed <id> <seed>` for each snapshot, and prunes now and then. */

import { openRepository } from '../../../src/backup/repository/open.js'
import { isStoreError } from '../../../src/errors.js'
import { snapshotOf, transcript } from './depot.js'

const [place = '', who = '0'] = process.argv.slice(2)
const repository = await openRepository(place)
for (let round = 0; ; round++) {
  const seed = Number(who) * 1_000 + round
  try {
    const own = transcript(30_000, seed + 1)
    const { info } = await snapshotOf(repository, { shared: transcript(60_000, 1 + (round % 3)), own })
    process.send!({ committed: info.id, seed, round })
    if (round % 3 === Number(who) % 3) {
      await repository.forget({ keepLast: 12 })
      // So short that who is only slow is given up, too.
      const { givenUp, packsRemoved } = await repository.prune({ staleMs: 400 })
      process.send!({ givenUp: givenUp.length, packsRemoved })
    }
  } catch (error) {
    if (!isStoreError(error, 'LOCK_LOST')) throw error
    process.send!({ refused: true })
  }
}
