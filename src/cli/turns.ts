/** `holdfast turns [KEY]`: which conversations are busy, with what, since when, and who waits behind it; of one key also what was before.
 *  Looks only. `--watch` is in watch-turns.ts. */
import type { Command } from 'commander'
import { storeCommand, unknownKey, wholeNumber, withStoreToRead } from './options.js'
import { printJson, printTable, remark } from './output.js'
import { factsOf, noneText, rowOf, type TurnsCommandOptions, turnsHead } from './turn-rows.js'
import { watchTurns } from './watch-turns.js'

export function turnsCommand(): Command {
  return storeCommand('turns', 'Show the turns that are active or queued, of all processes; of one key also those that are over', [
    'holdfast turns',
    'holdfast turns agent:main:main --limit 5',
    'holdfast turns --watch',
    'holdfast turns --json | jq -r \'select(.state == "active" and .ageMs > 600000) | .key\'',
  ])
    .argument('[key]', 'only this session key, exactly')
    .option('-n, --limit <count>', 'with a key: at most so many that are over', wholeNumber(0, 1_000_000), 50)
    .option('-w, --watch', 'go on until Ctrl-C: a table on a terminal, one line a change in a pipe or with --json')
    .addHelpText(
      'after',
      `
Position 0 is active, 1 is next. The age is that of the state. A turn whose process has died is shown as interrupted until the next one
begins. Verdicts are those of \`holdfast locks\`.`,
    )
    .action(turns)
}

async function turns(key: string | undefined, options: TurnsCommandOptions): Promise<void> {
  await withStoreToRead(options.store, async (store) => {
    const listed = await store.turns({ key, limit: options.limit })
    if (key !== undefined && listed.length === 0 && !(await store.get(key))) throw unknownKey(key, options.store)
    if (options.watch) return watchTurns(store, key, options)
    if (options.json) {
      for (const turn of listed) await printJson(factsOf(turn))
      return
    }
    await printTable(turnsHead, listed.map(rowOf))
    if (listed.length === 0) remark(noneText(key))
  })
}
