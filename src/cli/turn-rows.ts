/** A turn as a row of a table, or as JSON. */
import type { SessionStore, TurnStatus } from '../index.js'
import type { CommonOptions } from './options.js'
import { durationText, paint, plain } from './output.js'

export interface TurnsCommandOptions extends CommonOptions {
  readonly limit: number
  readonly watch?: boolean
}

export const turnsHead = ['KEY', 'TURN', 'STATE', 'POSITION', 'AGE', 'REQUEST', 'CHANNEL', 'LANE', 'SESSION ID', 'HOLDER', 'VERDICT']

export type Store = SessionStore<Record<string, unknown>>

export function noneText(key: string | undefined): string {
  return key === undefined ? 'No turn is active or queued.' : `There is no turn of "${plain(key)}".`
}

/** Every field is there; what is not known is null. */
export function factsOf({ key, requestId, lane, state, since, ageMs, ...known }: TurnStatus): object {
  const { sessionId = null, turn = null, channelId = null, position = null, holder = null } = known
  return { key, sessionId, turn, requestId, channelId, lane, state, position, since, ageMs, holder }
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
