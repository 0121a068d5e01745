/** `holdfast backup check`: whether every snapshot could be restored. */
import type { Command } from 'commander'
import type { CheckReport, ContentCheck, Manifest, Repository } from '../../backup/index.js'
import { onCtrlC } from '../ctrl-c.js'
import { exitCodes } from '../exit.js'
import { bytesText, count, moment, paint, plain, print, printJson } from '../output.js'
import { progressBar } from '../progress.js'
import { snapshotId } from './list.js'
import { backups, type TargetOptions, targetCommand, withRepository } from './target.js'

interface CheckOptions extends TargetOptions {
  readonly deep?: boolean
}

export function checkCommand(): Command {
  return targetCommand('check', 'Look whether every snapshot could be restored', [
    'holdfast backup check --to /mnt/backup/agent',
    'holdfast backup check --deep --to s3://bucket/agent --identity key.txt',
    'holdfast backup check --deep good --to /mnt/backup/agent',
  ])
    .argument('[snapshots...]', 'only these: ids, first characters of them, latest, good')
    .option('--deep', 'read, decrypt and hash every byte; follow the chain of every transcript and parse every record')
    .action(check)
}

async function check(names: readonly string[], options: CheckOptions): Promise<void> {
  const { checkContents } = await backups()
  const interrupt = onCtrlC()
  const bar = progressBar('check')
  try {
    const report = await withRepository(options, interrupt.signal, async (repository) => {
      const only = names.length === 0 ? undefined : await wholeIds(repository, names)
      const { signal } = interrupt
      const stored = await repository.check({
        deep: options.deep,
        snapshots: only,
        signal,
        onProgress: ({ packs, packsTotal }) => bar.at(packs, packsTotal),
      })
      if (!options.deep) return { stored, contents: undefined }
      const manifests = await soundManifests(repository, stored)
      return { stored, contents: await checkContents(repository, manifests, { signal, onProgress: (done, total) => bar.at(done, total) }) }
    })
    bar.stop()
    const ok = report.stored.ok && (report.contents?.problems.length ?? 0) === 0
    process.exitCode = ok ? exitCodes.ok : exitCodes.found
    await (options.json
      ? printJson({ ...report.stored, ok, contents: report.contents ?? null })
      : printCheck(ok, report.stored, report.contents))
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    process.exitCode = exitCodes.interrupted
  } finally {
    bar.stop()
    interrupt.release()
  }
}

async function wholeIds(repository: Repository, names: readonly string[]): Promise<string[]> {
  return Promise.all(names.map(async (name) => (await repository.manifest(await snapshotId(repository, name))).info.id))
}

/** What cannot be read has been told already. */
async function soundManifests(repository: Repository, { snapshots }: CheckReport): Promise<Manifest[]> {
  const manifests: Manifest[] = []
  for (const { id, ok } of snapshots) if (ok) manifests.push(await repository.manifest(id))
  return manifests
}

async function printCheck(ok: boolean, stored: CheckReport, contents: ContentCheck | undefined): Promise<void> {
  for (const { object, problem } of stored.objects) await print(`${paint('red', 'object')}\t${plain(object)}: ${plain(problem)}`)
  for (const { id, info, ok: sound, problem, files, filesDamaged } of stored.snapshots) {
    const state = sound ? paint('green', 'ok') : paint('red', 'broken')
    const why = problem ?? (sound ? '' : `${count(filesDamaged, 'file')} cannot be restored`)
    const marked = info?.damaged ? ', of a store that was damaged' : ''
    await print(
      `${state}\tsnapshot ${plain(id)}\t${info ? `${moment(info.time)}, ${count(info.files, 'file')}, ${bytesText(info.bytes)}${marked}` : ''}${why && `\t${plain(why)}`}`,
    )
    for (const file of files) await print(`\t${plain(file.path)}: ${plain(file.problem)}`)
  }
  for (const { snapshot, path, problem } of contents?.problems ?? [])
    await print(`${paint('red', 'contents')}\tsnapshot ${plain(snapshot)}\t${plain(path)}: ${plain(problem)}`)
  const read = contents ? `, ${count(contents.logs, 'log')} followed, ${count(contents.records, 'record')} parsed` : ''
  const deep = stored.deep ? `${bytesText(stored.bytesRead)} read` : 'names and sizes only; --deep reads every byte'
  await print(
    `${ok ? paint('green', 'ok') : paint('red', 'damaged')}\t${count(stored.snapshots.length, 'snapshot')}, ${count(stored.packs, 'pack')}, ${deep}${read}`,
  )
}
