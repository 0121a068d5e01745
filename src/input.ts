/** What callers hand in, checked before anything else happens. */
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { z } from 'zod'
import type { CompactBytesOptions, CompactOptions, RestoreOptions } from './archives.js'
import type { CheckedMaintenance, EncodedRecord } from './backend.js'
import { StoreError } from './errors.js'
import { retentionRules } from './maintenance/retention/rules.js'
import type { AppendOptions, ReadOptions, StoreOptions, TailOptions, TurnOptions, TurnsOptions, WaitOptions } from './types.js'
import type { MaintenanceOptions, RetainOptions } from './upkeep.js'

export const keyCharactersMax = 512
export const recordsPerCallMax = 1_000
export const recordBytesDefault = 16 << 20
/** What one call may append, unless a single record may be larger. */
const callBytesMax = 64 << 20
export const idCharactersMax = 256

const millisecondsMax = 3_600_000
const dayMs = 86_400_000
const wait = z.object({
  waitMs: z.number().min(0).max(millisecondsMax).optional(),
  signal: z.instanceof(AbortSignal).optional(),
})
const seq = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const text = z.string().min(1).max(idCharactersMax)
const append = wait.extend({
  id: text.optional(),
  expectedSeq: seq.optional(),
  expectedSessionId: text.optional(),
  requestId: z.string().optional(),
  channelId: z.string().optional(),
})
/** Longer than a legal turn: whoever waits for one may see its end (F10). */
const turnWaitMsDefault = 1_200_000
const maxTurnMsDefault = 1_020_000
const turn = z.strictObject({
  signal: z.instanceof(AbortSignal).optional(),
  waitMs: z.number().min(0).max(dayMs).default(turnWaitMsDefault),
  requestId: text.optional(),
  channelId: text.optional(),
  lane: z.string().default('main'),
  whenBusy: z.enum(['queue', 'reject', 'coalesce', 'interrupt']).default('queue'),
  input: z.unknown().optional(),
  maxTurnMs: z.number().int().min(100).max(dayMs).default(maxTurnMsDefault),
})
const turns = z.strictObject({ key: z.string().optional(), limit: seq.optional() })
const read = z.object({
  after: seq.optional(),
  limit: seq.optional(),
  signal: z.instanceof(AbortSignal).optional(),
  compacted: z.boolean().optional(),
})
const tail = z.strictObject({ compacted: z.boolean().optional() })
const keepLastDefault = 20
const keepLastMax = 1_000_000
const isFunction = (value: unknown): value is (...of: never[]) => unknown => typeof value === 'function'
const compactBytes = wait.extend({
  minBytes: seq.min(1).optional(),
  onProgress: z.custom<CompactBytesOptions['onProgress']>(isFunction, 'must be a function').optional(),
})
const restore = wait.extend({
  key: z.string(),
  entry: z.custom<object>((value) => typeof value === 'object' && value !== null && !Array.isArray(value), 'must be an object').optional(),
  onProgress: z.custom<RestoreOptions['onProgress']>(isFunction, 'must be a function').optional(),
})
const compact = wait.extend({
  keepLast: z.number().int().min(0).max(keepLastMax).default(keepLastDefault),
  summarize: z.custom<CompactOptions['summarize']>(isFunction, 'must be a function'),
  cutBefore: z.custom<CompactOptions['cutBefore']>(isFunction, 'must be a function').optional(),
  requestId: z.string().optional(),
  channelId: z.string().optional(),
})

const protect = z.custom<(key: string, entry: unknown) => boolean>((value) => typeof value === 'function', 'must be a function').optional()
const retain = z.strictObject({
  rules: retentionRules,
  dryRun: z.boolean().optional(),
  protect,
  onProgress: z.custom<(done: number, total: number) => void>((value) => typeof value === 'function', 'must be a function').optional(),
  signal: z.instanceof(AbortSignal).optional(),
})
const maintenance = z.strictObject({
  everyMs: z.number().min(100).max(dayMs).default(600_000),
  jitter: z.number().min(0).max(1).default(0.2),
  budgetMs: z.number().min(1).max(10_000).default(20),
  pauseMs: z.number().min(0).max(60_000).default(60),
  leaseMs: z.number().int().min(1_000).max(millisecondsMax).default(30_000),
  retention: retentionRules.optional(),
  protect,
  compactBytes: z
    .strictObject({ voidShare: z.number().min(0.05).max(1).optional(), minBytes: z.number().int().min(1).optional() })
    .optional(),
  compressArchives: z.boolean().default(true),
  verifyShare: z.number().min(0).max(1).default(0.05),
  onEvent: z.custom<NonNullable<MaintenanceOptions['onEvent']>>((value) => typeof value === 'function', 'must be a function').optional(),
})

const isSchema = (value: unknown) =>
  (typeof value === 'object' || typeof value === 'function') &&
  value !== null &&
  typeof (value as Partial<StandardSchemaV1>)['~standard']?.validate === 'function'

const open = z.strictObject({
  entry: z.custom<StandardSchemaV1>(isSchema, 'must be a Standard Schema (zod, valibot, arktype…)').optional(),
  durability: z.enum(['power', 'process']).default('power'),
  checkpoint: z.enum(['auto', 'always']).default('auto'),
  lock: z
    .strictObject({
      waitMs: z.number().min(0).max(millisecondsMax).default(10_000),
      maxHoldMs: z.number().int().min(10).max(millisecondsMax).default(15_000),
    })
    .prefault({}),
  readOnly: z.boolean().default(false),
  repair: z.boolean().default(false),
  recordBytesMax: z
    .number()
    .int()
    .min(1 << 10)
    .max(256 << 20)
    .default(recordBytesDefault),
  lanes: z.record(z.string(), z.number().int().min(1)).optional(),
  closeMs: z.number().min(0).max(dayMs).default(30_000),
  maintenance: maintenance.optional(),
})

export type CheckedOptions = z.infer<typeof open>

export function checkWith<S extends z.ZodType>(schema: S, value: unknown, what: string): z.infer<S> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const path = issue?.path.join('.')
  throw new StoreError('INVALID_OPTION', `${what}${path ? `.${path}` : ''}: ${issue?.message ?? 'not valid'}.`, {
    details: { option: path, issues: result.error.issues },
    hint: 'Nothing was done.',
  })
}

export function checkOptions(options: StoreOptions<StandardSchemaV1 | undefined>): CheckedOptions {
  return checkWith(open, options, 'options')
}

const noOptions: WaitOptions = {}

export function checkWait(options: WaitOptions | undefined): WaitOptions {
  return options === undefined ? noOptions : checkWith(wait, options, 'options')
}

export function checkAppend(options: AppendOptions | undefined): AppendOptions {
  return options === undefined ? noOptions : checkWith(append, options, 'options')
}

export function checkRead(options: ReadOptions | undefined): ReadOptions {
  return options === undefined ? {} : checkWith(read, options, 'options')
}

/** What `runTurn` takes, checked, its input as JSON. */
export function checkTurn(options: TurnOptions | undefined, recordBytesMax: number) {
  const { input, ...rest } = checkWith(turn, options ?? {}, 'options')
  const { requestId, channelId, signal } = rest
  return { ...rest, requestId, channelId, signal, records: input === undefined ? undefined : encodeRecords(input, recordBytesMax) }
}

export function checkTurns(options: TurnsOptions | undefined): TurnsOptions {
  return options === undefined ? {} : checkWith(turns, options, 'options')
}

export function checkRetain(options: RetainOptions | undefined): RetainOptions {
  return checkWith(retain, options, 'options')
}

export function checkMaintenance(options: MaintenanceOptions | undefined): CheckedMaintenance {
  return checkWith(maintenance, options ?? {}, 'options')
}

export function checkCompact(options: CompactOptions) {
  return checkWith(compact, options, 'options')
}

export function checkCompactBytes(options: CompactBytesOptions | undefined): CompactBytesOptions {
  return options === undefined ? {} : checkWith(compactBytes, options, 'options')
}

export function checkRestore(options: RestoreOptions): RestoreOptions {
  const of = checkWith(restore, options, 'options')
  checkKey(of.key)
  return of
}

export function checkTail(count: unknown, options: TailOptions | undefined): TailOptions {
  checkCount(count)
  return options === undefined ? {} : checkWith(tail, options, 'options')
}

function checkCount(count: unknown): number {
  if (typeof count === 'number' && Number.isSafeInteger(count) && count >= 0) return count
  throw new StoreError('INVALID_OPTION', `tail takes a whole number of records, not ${String(count)}.`, { hint: 'Nothing was done.' })
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for.
const control = /[\u0000-\u001f\u007f-\u009f]/

export function checkKey(key: unknown): asserts key is string {
  const why =
    typeof key !== 'string'
      ? `is a ${typeof key}, not a string`
      : key.length === 0
        ? 'is empty'
        : key.length > keyCharactersMax
          ? `has ${key.length} characters, more than ${keyCharactersMax}`
          : control.test(key)
            ? 'has a control character'
            : !key.isWellFormed()
              ? 'has half a surrogate pair'
              : undefined
  if (why === undefined) return
  throw new StoreError('INVALID_KEY', `the session key ${why}.`, {
    details: { key: typeof key === 'string' ? key.slice(0, 64) : undefined },
    hint: `Nothing was done. Keys have 1 to ${keyCharactersMax} characters and no control characters.`,
  })
}

/** JSON text of each record. All are looked at before anything is written. */
export function encodeRecords(records: unknown, recordBytesMax: number): EncodedRecord[] {
  if (!Array.isArray(records)) return [{ json: encodeRecord(records, 0, recordBytesMax) }]
  if (records.length === 0 || records.length > recordsPerCallMax)
    throw new StoreError('INVALID_RECORD', `append takes 1 to ${recordsPerCallMax} records, not ${records.length}.`, {
      hint: 'Nothing was written.',
    })
  let characters = 0
  // Not the array's own `map`, which leaves out what is missing from it.
  const encoded = Array.from(records as unknown[], (record, at) => {
    const json = encodeRecord(record, at, recordBytesMax)
    characters += json.length
    return { json }
  })
  const bytesMax = Math.max(callBytesMax, recordBytesMax)
  if (characters > bytesMax)
    throw new StoreError('RECORD_TOO_LARGE', `the ${records.length} records of one call have more than ${bytesMax} bytes.`, {
      details: { records: records.length, bytes: characters, bytesMax },
      hint: 'Nothing was written. A call is one write, all or nothing: append them in several calls.',
    })
  return encoded
}

const hasReserved = (record: object) => Object.hasOwn(record, '$') || Object.hasOwn(record, '$$')

function refuse(at: number, why: string, cause?: unknown): never {
  throw new StoreError('INVALID_RECORD', `record ${at} ${why}.`, {
    details: { index: at },
    cause,
    hint: 'Nothing was written. A record is a JSON object without top-level fields named $ or $$.',
  })
}

function encodeRecord(record: unknown, at: number, recordBytesMax: number): string {
  if (typeof record !== 'object' || record === null || Array.isArray(record))
    refuse(at, `is ${record === null ? 'null' : Array.isArray(record) ? 'an array' : `a ${typeof record}`}, not an object`)
  if (hasReserved(record)) refuse(at, 'has a field named $ or $$, which are the log’s own')
  const json = jsonOf(record, at)
  if (json === undefined || json[0] !== '{') refuse(at, 'does not become an object as JSON')
  if (typeof (record as { toJSON?: unknown }).toJSON === 'function' && hasReserved(JSON.parse(json) as object))
    refuse(at, 'becomes an object with a field named $ or $$')
  if (json.length * 3 > recordBytesMax) assertFits(json, at, recordBytesMax)
  return json
}

function jsonOf(record: object, at: number): string | undefined {
  try {
    return JSON.stringify(record)
  } catch (error) {
    return refuse(at, `cannot be written as JSON: ${(error as Error).message}`, error)
  }
}

function assertFits(json: string, at: number, recordBytesMax: number): void {
  const bytes = Buffer.byteLength(json)
  if (bytes <= recordBytesMax) return
  throw new StoreError('RECORD_TOO_LARGE', `record ${at} has ${bytes} bytes as JSON, more than ${recordBytesMax}.`, {
    details: { index: at, bytes, recordBytesMax },
    hint: 'Nothing was written. Keep large payloads in files of their own and append a reference, or raise recordBytesMax.',
  })
}
