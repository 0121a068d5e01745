/** `holdfast show KEY`: a session's entry, and what there is of its transcript. */
import fs from 'node:fs'
import { join, relative, resolve } from 'node:path'
import type { Command } from 'commander'
import type { Entry, Session, TurnStatus } from '../index.js'
import { isPostgresAddress } from '../postgres/address.js'
import { showArchive } from './archives.js'
import { CommandError, exitCodes } from './exit.js'
import { type CommonOptions, storeCommand, unknownKey, withStoreToRead } from './options.js'
import { bytesText, moment, paint, plain, print, printFacts, printJson, visible } from './output.js'
import { factsOf, holderText } from './turn-rows.js'

interface TranscriptFacts {
  /** Relative to the store. */
  readonly file: string
  readonly bytes: number
  readonly modifiedAt: number
  readonly records: number
  readonly firstSeq: number | undefined
  readonly lastSeq: number | undefined
}

export function showCommand(): Command {
  return storeCommand('show', 'Show the entry of a session, and facts about its transcript; or print an archive', [
    'holdfast show agent:main:main',
    'holdfast show --archive 019b7703-e400-7000-8000-000000000002',
    "holdfast show agent:main:main --json | jq '.transcript.records'",
  ])
    .argument('[key]', 'session key, exactly')
    .option('--archive <id>', 'an archived transcript instead, as `holdfast archives` shows it: what it is, and its records')
    .action(show)
}

interface Options extends CommonOptions {
  readonly archive?: string
}

async function show(key: string | undefined, options: Options): Promise<void> {
  const { store: dir, json, archive } = options
  if ((key === undefined) === (archive === undefined))
    throw new CommandError(
      exitCodes.usage,
      "missing required argument 'key', or --archive; not both.",
      'See `holdfast list` and `holdfast archives`.',
    )
  if (archive !== undefined || key === undefined) return showArchive(archive ?? '', options)
  await withStoreToRead(dir, async (store) => {
    const entry = await store.get(key)
    if (!entry) throw unknownKey(key, dir)
    const transcript = await transcriptFacts(dir, entry, store.session(key))
    const live = await store.turns({ key, limit: 0 })
    if (json) return printJson({ key, entry, transcript: transcript ?? null, turns: live.map(factsOf) })
    await printText(key, entry, transcript, live)
  })
}

async function transcriptFacts(dir: string, entry: Entry, session: Session): Promise<TranscriptFacts | undefined> {
  if (isPostgresAddress(dir)) return rowsFacts(entry, session)
  const path = join(resolve(dir), 'transcripts', `${entry.sessionId}.jsonl`)
  const stat = fs.statSync(path, { throwIfNoEntry: false })
  if (!stat) return undefined
  let records = 0
  let firstSeq: number | undefined
  let lastSeq: number | undefined
  for await (const { seq } of session.read()) {
    records++
    firstSeq ??= seq
    lastSeq = seq
  }
  return { file: relative(resolve(dir), path), bytes: stat.size, modifiedAt: Math.round(stat.mtimeMs), records, firstSeq, lastSeq }
}

/** In a database: bytes are those of the records as JSON, and when they were written only their entry knows. */
async function rowsFacts({ sessionId, updatedAt }: Entry, session: Session): Promise<TranscriptFacts | undefined> {
  let [records, bytes] = [0, 0]
  let firstSeq: number | undefined
  let lastSeq: number | undefined
  for await (const { seq, record } of session.read()) {
    records++
    bytes += Buffer.byteLength(JSON.stringify(record))
    firstSeq ??= seq
    lastSeq = seq
  }
  return records === 0 ? undefined : { file: `logs/${sessionId}`, bytes, modifiedAt: updatedAt, records, firstSeq, lastSeq }
}

async function printText(key: string, entry: Entry, transcript: TranscriptFacts | undefined, live: readonly TurnStatus[]): Promise<void> {
  const { sessionId, createdAt, updatedAt, revision, ...fields } = entry
  await printFacts([
    ['key', plain(key)],
    ['session id', sessionId],
    ['created', moment(createdAt)],
    ['updated', moment(updatedAt)],
    ['revision', String(revision)],
    ['transcript', transcript ? transcript.file : 'none yet'],
    ...(transcript
      ? ([
          ['records', transcript.records === 0 ? '0' : `${transcript.records} (seq ${transcript.firstSeq} to ${transcript.lastSeq})`],
          ['size', bytesText(transcript.bytes)],
          ['last written', moment(transcript.modifiedAt)],
        ] as const)
      : []),
    ...live.map((turn) => [turn.state, turnText(turn)] as const),
  ])
  if (Object.keys(fields).length === 0) return
  await print(paint('bold', 'fields'))
  await print(visible(JSON.stringify(fields, null, 2)))
}

function turnText({ turn, requestId, since, holder }: TurnStatus): string {
  const what = turn === undefined ? '' : `turn ${turn}, `
  return `${what}request ${plain(requestId)}, since ${moment(since)}, ${holderText(holder)}${holder ? ` (${holder.verdict})` : ''}`
}
