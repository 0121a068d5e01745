/** Retention rules on the command line, or in a file of JSON. What they have to look like, the store says (`store.retain`). */
import fs from 'node:fs'
import { type Command, InvalidArgumentError } from 'commander'
import type { RetentionRules, SessionLimits } from '../index.js'
import { CommandError, exitCodes } from './exit.js'
import { wholeNumber } from './options.js'
import { duration, size } from './quantity.js'

export interface RuleOptions {
  readonly maxAge?: number
  readonly maxCount?: number
  readonly maxBytes?: number
  readonly prefix?: Readonly<Record<string, SessionLimits>>
  readonly rules?: string
  readonly archivesMaxAge?: number
  readonly archivesMaxBytes?: number
  readonly archivesKeepLast?: number
  readonly archivesQuarantine?: boolean
}

const countMax = 1_000_000_000

export function withRules(command: Command): Command {
  return command
    .option('--max-age <duration>', 'archive sessions that have not been changed for so long: 30d, 12h', duration)
    .option('--max-count <count>', 'keep at most so many sessions', wholeNumber(0, countMax))
    .option('--max-bytes <size>', 'keep at most so much in transcripts: 500MB, 2GiB', size)
    .option('--prefix <rule...>', 'of keys that begin so: PREFIX:max-age=7d,max-count=100,max-bytes=none', prefixRule)
    .option('--rules <file>', 'rules as JSON, as store.retain takes them, instead of the options above')
    .option('--archives-max-age <duration>', 'unlink archives older than that, for good', duration)
    .option('--archives-max-bytes <size>', 'unlink the oldest archives beyond so much, for good', size)
    .option('--archives-keep-last <count>', 'with one of the two: always keep so many of each key', wholeNumber(0, countMax))
    .option('--archives-quarantine', 'with --archives-max-age: what repair has removed, too')
}

const limitPattern = /^(.+?):((?:max-(?:age|count|bytes)=[^,]+)(?:,max-(?:age|count|bytes)=[^,]+)*)$/s
const names = { 'max-age': 'maxAgeMs', 'max-count': 'maxCount', 'max-bytes': 'maxBytes' } as const
const parsers = { 'max-age': duration, 'max-count': wholeNumber(0, countMax), 'max-bytes': size }

/** The prefix itself may hold colons: its end is the last one before the limits. */
export function prefixRule(text: string, before: Readonly<Record<string, SessionLimits>> | undefined): Record<string, SessionLimits> {
  const [, prefix, rules] = limitPattern.exec(text) ?? []
  if (prefix === undefined || rules === undefined)
    throw new InvalidArgumentError('It must be PREFIX:LIMITS, such as cron::max-age=7d,max-count=100 for keys that begin with cron:')
  const limits: Record<string, number | null> = {}
  for (const rule of rules.split(',')) {
    const [name, value] = rule.split('=') as [keyof typeof names, string]
    limits[names[name]] = value === 'none' ? null : parsers[name](value)
  }
  return { ...before, [prefix]: limits }
}

/** undefined when none are given. */
export function rulesOf(options: RuleOptions): RetentionRules | undefined {
  const { maxAge, maxCount, maxBytes, prefix, rules } = options
  const { archivesMaxAge, archivesMaxBytes, archivesKeepLast, archivesQuarantine } = options
  const archives = {
    ...(archivesMaxAge !== undefined && { maxAgeMs: archivesMaxAge }),
    ...(archivesMaxBytes !== undefined && { maxBytes: archivesMaxBytes }),
    ...(archivesKeepLast !== undefined && { keepLast: archivesKeepLast }),
    ...(archivesQuarantine && { quarantine: true }),
  }
  const given: RetentionRules = {
    ...(maxAge !== undefined && { maxAgeMs: maxAge }),
    ...(maxCount !== undefined && { maxCount }),
    ...(maxBytes !== undefined && { maxBytes }),
    ...(prefix && { prefixes: prefix }),
    ...(Object.keys(archives).length > 0 && { archives }),
  }
  const named = Object.keys(given).length > 0
  if (rules === undefined) return named ? given : undefined
  if (named)
    throw new CommandError(
      exitCodes.usage,
      '--rules and rules as options exclude each other.',
      'Nothing was done. Put them all into the file.',
    )
  return rulesIn(rules)
}

/** As the file has them: the store checks them before it does anything. */
function rulesIn(file: string): RetentionRules {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as RetentionRules
  } catch (error) {
    const why = `${file} cannot be read as rules: ${(error as Error).message}.`
    throw new CommandError(exitCodes.usage, why, 'It holds JSON such as {"maxAgeMs":2592000000,"prefixes":{"cron:":{"maxCount":100}}}.')
  }
}
