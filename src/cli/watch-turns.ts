/** `holdfast turns --watch`: on a terminal the table, drawn again and again; otherwise one line for each change that was seen.
 *
 *  The store is asked again every `pollMs`; that reads a few small files and takes no lock. What comes and goes between two looks was never
 *  there, except what the transcript tells of it afterwards. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { TurnStatus } from '../index.js'
import { onCtrlC } from './ctrl-c.js'
import { exitCodes } from './exit.js'
import { moment, paint, plain, print, printJson, tableText } from './output.js'
import { factsOf, noneText, rowOf, type Store, type TurnsCommandOptions, turnsHead } from './turn-rows.js'

const pollMs = 200
const redrawMs = 1_000
/** How far back it is looked for what became of a turn that is not there any more. */
const endedMax = 50
const toldMax = 10_000

export async function watchTurns(store: Store, key: string | undefined, options: TurnsCommandOptions): Promise<void> {
  const interrupt = onCtrlC()
  const drawn = process.stdout.isTTY && !options.json
  const changes = new Changes(store, key)
  const restore = drawn ? otherScreen() : () => {}
  try {
    while (!interrupt.signal.aborted) {
      if (drawn) await draw(store, key, options.limit)
      else for (const change of await changes.look()) await printChange(change, options.json)
      await sleep(drawn ? redrawMs : pollMs, undefined, { signal: interrupt.signal }).catch(() => {})
    }
    process.exitCode = exitCodes.interrupted
  } finally {
    restore()
    interrupt.release()
  }
}

/** A screen of its own, where long lines are cut off; what was on the terminal comes back with it, however this ends. */
function otherScreen(): () => void {
  process.stdout.write('\x1b[?1049h\x1b[?7l')
  const restore = () => {
    process.off('exit', restore)
    process.stdout.write('\x1b[?7h\x1b[?1049l')
  }
  process.on('exit', restore)
  return restore
}

/** Over what was drawn before. */
async function draw(store: Store, key: string | undefined, limit: number): Promise<void> {
  const turns = await store.turns({ key, limit })
  const room = Math.max(1, (process.stdout.rows || 24) - 4)
  const more = turns.length > room ? `\n… and ${turns.length - room} more` : ''
  const table = turns.length === 0 ? noneText(key) : tableText(turnsHead, turns.slice(0, room).map(rowOf))
  const title = paint('dim', `holdfast turns${key === undefined ? '' : ` ${plain(key)}`}, ${moment(Date.now())}, until Ctrl-C`)
  await print(`\x1b[H${`${title}\n${table}${more}`.replaceAll('\n', '\x1b[K\n')}\x1b[K\x1b[J`)
}

interface Change {
  readonly change: 'came' | 'changed' | 'left'
  readonly turn: TurnStatus
}

async function printChange({ change, turn }: Change, json: boolean | undefined): Promise<void> {
  await (json ? printJson({ change, ...factsOf(turn) }) : print([change, ...rowOf(turn)].join('\t')))
}

/** What has changed between one look and the next. */
class Changes {
  #store: Store
  #key: string | undefined
  #live = new Map<string, TurnStatus>()
  #told = new Set<string>()
  #sinceMs = Date.now()

  constructor(store: Store, key: string | undefined) {
    this.#store = store
    this.#key = key
  }

  async look(): Promise<Change[]> {
    const found = await this.#store.turns({ key: this.#key, limit: endedMax })
    const live = new Map(found.filter(isLive).map((turn) => [nameOf(turn), turn]))
    const left = [...this.#live].filter(([name]) => !live.has(name)).map(([, turn]) => turn)
    const over = this.#key === undefined ? await this.#overOf(new Set(left.map(({ key }) => key))) : found.filter(isOver)
    const changes = [...this.#left(left, over), ...this.#here(live)]
    this.#live = live
    return changes
  }

  #here(live: ReadonlyMap<string, TurnStatus>): Change[] {
    return [...live].flatMap(([name, turn]): Change[] => {
      const before = this.#live.get(name)
      if (!before) return [{ change: 'came', turn }]
      return stateOf(before) === stateOf(turn) ? [] : [{ change: 'changed', turn }]
    })
  }

  /** As the transcript has it; as it was seen last, where that says nothing. Also what has come and gone unseen. */
  #left(left: readonly TurnStatus[], over: readonly TurnStatus[]): Change[] {
    const ended = over.filter((turn) => turn.since >= this.#sinceMs && !this.#told.has(endOf(turn))).reverse()
    for (const turn of ended) this.#told.add(endOf(turn))
    for (const oldest of this.#told) if (this.#told.size > toldMax) this.#told.delete(oldest)
    const known = new Set(ended.map(nameOf))
    const unknown = left.filter((turn) => !known.has(nameOf(turn)) && !this.#told.has(endOf(turn)))
    return [...ended, ...unknown].map((turn) => ({ change: 'left', turn }))
  }

  async #overOf(keys: ReadonlySet<string>): Promise<TurnStatus[]> {
    const over: TurnStatus[] = []
    for (const key of keys) over.push(...(await this.#store.turns({ key, limit: endedMax })).filter(isOver))
    return over
  }
}

function isLive({ holder }: TurnStatus): boolean {
  return holder !== undefined
}

function isOver(turn: TurnStatus): boolean {
  return !isLive(turn)
}

function nameOf({ key, requestId }: TurnStatus): string {
  return JSON.stringify([key, requestId])
}

function endOf({ key, sessionId, turn }: TurnStatus): string {
  return JSON.stringify([key, sessionId, turn])
}

/** What a change is a change of; not the age. */
function stateOf({ state, turn, position, holder }: TurnStatus): string {
  return JSON.stringify([state, turn, position, holder?.pid, holder?.verdict])
}
