/** A store on a disk that has stopped to answer: an update never ends. */
import type { Subject } from '../../src/cli/stress/subject.js'

export async function openSubject(): Promise<Subject> {
  return {
    update: () => new Promise(() => {}),
    append: () => new Promise(() => {}),
    get: async () => undefined,
    async *read() {},
    counters: () => ({ commits: 0, reruns: 0, takeoversDead: 0, takeoversExpired: 0 }),
    verify: async () => ({ damage: [], voidLines: 0 }),
    close: async () => {},
  }
}
