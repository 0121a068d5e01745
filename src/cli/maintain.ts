/** `holdfast maintain`: one round of maintenance, or one now and then until Ctrl-C. One line for each thing that was done. */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError } from 'commander'
import type { MaintenanceEvent, SessionStore } from '../index.js'
import { onCtrlC } from './ctrl-c.js'
import { exitCodes } from './exit.js'
import { type CommonOptions, openStore, storeCommand, withStoreThere, withStoreToRead } from './options.js'
import { bytesText, durationText, paint, plain, print, printJson, remark } from './output.js'
import { duration } from './quantity.js'
import { type RuleOptions, rulesOf, withRules } from './retention-options.js'

interface Options extends CommonOptions, RuleOptions {
  readonly watch?: boolean
  readonly every: number
  readonly verifyShare?: number
}

export function maintainCommand(): Command {
  return withRules(
    storeCommand('maintain', 'Do what a store needs now and then: sweep, fold, verify, and archive what rules say', [
      'holdfast maintain',
      'holdfast maintain --watch --every 10min --max-age 30d',
      'holdfast maintain --watch --json >> maintenance.jsonl',
    ])
      .option('-w, --watch', 'go on until Ctrl-C; a round that has begun ends after the session or file it is at')
      .option('--every <duration>', 'with --watch: from the end of one round to the next', duration, 600_000)
      .option(
        '--verify-share <share>',
        'which part of all bytes to verify in a round, 0 to 1; default 1 for one round, 0.05 with --watch',
        share,
      ),
  )
    .addHelpText(
      'after',
      `
One process does it for all: if another has the lead, nothing is done here, and that is said. Live writers go on meanwhile.
Exit code 1 says that a step has failed, that damage was found, or that a cap cannot be kept.`,
    )
    .action(maintain)
}

function share(text: string): number {
  const value = /^\d(?:\.\d{1,6})?$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= 0 && value <= 1)) throw new InvalidArgumentError('It must be a number from 0 to 1.')
  return value
}

async function maintain(options: Options): Promise<void> {
  const { store: dir, json, watch, every, verifyShare = watch ? 0.05 : 1 } = options
  const retention = rulesOf(options)
  // Refuses what is no store, and makes nothing.
  if (watch) await withStoreToRead(dir, async () => {})
  const interrupt = onCtrlC()
  let wrong = false
  let lines = Promise.resolve()
  const onEvent = (event: MaintenanceEvent) => {
    if (event.outcome === 'failed' || event.outcome === 'unsatisfied' || event.event === 'damage') wrong = true
    lines = lines.then(() => (json ? printJson({ at: Date.now(), ...asJson(event) }) : print(lineOf(event))))
  }
  const maintenance = { onEvent, verifyShare, ...(retention && { retention }) }
  try {
    if (watch) await untilCtrlC(dir, { ...maintenance, everyMs: every }, interrupt.signal)
    else
      await withStoreThere(dir, async (store) => {
        const report = await store.maintain({ ...maintenance, signal: interrupt.signal })
        if (!report.led) remark(`Another process has the lead in maintenance: ${plain(report.leader ?? 'it changes hands just now')}.`)
      })
    await lines
    process.exitCode = interrupt.signal.aborted ? exitCodes.interrupted : wrong ? exitCodes.found : exitCodes.ok
  } finally {
    interrupt.release()
  }
}

async function untilCtrlC(
  dir: string,
  maintenance: NonNullable<Parameters<typeof SessionStore.open>[1]>['maintenance'],
  signal: AbortSignal,
): Promise<void> {
  const store = await openStore(dir, { maintenance })
  // The work itself keeps no process alive.
  while (!signal.aborted) await sleep(60_000, undefined, { signal }).catch(() => {})
  await store.close()
}

function asJson({ error, ...event }: MaintenanceEvent): object {
  if (error === undefined) return event
  const { code, message } = error as { code?: string; message?: string }
  return { ...event, error: { code, message } }
}

function lineOf({ event, outcome, step, key, file, bytes, tookMs, text }: MaintenanceEvent): string {
  const style = outcome === 'failed' || event === 'damage' ? 'red' : outcome === 'done' ? 'green' : 'cyan'
  const parts = [
    step ?? event,
    paint(style, event === 'damage' ? `damage: ${outcome}` : outcome),
    plain(key ?? file ?? ''),
    bytes === undefined ? '' : bytesText(bytes),
    durationText(tookMs),
    plain(text ?? ''),
  ]
  return parts.join('\t').trimEnd()
}
