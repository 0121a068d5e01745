/** A process with a store that runs turns: each begins, says so, and goes on until it is told to end, or its signal aborts. */
import { once } from 'node:events'
import { SessionStore, type TurnOptions } from '../../src/index.js'

export interface Begin {
  readonly key: string
  readonly options: TurnOptions
  /** It ends without being told to. */
  readonly short?: boolean
}

export type ToTurns = { readonly begin: Begin } | { readonly end: string }
export type FromTurns = { readonly is: 'ready' } | { readonly is: 'begun' | 'over'; readonly request: string; readonly outcome?: string }

const ends = new EventTarget()
const say = (message: FromTurns) => process.send!(message)

async function run(store: SessionStore, { key, options, short }: Begin): Promise<void> {
  const request = options.requestId!
  let outcome: string
  try {
    const result = await store.runTurn(key, options, async (turn) => {
      await turn.append({ type: 'message', message: { role: 'assistant', content: `working for ${request}` } })
      say({ is: 'begun', request })
      if (!short) await Promise.race([once(ends, request), once(turn.signal, 'abort')])
      return request
    })
    outcome = result.outcome
  } catch (error) {
    outcome = (error as { code?: string }).code ?? String(error)
  }
  say({ is: 'over', request, outcome })
}

const store = await SessionStore.open(process.argv[2]!, { durability: 'process' })
process.on('message', (message: ToTurns) => {
  if ('end' in message) ends.dispatchEvent(new Event(message.end))
  else void run(store, message.begin)
})
say({ is: 'ready' })
