/** Holdfast as the store under trial: through the front door, as any user has it. */
import { SessionStore } from '../../index.js'
import type { Fields, Subject, SubjectOptions } from './subject.js'

export const idempotent = true

export async function openSubject(dir: string, options: SubjectOptions): Promise<Subject> {
  const { durability, checkpoint, maxHoldMs, waitMs } = options
  const store = await SessionStore.open(dir, { durability, checkpoint, lock: { maxHoldMs, waitMs } })
  return {
    async update(keys, change) {
      const [only, second] = keys
      if (only !== undefined && second === undefined) {
        await store.update(only, (entry) => change(only, fieldsOf(entry)))
        return
      }
      await store.withStoreLock((sessions) => {
        for (const key of keys) sessions.set(key, change(key, fieldsOf(sessions.get(key))))
      })
    },
    get: async (key) => fieldsOf(await store.get(key)),
    async append(key, records, id) {
      const { sessionId, seq } = await store.session(key).append([...records], { id })
      return { sessionId, seq }
    },
    read: (key) => store.session(key).read(),
    counters() {
      const { commits, reruns, takeovers } = store.stats()
      return { commits, reruns, takeoversDead: takeovers.dead, takeoversExpired: takeovers.expired }
    },
    async verify() {
      const { damage, files } = await store.verify()
      return {
        damage: damage.map(({ file, code, message, byte }) => `${file}${byte === undefined ? '' : ` at byte ${byte}`}: ${code} ${message}`),
        voidLines: files.reduce((total, file) => total + file.voidLines, 0),
      }
    },
    close: () => store.close(),
  }
}

/** The user's part of an entry. */
function fieldsOf(entry: object | undefined): Fields | undefined {
  if (!entry) return undefined
  const { sessionId: _, createdAt: __, updatedAt: ___, revision: ____, ...fields } = entry as Record<string, string | number>
  return fields
}
