/** A log as simple as can be: a line is in it if it continues the last line that is. */
import fs from 'node:fs'

export interface Line {
  readonly id: string
  /** The id of the line that it continues. */
  readonly after: string
  readonly token: number
  /** One per acquisition. */
  readonly owner: string
  readonly valid: boolean
}

export function readLines(path: string): Line[] {
  if (!fs.existsSync(path)) return []
  let last = ''
  return fs
    .readFileSync(path, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((text) => {
      const line = JSON.parse(text) as Omit<Line, 'valid'>
      const valid = line.after === last
      if (valid) last = line.id
      return { ...line, valid }
    })
}

/** Follows such a log as it grows. */
export class Follower {
  #fd: number
  #at = 0
  #rest = ''
  #last = ''
  #bytes = Buffer.alloc(1 << 16)

  constructor(path: string) {
    this.#fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_APPEND | fs.constants.O_CREAT)
  }

  /** The id of the last line that is in. */
  last(): string {
    for (;;) {
      const got = fs.readSync(this.#fd, this.#bytes, 0, this.#bytes.length, this.#at)
      if (got === 0) return this.#last
      this.#at += got
      const lines = (this.#rest + this.#bytes.toString('utf8', 0, got)).split('\n')
      this.#rest = lines.pop()!
      for (const text of lines) {
        const { id, after } = JSON.parse(text) as Line
        if (after === this.#last) this.#last = id
      }
    }
  }

  append(line: Omit<Line, 'valid'>): void {
    fs.writeSync(this.#fd, `${JSON.stringify(line)}\n`)
  }
}
