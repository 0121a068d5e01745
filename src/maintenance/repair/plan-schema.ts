/** A plan that comes from a file is checked before anything is done on its word. */
import { z } from 'zod'
import { StoreError } from '../../errors.js'
import type { RepairPlan } from '../../repair-plan.js'

const place = z.number().int().nonnegative()
const range = z.object({ from: place, to: place })
/** Within the store, at the places where a repair has something to do. */
const file = z
  .string()
  .regex(/^(?:[a-z.]+|(?:transcripts|archive|locks|quarantine)(?:\/[^/\0]+){0,4})$/, 'no file of a store')
  .refine((path) => !path.split('/').some((part) => part === '..' || part === '.'), 'no file of a store')

const work = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('rewrite-log'),
    header: z.record(z.string(), z.unknown()),
    headerSeq: place,
    prefix: place,
    foreign: z.array(z.tuple([place, place, place])),
    keep: z.array(z.tuple([place, place])),
    upTo: place,
    last: z.object({ seq: z.number().int(), crc: place }),
  }),
  z.object({
    kind: z.literal('rebuild-metadata'),
    how: z.enum(['exact', 'anew']),
    hash: z.string(),
    seq: place,
  }),
  z.object({ kind: z.literal('remake-format'), text: z.string() }),
  z.object({ kind: z.literal('finish-work') }),
  z.object({ kind: z.literal('attach-transcript'), entry: z.string() }),
  z.object({ kind: z.literal('archive-transcript') }),
  z.object({ kind: z.literal('restore-transcript'), from: file }),
  z.object({ kind: z.literal('begin-anew'), header: z.record(z.string(), z.unknown()), headerSeq: place }),
  z.object({ kind: z.literal('move-aside'), names: z.array(z.string().regex(/^(?!\.{1,2}$)[^/\0]+$/)) }),
  z.object({ kind: z.literal('set-permissions'), mode: z.number().int() }),
])

const action = z.object({
  id: z.number().int().positive(),
  kind: z.string(),
  file,
  key: z.string().optional(),
  sessionId: z
    .string()
    .regex(/^[0-9a-f-]{36}$/)
    .optional(),
  does: z.string(),
  recovers: z.looseObject({}),
  loses: z.looseObject({}),
  quarantines: z.array(z.object({ file, ranges: z.array(range), bytes: place })),
  requires: z.array(z.object({ file, bytes: place.optional(), crc: place.optional(), mayGrow: z.boolean() })),
  work,
})

const plan = z.looseObject({
  version: z.literal(1),
  planId: z.string(),
  storeId: z.string().optional(),
  findings: z.array(z.looseObject({ file: z.string(), meaning: z.string() })),
  actions: z.array(action),
})

/** @throws INVALID_OPTION  it is no plan. Effect none. */
export function assertPlan(value: unknown): asserts value is RepairPlan {
  const checked = plan.safeParse(value)
  if (checked.success) return
  const issue = checked.error.issues[0]
  throw new StoreError('INVALID_OPTION', `that is no plan of a repair: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}.`, {
    details: { option: 'plan', issues: checked.error.issues.slice(0, 10) },
    hint: 'Nothing was changed. `planRepair` and `holdfast repair --json` make one.',
  })
}
