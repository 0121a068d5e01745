/** What time it is at the server, for entries that a mutator makes here: the one clock that all clients share. Never behind it, and ahead of it
 *  by at most the time that one question took. */
export class ServerClock {
  #serverMs = 0
  #askedAtMs = 0
  #tookMs = Number.POSITIVE_INFINITY

  /** Takes note of an answer.
   *  @param askedAtMs  when it was asked, on this process's clock */
  note(serverMs: number, askedAtMs: number): void {
    if (!Number.isFinite(serverMs)) return
    const nowMs = performance.now()
    const tookMs = nowMs - askedAtMs
    // The two clocks drift: the best answer of the last minute counts.
    if (tookMs > this.#tookMs && nowMs - this.#askedAtMs < 60_000) return
    this.#serverMs = serverMs
    this.#askedAtMs = askedAtMs
    this.#tookMs = tookMs
  }

  nowMs(): number {
    return Math.floor(this.#serverMs + (performance.now() - this.#askedAtMs))
  }
}
