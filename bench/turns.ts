/** Turns against the same appends without turns, and what a turn around an empty function costs by itself. */
import { join } from 'node:path'
import { SessionStore } from '../src/index.js'
import { messageRecord, sessionKey, transcriptLine } from './harness/data.js'
import { floorSync } from './harness/floor.js'
import { alternate, type Contestant, median, named, rowOf, sliceAsync } from './harness/measure.js'
import { isBelow, staysWithin } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

const together = 64
const question = messageRecord(0)
const answer = messageRecord(1)
const emptyTurn = 'empty turn'
const oneAppend = 'one append'

export const turns: Workload = {
  name: 'turns',
  title: 'turns with an input and an answer, on one key and on 64 at once, against the same two appends without a turn; and empty ones',
  async run(bench) {
    const stores: SessionStore[] = []
    const open = async (name: string, durability: 'power' | 'process') => {
      const store = await SessionStore.open(join(bench.dir, name), { durability, lanes: { main: together } })
      stores.push(store)
      return store
    }
    const power = await open('power', 'power')
    const process = await open('process', 'process')
    const all = await alternate(
      [
        floorSync(join(bench.dir, 'floor'), transcriptLine(1)),
        ...['power', 'process'].flatMap((durability) => contestantsOf(durability === 'power' ? power : process, durability)),
      ],
      bench.rounds,
      bench.sliceMs * 2,
    )
    for (const store of stores) await store.close()
    const commits = staysWithin(
      'empty turn under 3 durable commits',
      named(all, `${emptyTurn}, power`)!,
      named(all, `${oneAppend}, power`)!,
      3,
    )
    const empty = median(named(all, `${emptyTurn}, process`)!.rounds) / 1_000
    return {
      rows: all.map((one) => rowOf(one, 'us', one.name.includes('64 keys') ? together : 1)),
      verdicts: [commits, isBelow('empty turn under 1 ms, durability process', empty, 1, 'ms')],
    }
  },
}

function contestantsOf(store: SessionStore, durability: string): Contestant[] {
  const keys = Array.from({ length: together }, (_, index) => sessionKey(index))
  const turn = (key: string) => store.runTurn(key, { input: question }, (active) => active.append(answer))
  const appends = async (key: string) => {
    await store.session(key).append(question)
    await store.session(key).append(answer)
  }
  const contestant = (name: string, operation: () => unknown): Contestant => ({
    name: `${name}, ${durability}`,
    slice: (sliceMs) => sliceAsync(operation, sliceMs),
  })
  return [
    contestant(oneAppend, () => store.session('appended').append(answer)),
    contestant(emptyTurn, () => store.runTurn('empty', {}, () => {})),
    contestant('two appends, one key', () => appends('appended')),
    contestant('turn, one key', () => turn('turned')),
    contestant('two appends, 64 keys', () => Promise.all(keys.map((key) => appends(`${key}:appended`)))),
    contestant('turns, 64 keys', () => Promise.all(keys.map((key) => turn(key)))),
  ]
}
