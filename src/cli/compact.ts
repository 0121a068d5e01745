/** `holdfast compact KEY`: writes a transcript anew without what can go; with `--summary`, lets a text stand for what was said long ago. */
import { text as textOf } from 'node:stream/consumers'
import type { Command } from 'commander'
import { onCtrlC } from './ctrl-c.js'
import { CommandError, exitCodes } from './exit.js'
import { type CommonOptions, storeCommand, unknownKey, wholeNumber, withStoreThere } from './options.js'
import { bytesText, count, plain, print, printJson } from './output.js'
import { progressBar } from './progress.js'

interface Options extends CommonOptions {
  readonly summary?: string
  readonly keep?: number
  readonly minBytes?: number
}

export function compactCommand(): Command {
  return storeCommand('compact', 'Write a transcript anew without what can go; or let a summary stand for its beginning', [
    'holdfast compact agent:main:main',
    'holdfast compact agent:main:main --min-bytes 1000000',
    'holdfast compact agent:main:main --summary "They plan a trip to Lisbon in May." --keep 20',
    'summarize < notes.txt | holdfast compact agent:main:main --summary -',
  ])
    .argument('<key>', 'session key, exactly')
    .option('--min-bytes <bytes>', 'do nothing when less can be removed', wholeNumber(1, Number.MAX_SAFE_INTEGER))
    .option('--summary <text>', 'this text stands for what was said, but for the last records; - reads it from stdin')
    .option('--keep <count>', 'with --summary: how many of the last records stay (default 20)', wholeNumber(0, 1_000_000))
    .addHelpText(
      'after',
      `
Without --summary: void lines go, and records that a summary stands for. The whole of the old file is kept in archive/.
With --summary: no byte is removed. Whoever reads compacted is shown the text in the place of those records.`,
    )
    .action(compact)
}

async function compact(key: string, options: Options): Promise<void> {
  if (options.summary === undefined && options.keep !== undefined)
    throw new CommandError(exitCodes.usage, '--keep is about a summary.', 'Name it with --summary TEXT.')
  return options.summary === undefined ? compactBytes(key, options) : summarize(key, options.summary, options)
}

async function compactBytes(key: string, { store: dir, json, minBytes }: Options): Promise<void> {
  const interrupt = onCtrlC()
  const bar = progressBar('compact')
  try {
    await withStoreThere(dir, async (store) => {
      if (!(await store.get(key))) throw unknownKey(key, dir)
      const onProgress = (done: number, total: number) => bar.at(done, total)
      const receipt = await store.session(key).compactBytes({ minBytes, onProgress, signal: interrupt.signal })
      bar.stop()
      if (json) return printJson({ key, ...receipt, from: receipt.from ?? null, archive: receipt.archive ?? null })
      if (!receipt.compacted) return print(`nothing to remove\t${plain(key)}`)
      const { bytesBefore, bytesAfter, archive } = receipt
      await print(`compacted\t${plain(key)}\t${bytesText(bytesBefore)} to ${bytesText(bytesAfter)}\tbefore: archive/${archive}`)
    })
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    process.exitCode = exitCodes.interrupted
  } finally {
    bar.stop()
    interrupt.release()
  }
}

async function summarize(key: string, given: string, { store: dir, json, keep }: Options): Promise<void> {
  const summary = given === '-' ? (await textOf(process.stdin)).trim() : given
  if (summary === '') throw new CommandError(exitCodes.usage, 'The summary is empty.', 'Name a text, or - to read one from stdin.')
  await withStoreThere(dir, async (store) => {
    if (!(await store.get(key))) throw unknownKey(key, dir)
    const receipt = await store.session(key).compact({ keepLast: keep, summarize: () => summary })
    if (json) return printJson({ key, ...receipt, seq: receipt.seq ?? null, upTo: receipt.upTo ?? null })
    if (!receipt.compacted) return print(`nothing to summarize\t${plain(key)}`)
    await print(`summarized\t${plain(key)}\t${count(receipt.records, 'record')}, up to seq ${receipt.upTo}`)
  })
}
