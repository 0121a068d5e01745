/** A client of a store in a database, in a process of its own: swaps values, reads and appends without a pause, and writes down what it begins and
 *  what it is told. `node client-program.js <url> <schema> <name> <seed>`; ends when its stdin does. */
import fs from 'node:fs'
import { seededRandom } from '../../src/cli/stress/random.js'
import { systemClock } from '../../src/clock.js'
import { isStoreError } from '../../src/errors.js'
import { openPostgres } from '../../src/postgres.js'

export interface Begun {
  readonly begun: string
  readonly does: 'swap' | 'read' | 'append'
  readonly key: string
  readonly at: number
}

/** found: the value before. seq, session: of an append. */
export interface Done {
  readonly done: string
  readonly at: number
  readonly found?: string | null
  readonly seq?: number
  readonly session?: string
  /** It was refused: whether it may have happened. */
  readonly effect?: string
  readonly code?: string
}

const keys = ['a', 'b', 'c', 'd']

async function main(url: string, schema: string, name: string, seed: string): Promise<void> {
  const random = seededRandom(seed)
  const store = await openPostgres(url, { schema, connections: 2, waitMs: 8_000 })
  let open = true
  process.stdin.on('end', () => {
    open = false
  })
  process.stdin.resume()
  const say = (line: object) => fs.writeSync(1, `${JSON.stringify(line)}\n`)
  for (let n = 0; open; n++) {
    const key = random.pick(keys)
    const operation = `${name}.${n}`
    const does = random.pick(['swap', 'swap', 'read', 'append'] as const)
    say({ begun: operation, does, key, at: systemClock.monotonicMs() } satisfies Begun)
    try {
      const answer: Partial<Done> = {}
      if (does === 'read') Object.assign(answer, { found: swappedIn(await store.get(key)) })
      if (does === 'swap') {
        let found: string | null = null
        await store.update(key, (entry) => {
          found = swappedIn(entry)
          return { value: operation }
        })
        Object.assign(answer, { found })
      }
      if (does === 'append') {
        const { seq, sessionId: session } = await store.session(key).append({ operation })
        Object.assign(answer, { seq, session })
      }
      say({ done: operation, at: systemClock.monotonicMs(), ...answer })
    } catch (error) {
      if (!isStoreError(error)) throw error
      say({ done: operation, at: systemClock.monotonicMs(), effect: error.effect, code: error.code })
    }
  }
  await store.close()
}

function swappedIn(entry: object | undefined): string | null {
  return ((entry as { value?: string } | undefined)?.value ?? null) as string | null
}

const [url, schema, name, seed] = process.argv.slice(2)
await main(url!, schema!, name!, seed!)
