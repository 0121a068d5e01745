/** `holdfast backup list`: the snapshots of a repository, or the files of one. */
import type { Command } from 'commander'
import type { FileRow, SnapshotInfo } from '../../backup/index.js'
import { bytesText, moment, plain, printJson, printTable, remark } from '../output.js'
import { type TargetOptions, targetCommand, withRepository } from './target.js'

export function listCommand(): Command {
  return targetCommand('list', 'The snapshots, newest first; or what is in one', [
    'holdfast backup list --to /mnt/backup/agent',
    'holdfast backup list latest --to /mnt/backup/agent',
    "holdfast backup list --to /mnt/backup/agent --json | jq -r 'select(.damaged | not) | .id' | head -n 1",
  ])
    .argument('[snapshot]', 'an id, the first characters of one, latest, or good (the latest without damage)')
    .action(list)
}

async function list(snapshot: string | undefined, options: TargetOptions): Promise<void> {
  await withRepository(options, undefined, async (repository) => {
    if (snapshot === undefined) return printSnapshots(await repository.snapshots(), options.json)
    const { files } = await repository.manifest(await snapshotId(repository, snapshot))
    await printFiles(files, options.json)
  })
}

/** `latest` and `good` stand for ids. */
export async function snapshotId(repository: { snapshots(): Promise<SnapshotInfo[]> }, name: string): Promise<string> {
  if (name !== 'latest' && name !== 'good') return name
  const readable = (await repository.snapshots()).filter(({ unreadable }) => unreadable === undefined)
  return (name === 'good' ? readable.find(({ damaged }) => !damaged) : readable[0])?.id ?? name
}

async function printSnapshots(snapshots: readonly SnapshotInfo[], json: boolean | undefined): Promise<void> {
  if (json) {
    for (const info of snapshots) await printJson(info)
    return
  }
  if (snapshots.length === 0) remark('There are no snapshots.')
  await printTable(
    ['SNAPSHOT', 'TIME', 'HOST', 'SOURCE', 'SESSIONS', 'BYTES', 'ADDED', ''],
    snapshots.map((info) => [
      info.id,
      moment(info.time),
      plain(info.host),
      plain(info.source.join(', ')),
      String(info.sessions),
      bytesText(info.bytes),
      bytesText(info.addedBytes),
      info.unreadable === undefined ? (info.damaged ? 'damaged' : '') : `unreadable: ${plain(info.unreadable)}`,
    ]),
  )
}

async function printFiles(files: readonly FileRow[], json: boolean | undefined): Promise<void> {
  if (json) {
    for (const { chunks: _, ...row } of files) await printJson(row)
    return
  }
  await printTable(
    ['FILE', 'KIND', 'BYTES', 'LAST SEQ', 'KEY', ''],
    files.map(({ path, role, type, bytes, session, findings = [] }) => [
      plain(path),
      type === 'file' ? role : type,
      String(bytes),
      session ? String(session.lastSeq) : '',
      plain(session?.key ?? session?.headerKey ?? ''),
      plain(findings.join(' ')),
    ]),
  )
}
