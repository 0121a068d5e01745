/** A progress bar on stderr, where stderr is a terminal; nothing anywhere else. */
import { SingleBar } from 'cli-progress'

export interface Progress {
  /** `done` of `total`, in whatever unit the caller counts. */
  at(done: number, total: number): void
  stop(): void
}

export function progressBar(what: string): Progress {
  if (!process.stderr.isTTY) return { at() {}, stop() {} }
  const bar = new SingleBar({
    format: `${what} [{bar}] {percentage}%  {eta_formatted} left`,
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
    fps: 10,
    barsize: 30,
  })
  let started = false
  return {
    at(done, total) {
      if (!started) bar.start(total, done)
      else if (bar.getTotal() !== total) bar.setTotal(total)
      started = true
      bar.update(done)
    },
    stop: () => bar.stop(),
  }
}
