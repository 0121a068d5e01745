/** How what a backup has noticed is shown. */
import type { BackupFinding } from '../../backup/index.js'
import { paint, plain, print } from '../output.js'

const shownMax = 50

export async function printFindings(findings: readonly BackupFinding[]): Promise<void> {
  for (const { level, path, key, message } of findings.slice(0, shownMax)) {
    const colour = level === 'damage' || level === 'alarm' ? 'red' : level === 'warning' ? 'yellow' : 'dim'
    await print(`${paint(colour, level)}\t${plain(path)}${key === undefined ? '' : ` (${plain(key)})`}: ${plain(message)}`)
  }
  if (findings.length > shownMax) await print(`…\t${findings.length - shownMax} more; --json prints all of them`)
}
