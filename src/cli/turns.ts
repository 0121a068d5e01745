/** `holdfast turns [KEY]`: which conversations are busy, with what, since when, and who waits behind it; of one key also what was before.
 *  Looks only. `--watch` is in watch-turns.ts. */
import type { Command } from 'commander'
import type { SessionStore, TurnStatus } from '../index.js'
import { type CommonOptions, storeCommand, unknownKey, wholeNumber, withStoreToRead } from './options.js'
import { durationText, paint, plain, printJson, printTable, remark } from './output.js'
import { watchTurns } from './watch-turns.js'

export interface TurnsCommandOptions extends CommonOptions {
  readonly limit: number
  readonly watch?: boolean
}

export const turnsHead = ['KEY', 'TURN', 'STATE', 'POSITION', 'AGE', 'REQUEST', 'CHANNEL', 'LANE', 'SESSION ID', 'HOLDER', 'VERDICT']

export function turnsCommand(): Command {
  return storeCommand('turns', 'Show the turns that are active or queued, of all processes; of one key also those that are over', [
    'holdfast turns',
    'holdfast turns agent:main:main --limit 5',
    'holdfast turns --watch',
    'holdfast turns --json | jq -r \'select(.state == "active" and .ageMs > 600000) | .key\'',
  ])
    .argument('[key]', 'only this session key, exactly')
    .option('-n, --limit <count>', 'with a key: at most so many that are over', wholeNumber(0, 1_000_000), 50)
    .option('-w, --watch', 'go on until Ctrl-C: a table on a terminal, one line a change in a pipe or with --json')
    .addHelpText(
      'after',
      `
Position 0 is active, 1 is next. The age is that of the state. A turn whose process has died is shown as interrupted until the next one
begins. Verdicts are those of \`holdfast locks\`.`,
    )
    .action(turns)
}

async function turns(key: string | undefined, options: TurnsCommandOptions): Promise<void> {
  await withStoreToRead(options.store, async (store) => {
    const listed = await store.turns({ key, limit: options.limit })
    if (key !== undefined && listed.length === 0 && !(await store.get(key))) throw unknownKey(key, options.store)
    if (options.watch) return watchTurns(store, key, options)
    if (options.json) {
      for (const turn of listed) await printJson(factsOf(turn))
      return
    }
    await printTable(turnsHead, listed.map(rowOf))
    if (listed.length === 0) remark(noneText(key))
  })
}

export type Store = SessionStore<Record<string, unknown>>

export function noneText(key: string | undefined): string {
  return key === undefined ? 'No turn is active or queued.' : `There is no turn of "${plain(key)}".`
}

/** Every field is there; what is not known is null. */
export function factsOf(turn: TurnStatus): object {
  const { sessionId, channelId, position, holder } = turn
  return {
    ...turn,
    sessionId: sessionId ?? null,
    turn: turn.turn ?? null,
    channelId: channelId ?? null,
    position: position ?? null,
    holder: holder ?? null,
  }
}

const styles: Record<string, 'green' | 'yellow' | 'red'> = { active: 'green', completed: 'green', interrupted: 'yellow', failed: 'red' }
const verdicts: Record<string, 'green' | 'yellow' | 'red'> = { alive: 'green', unknown: 'yellow', dead: 'red', expired: 'red' }

export function rowOf({ key, turn, state, position, ageMs, requestId, channelId, lane, sessionId, holder }: TurnStatus): string[] {
  return [
    plain(key),
    turn === undefined ? '-' : String(turn),
    styles[state] ? paint(styles[state], state) : state,
    position === undefined ? '-' : String(position),
    durationText(ageMs),
    plain(requestId),
    channelId === undefined ? '-' : plain(channelId),
    plain(lane),
    sessionId ?? '-',
    holderText(holder),
    holder ? `${paint(verdicts[holder.verdict] ?? 'yellow', holder.verdict)}: ${plain(holder.why)}` : '-',
  ]
}

export function holderText(holder: TurnStatus['holder']): string {
  return holder ? `pid ${holder.pid} on ${plain(holder.host)}` : '-'
}
