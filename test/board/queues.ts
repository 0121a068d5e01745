/** A directory of queues on the real disk, and boards that look at it. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { onTestFinished } from 'vitest'
import { type Host, systemHost } from '../../src/file/host.js'
import { Board, type CardFacts, leaseNameOf } from '../../src/file/turns/board.js'

export class Queues {
  readonly path: string

  constructor() {
    const root = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-board-'))
    this.path = path.join(root, 'turns')
    onTestFinished(() => fs.rmSync(root, { recursive: true, force: true }))
  }

  /** One that removes an empty queue at once. */
  board(changes: Partial<Host> = {}, idleMs = 0): Board {
    return new Board({ ...systemHost(), ...changes }, this.path, idleMs)
  }

  queue(key = 'k'): string {
    return path.join(this.path, `${leaseNameOf(key)}.queue`)
  }

  /** What stands in a key's queue; undefined where there is none. */
  names(key = 'k'): string[] | undefined {
    return fs.existsSync(this.queue(key)) ? fs.readdirSync(this.queue(key)) : undefined
  }

  left(): string[] {
    return fs.existsSync(this.path) ? fs.readdirSync(this.path) : []
  }
}

export function facts(requestId: string, more: Partial<CardFacts> = {}): CardFacts {
  return { key: 'k', requestId, channelId: undefined, lane: 'main', whenBusy: 'queue', ...more }
}
