/** `holdfast interrupt KEY`: asks the active turn of a conversation to stop, in whichever process it runs. */
import type { Command } from 'commander'
import { exitCodes } from './exit.js'
import { type CommonOptions, storeCommand, unknownKey, withStoreThere } from './options.js'
import { plain, print, printJson, remark } from './output.js'
import { factsOf, holderText } from './turn-rows.js'

export function interruptCommand(): Command {
  return storeCommand('interrupt', 'Ask the active turn of a conversation to stop', [
    'holdfast interrupt agent:main:main',
    'holdfast interrupt agent:main:main --json',
    'holdfast turns agent:main:main --watch',
  ])
    .argument('<key>', 'session key, exactly')
    .addHelpText(
      'after',
      `
Aborts the turn's signal and does not wait for it. What the turn has appended stands; it is recorded as interrupted once its function
has returned, and whoever is next in line goes on then. A turn whose process is dead or frozen cannot be asked: a dead one is taken over
at once by whoever comes next, a frozen one after its maxTurnMs. Exit code 1 when no turn is active.`,
    )
    .action(interrupt)
}

async function interrupt(key: string, { store: dir, json }: CommonOptions): Promise<void> {
  await withStoreThere(dir, async (store) => {
    const active = (await store.turns({ key, limit: 0 })).find(({ state }) => state === 'active')
    const interrupted = await store.interrupt(key)
    if (!interrupted && !active && !(await store.get(key))) throw unknownKey(key, dir)
    process.exitCode = interrupted ? exitCodes.ok : exitCodes.found
    if (json) return printJson({ key, interrupted, turn: interrupted && active ? factsOf(active) : null })
    if (!interrupted) return remark(`No turn of "${plain(key)}" is active.`)
    const turn = active?.turn === undefined ? 'the active turn' : `turn ${active.turn}`
    const whose = active ? ` (request ${plain(active.requestId)}, ${holderText(active.holder)})` : ''
    await print(`Asked ${turn} of ${plain(key)} to stop${whose}.`)
  })
}
