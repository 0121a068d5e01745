/** A process with a store that asks for turns as it is told, and stays inside them until it is told to go. */
import { isStoreError, SessionStore } from '../../src/index.js'
import type { Turn } from '../../src/types.js'
import type { FromTurnPuppet, ToTurnPuppet } from './turns-puppet.js'

process.on('disconnect', () => process.exit())
const { dir, ...options } = JSON.parse(process.argv[2] ?? '{}') as { readonly dir: string }
const store = await SessionStore.open(dir, options)
const inside = new Map<number, { readonly turn: Turn; go(): void }>()
const say = (message: FromTurnPuppet) => process.send?.(message)
const texts = (records: readonly { record: Record<string, unknown> }[]) => records.map(({ record }) => String(record.text))

/** A turn for what others have left, behind the one that was asked for, does not stay. */
function stays(id: number) {
  return (turn: Turn) =>
    inside.has(id)
      ? passes(turn)
      : new Promise<string>((resolve) => {
          inside.set(id, { turn, go: () => resolve(`turn ${turn.turn}`) })
          say({ is: 'inside', id, turn: turn.turn, attempt: turn.attempt, inputs: texts(turn.inputs) })
        })
}

async function passes(turn: Turn): Promise<string> {
  await turn.append({ text: `re: ${texts(turn.inputs).join('+')}` })
  return `turn ${turn.turn}`
}

async function obey(message: ToTurnPuppet): Promise<void> {
  const { id } = message
  try {
    if (message.do === 'run') {
      const { value, ...result } = await store.runTurn(message.key, message.options, message.stays ? stays(id) : passes)
      return void say({ is: 'done', id, result: { ...result, value } })
    }
    const at = inside.get(message.of)!
    if (message.do === 'go') at.go()
    else if (message.do === 'append') say({ is: 'done', id, result: await at.turn.append({ text: message.text }) })
    else say({ is: 'done', id, result: texts(await at.turn.pending()) })
  } catch (error) {
    say({ is: 'failed', id, code: isStoreError(error) ? error.code : String(error), effect: isStoreError(error) ? error.effect : 'none' })
  }
}

process.on('message', (message: ToTurnPuppet) => void obey(message))
say({ is: 'ready' })
