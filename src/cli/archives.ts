/** `holdfast archives [KEY]`: what is not in use any more. `holdfast restore-archive ID --key KEY`: brings one back. */
import type { Command } from 'commander'
import type { ArchiveInfo } from '../index.js'
import { onCtrlC } from './ctrl-c.js'
import { exitCodes } from './exit.js'
import { type CommonOptions, storeCommand, withStoreThere, withStoreToRead } from './options.js'
import { bytesText, count, moment, plain, print, printFacts, printJson, printTable } from './output.js'
import { progressBar } from './progress.js'
import { headline } from './record-text.js'

export function archivesCommand(): Command {
  return storeCommand('archives', 'List transcripts that are not in use any more, newest first', [
    'holdfast archives',
    'holdfast archives agent:main:main',
    'holdfast archives agent:main:main --json | jq -r \'select(.reason == "rotated") | .archive\'',
  ])
    .argument('[key]', 'only what this key has named, exactly; it may be deleted since')
    .addHelpText(
      'after',
      `
REASON: rotated, deleted, compacted (the file before a compaction of bytes), unknown. \`holdfast show --archive ID\` prints one.`,
    )
    .action(archives)
}

async function archives(key: string | undefined, { store: dir, json }: CommonOptions): Promise<void> {
  await withStoreToRead(dir, async (store) => {
    const all = await store.archives(key)
    if (json) {
      for (const info of all) await printJson(factsOf(info))
      return
    }
    const rows = all.map((info) => [
      info.archive,
      plain(info.key ?? '-'),
      info.reason,
      plain(info.why ?? ''),
      moment(info.at),
      `${info.firstSeq ?? '-'}..${info.lastSeq ?? '-'}`,
      info.bytes === undefined ? '-' : bytesText(info.bytes),
      info.unfinished ? 'unfinished' : info.compressed ? 'gz' : '',
    ])
    await printTable(['ARCHIVE', 'KEY', 'REASON', 'WHY', 'AT', 'SEQ', 'SIZE', ''], rows)
  })
}

/** Every field is there, whatever is known. */
function factsOf(info: ArchiveInfo): Record<string, unknown> {
  return Object.fromEntries(Object.entries(info).map(([name, value]) => [name, value ?? null]))
}

/** For `show --archive`: what it is, then its records. */
export async function showArchive(archive: string, { store: dir, json }: CommonOptions): Promise<void> {
  await withStoreToRead(dir, async (store) => {
    const info = (await store.archives()).find((one) => one.archive === archive)
    if (!json && info)
      await printFacts([
        ['archive', info.file],
        ['key', plain(info.key ?? '-')],
        ['session id', info.sessionId],
        ['reason', `${info.reason}${info.why === undefined ? '' : `: ${plain(info.why)}`}`],
        ['at', moment(info.at)],
        ['previous session', info.previous ?? '-'],
        ['next session', info.next ?? '-'],
      ])
    for await (const { seq, id, record } of store.readArchive(archive)) {
      if (json) await printJson({ seq, id: id ?? null, record })
      else {
        const { when, what, text } = headline(record)
        await print([seq, when, what, text].join('\t'))
      }
    }
  })
}

interface RestoreOptions extends CommonOptions {
  readonly key: string
}

export function restoreArchiveCommand(): Command {
  return storeCommand('restore-archive', 'Bring an archived transcript back as a session of its own', [
    'holdfast restore-archive 019b7703-e400-7000-8000-000000000002 --key agent:main:before-the-reset',
    'holdfast restore-archive "$(holdfast archives K --json | head -n 1 | jq -r .archive)" --key K2',
  ])
    .argument('<archive>', 'as `holdfast archives` shows it')
    .requiredOption('--key <key>', 'the key that it gets; one that names no session')
    .addHelpText('after', '\nThe archive stays as it is. The session gets a fresh id; no turn goes on in it.')
    .action(restore)
}

async function restore(archive: string, { store: dir, json, key }: RestoreOptions): Promise<void> {
  const interrupt = onCtrlC()
  const bar = progressBar('restore')
  try {
    await withStoreThere(dir, async (store) => {
      const onProgress = (done: number, total: number) => bar.at(done, total)
      const receipt = await store.restoreArchive(archive, { key, onProgress, signal: interrupt.signal })
      bar.stop()
      if (json) return printJson(receipt)
      await print(`restored\t${plain(key)}\t${receipt.sessionId}\t${count(receipt.records, 'record')}`)
    })
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    process.exitCode = exitCodes.interrupted
  } finally {
    bar.stop()
    interrupt.release()
  }
}
