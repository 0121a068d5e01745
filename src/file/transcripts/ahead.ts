/** Which log the calls of a key went to that have been submitted and not answered: who comes after them goes there, too, and is moved behind
 *  them when it turns out to be closed. */
export interface Mark<Log> {
  readonly log: Log
  calls: number
}

export class Ahead<Log> {
  #marks = new Map<string, Mark<Log>>()

  logOf(key: string): Log | undefined {
    return this.#marks.get(key)?.log
  }

  /** `leave` must follow. */
  enter(key: string, log: Log): Mark<Log> {
    let mark = this.#marks.get(key)
    if (mark?.log !== log) {
      mark = { log, calls: 0 }
      this.#marks.set(key, mark)
    }
    mark.calls++
    return mark
  }

  leave(key: string, mark: Mark<Log>): void {
    if (--mark.calls === 0 && this.#marks.get(key) === mark) this.#marks.delete(key)
  }
}
