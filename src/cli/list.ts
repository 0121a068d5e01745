/** `holdfast list`: the sessions of a store, in the order of their keys. */
import type { Command } from 'commander'
import type { Entry } from '../index.js'
import { type CommonOptions, storeCommand, withStoreToRead } from './options.js'
import { moment, plain, printJson, printTable, remark } from './output.js'

interface ListOptions extends CommonOptions {
  readonly prefix?: string
}

export function listCommand(): Command {
  return storeCommand('list', 'List the sessions: key, session id, last change, revision', [
    'holdfast list',
    'holdfast list --prefix agent:main:',
    "holdfast list --json | jq -r 'select(.entry.updatedAt > 1760000000000) | .key'",
  ])
    .option('--prefix <text>', 'only keys that begin with it')
    .action(list)
}

async function list({ store: dir, json, prefix = '' }: ListOptions): Promise<void> {
  await withStoreToRead(dir, async (store) => {
    const found: [string, Entry][] = []
    for await (const session of store.entries({ prefix })) found.push(session)
    found.sort(([a], [b]) => (a < b ? -1 : 1))
    if (json) {
      for (const [key, entry] of found) await printJson({ key, entry })
      return
    }
    await printTable(
      ['KEY', 'SESSION ID', 'UPDATED', 'REVISION'],
      found.map(([key, entry]) => [plain(key), entry.sessionId, moment(entry.updatedAt), String(entry.revision)]),
    )
    if (found.length === 0) remark(prefix ? `No session's key begins with "${plain(prefix)}".` : 'The store has no sessions yet.')
  })
}
