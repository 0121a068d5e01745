/** `holdfast rotate KEY`: the conversation begins anew under the same key; the old transcript goes to the archive. */
import type { Command } from 'commander'
import { type CommonOptions, storeCommand, unknownKey, withStoreThere } from './options.js'
import { plain, print, printJson } from './output.js'

interface Options extends CommonOptions {
  readonly reason?: string
}

export function rotateCommand(): Command {
  return storeCommand('rotate', 'Begin a session anew; its transcript goes to the archive', [
    'holdfast rotate agent:main:main --reason reset',
    'holdfast rotate agent:main:main --json | jq -r .previousSessionId',
  ])
    .argument('<key>', 'session key, exactly')
    .option('--reason <text>', 'why; kept with the archive')
    .action(rotate)
}

async function rotate(key: string, { store: dir, json, reason }: Options): Promise<void> {
  await withStoreThere(dir, async (store) => {
    if (!(await store.get(key))) throw unknownKey(key, dir)
    const receipt = await store.session(key).rotate(reason === undefined ? {} : { reason })
    if (json) return printJson({ key, ...receipt })
    await print(`rotated\t${plain(key)}\t${receipt.sessionId}\twas ${receipt.previousSessionId}`)
  })
}
