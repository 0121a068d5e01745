/** What rules have to look like, whether a program or a file brings them. */
import { z } from 'zod'

const ageMsMax = 10 * 366 * 86_400_000
const age = z.number().min(0).max(ageMsMax)
const whole = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)

const limits = {
  maxAgeMs: age.nullable().optional(),
  maxCount: whole.nullable().optional(),
  maxBytes: whole.nullable().optional(),
}

const archives = z
  .strictObject({ maxAgeMs: age.optional(), maxBytes: whole.optional(), keepLast: whole.optional(), quarantine: z.boolean().optional() })
  // Else it looks as if it said how many are to be left.
  .refine(({ maxAgeMs, maxBytes }) => maxAgeMs !== undefined || maxBytes !== undefined, {
    message: 'needs maxAgeMs or maxBytes: keepLast and quarantine only say what those apply to',
  })

export const retentionRules = z.strictObject({
  ...limits,
  prefixes: z.record(z.string().min(1), z.strictObject(limits)).optional(),
  archives: archives.optional(),
})
