/** The journal: `put` and `del` of one entry each, on top of the snapshot whose hash its header names. */
import { errnoOf, StoreError } from '../../errors.js'
import type { OpenFlags } from '../durable.js'
import { LogFile, type LogPlace } from '../log/log-file.js'
import type { LineMark } from '../log/record.js'
import { type Cell, stringAt, stringEnd } from './cells.js'
import type { Change } from './view.js'

/** cell undefined: deleted. */
export interface Op {
  readonly key: string
  readonly cell: Cell | undefined
}

/** Where the operations that are read go: they wait until it is known whether they build on what is in memory. */
interface Route {
  waiting: Op[]
  take: ((op: Op) => void) | undefined
}

export class Journal {
  readonly log: LogFile
  #route: Route

  private constructor(log: LogFile, route: Route) {
    this.log = log
    this.#route = route
  }

  /** @throws STORE_CORRUPT when it is missing or a symbolic link. */
  static open(place: LogPlace, flags: OpenFlags): Journal {
    if (place.disk.stat(place.path)?.kind === 'symlink') throw symlinkRefused(place.label)
    const route: Route = { waiting: [], take: undefined }
    try {
      const log = LogFile.open(place, flags, 'whole', {
        record(mark, bytes, start) {
          const op = readOp(bytes, start, mark)
          if (op && route.take) route.take(op)
          else if (op) route.waiting.push(op)
        },
      })
      return new Journal(log, route)
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
      throw missing(place.label)
    }
  }

  /** Hash of the snapshot that it builds on. */
  get base(): string | undefined {
    return this.log.chain.header?.base
  }

  /** What it holds is in the snapshot already. */
  skip(): void {
    this.#route.waiting = []
  }

  /** From now on every operation goes there; those that wait go first. */
  follow(take: (op: Op) => void): void {
    this.#route.take = take
    for (const op of this.#route.waiting.splice(0)) take(op)
  }
}

const putPrefix = '{"op":"put","key":'
const delPrefix = '{"op":"del","key":'

export function encodeOp({ key, cell, json, dropped }: Change): string {
  if (cell) return `${putPrefix}${JSON.stringify(key)},"entry":${json}}`
  return `${delPrefix}${JSON.stringify(key)},"sessionId":${JSON.stringify(dropped)}}`
}

function readOp(bytes: Buffer, start: number, mark: LineMark): Op | undefined {
  const keyStart = start + putPrefix.length
  const prefix = bytes.toString('latin1', start, keyStart)
  if (prefix !== putPrefix && prefix !== delPrefix) return undefined
  const found = stringEnd(bytes, keyStart)
  const key = stringAt(bytes, keyStart, found)
  if (prefix === delPrefix) return { key, cell: undefined }
  return { key, cell: { bytes, start: found.end + 1 + ',"entry":'.length, end: start + mark.bodyBytes, entry: undefined } }
}

export function missing(file: string): StoreError {
  return new StoreError('STORE_CORRUPT', `${file} is missing from a store that has been in use.`, {
    details: { file },
    hint: 'Nothing was written: missing is not empty. Restore it together with its sibling from the same moment; `holdfast repair` shows what can be made from the generation before (sessions.prev.*) and from the transcripts.',
  })
}

export function symlinkRefused(file: string): StoreError {
  return new StoreError('STORE_CORRUPT', `${file} is a symbolic link; replacing the file would replace the link.`, {
    details: { file },
    hint: 'Nothing was written. Make the store directory itself the symbolic link, and move the file into it.',
  })
}
