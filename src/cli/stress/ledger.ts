/** What a writer says that it did: one file per incarnation, outside the store, one JSON line per event, each written before the next thing
 *  happens. A SIGKILL loses none of them, since they are with the kernel; at most the last line is torn, and then its event did not count:
 *    try   before the call      torn: the call was not made
 *    saw   inside the mutator   torn: it died before it could commit
 *    ack   after the promise    torn: known as not acknowledged, which asks less of the store, never more */
import fs from 'node:fs'
import { join } from 'node:path'

export type LedgerLine = TryLine | SawLine | AckLine | ErrorLine

/** `at`: microseconds of the monotonic clock that all processes of one boot share. */
interface Event {
  /** `<writer>.<incarnation>.<count>`. */
  readonly op: string
  readonly at: number
}

export interface TryLine extends Event {
  readonly is: 'try'
  readonly kind: 'update' | 'append' | 'get'
  readonly keys: readonly string[]
  /** append: how many records. */
  readonly parts?: number
  /** append: with an idempotency id, so that it may be tried again. */
  readonly again?: boolean
}

/** What the entry held when the mutator ran: the update before this one, and how many there had been. */
export interface SawLine extends Event {
  readonly is: 'saw'
  readonly key: string
  readonly last: string | null
  readonly count: number
}

export interface AckLine extends Event {
  readonly is: 'ack'
  /** append */
  readonly sessionId?: string
  readonly seq?: number
  /** get */
  readonly last?: string | null
  readonly count?: number
}

export interface ErrorLine extends Event {
  readonly is: 'err'
  readonly code: string
  readonly kind: string
  readonly effect: 'none' | 'unknown'
  readonly message: string
}

export interface Ledger {
  readonly writer: string
  readonly incarnation: number
  readonly lines: LedgerLine[]
}

/** Monotonic microseconds. */
export function nowUs(): number {
  return Number(process.hrtime.bigint() / 1_000n)
}

export function ledgerPath(dir: string, writer: string, incarnation: number): string {
  return join(dir, `${writer}.${incarnation}.jsonl`)
}

export type LedgerWriter = (line: LedgerLine) => void

export function openLedger(path: string): LedgerWriter {
  const fd = fs.openSync(path, 'ax', 0o600)
  return (line) => {
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`)
    for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done)
  }
}

export function readLedger(dir: string, name: string): Ledger {
  const [writer, incarnation] = name.split('.')
  const texts = fs.readFileSync(join(dir, name), 'utf8').split('\n')
  // What stands after the last newline is nothing, or the torn line of a writer that was killed.
  texts.pop()
  return { writer: writer ?? '', incarnation: Number(incarnation), lines: texts.map((text) => JSON.parse(text) as LedgerLine) }
}

/** All ledgers in some directories, each writer's in the order of its incarnations. */
export function readLedgers(dirs: readonly string[]): Ledger[] {
  const ledgers = dirs.flatMap((dir) =>
    fs
      .readdirSync(dir)
      .filter((name) => name.endsWith('.jsonl'))
      .map((name) => readLedger(dir, name)),
  )
  return ledgers.sort((a, b) => (a.writer < b.writer ? -1 : a.writer > b.writer ? 1 : a.incarnation - b.incarnation))
}
