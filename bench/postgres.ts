/** A store in PostgreSQL against one INSERT … RETURNING per commit with plain pg, on a server of its own with fsync on. Client and server share the
 *  machine, so a round trip costs next to nothing, and what the statement does counts in full. */
import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { openPostgres } from '../src/postgres.js'
import { freePort, start, stop } from '../test/postgres/server.js'
import { messageRecord } from './harness/data.js'
import { alternate, type Contestant, named, ratio, rowOf, sliceAsync } from './harness/measure.js'
import { reachesShare } from './harness/verdict.js'
import type { Workload } from './harness/workload.js'

const together = 64
const oneByOne = `${together} appends, one after another`
const atOnce = `${together} appends at once, a session each`
const required = 5

export const postgres: Workload = {
  name: 'postgres',
  title: 'A store in PostgreSQL, on this machine, fsync on',
  async run(bench) {
    const data = join(bench.dir, 'data')
    // The server may have to run as another user.
    for (const dir of [bench.dir, join(bench.dir, '..')]) chmodSync(dir, 0o755)
    const server = await start(data, await freePort(), { fsync: 'on' }).catch((error: Error) => error)
    if (server instanceof Error) {
      bench.note(`no server: ${server.message}`)
      return { rows: [], verdicts: [] }
    }
    const pool = new pg.Pool({ connectionString: server.url })
    const store = await openPostgres(server.url, { schema: 'bench' })
    try {
      await pool.query('create table floor (id bigint generated always as identity primary key, key text, body text)')
      const record = messageRecord(1)
      const body = JSON.stringify(record)
      const sessions = Array.from({ length: together }, (_, n) => store.session(`k${n}`))
      const contestant = (name: string, work: () => Promise<unknown>): Contestant => ({
        name,
        slice: (sliceMs) => sliceAsync(work, sliceMs),
      })
      const contestants = [
        contestant('floor: INSERT … RETURNING with pg', () =>
          pool.query('insert into floor (key, body) values ($1, $2) returning id', ['k', body]),
        ),
        contestant('append', () => sessions[0]!.append(record)),
        contestant(oneByOne, async () => {
          for (const session of sessions) await session.append(record)
        }),
        contestant(atOnce, () => Promise.all(sessions.map((session) => session.append(record)))),
        contestant(`${together} appends at once, one session`, () => Promise.all(sessions.map(() => sessions[1]!.append(record)))),
        contestant('update', () => store.update('k0', (entry) => ({ n: Number(entry?.n ?? 0) + 1 }))),
        contestant('empty turn', () => store.runTurn('k2', { input: record }, () => {})),
        contestant('tail(50)', () => sessions[0]!.tail(50)),
      ]
      for (const { slice } of contestants) await slice(bench.sliceMs)
      const all = await alternate(contestants, bench.rounds, bench.sliceMs)
      const [single, group] = [named(all, oneByOne)!, named(all, atOnce)!]
      const times = 1 / ratio(group, single)
      return {
        rows: all.map((one) => rowOf(one, 'ms')),
        verdicts: [
          reachesShare('a durable append', named(all, 'append')!, all[0]!, 0.8),
          {
            ...reachesShare(atOnce, group, single, required),
            ratio: times.toFixed(2),
            required: `${required} x ${oneByOne}`,
            ok: times >= required,
          },
        ],
      }
    } finally {
      await store.close()
      await pool.end()
      await stop(data)
    }
  },
}
