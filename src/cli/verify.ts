/** `holdfast verify`: reads every file of the store to the last byte, changes nothing, and says what is damaged. */
import type { Command } from 'commander'
import type { Damage, FileReport, VerifyReport } from '../index.js'
import { onCtrlC } from './ctrl-c.js'
import { exitCodes } from './exit.js'
import { type CommonOptions, storeCommand } from './options.js'
import { bytesText, count, paint, plain, print, printJson, printTable } from './output.js'
import { progressBar } from './progress.js'
import { withReport } from './report.js'

export function verifyCommand(): Command {
  return storeCommand('verify', 'Read every file and report damage; changes nothing', [
    'holdfast verify',
    "holdfast verify --json | jq '.damage'",
    'holdfast verify --store /srv/sessions || notify-send "session store damaged"',
  ])
    .addHelpText(
      'after',
      `
Void lines and torn tails are normal wear: what a killed or overtaken writer left behind, never acknowledged, skipped by every
reader. Damage is what should be there and is not; then the exit code is 1.`,
    )
    .action(verify)
}

async function verify({ store: dir, json }: CommonOptions): Promise<void> {
  const report = await readReport(dir)
  if (!report) {
    process.exitCode = exitCodes.interrupted
    return
  }
  process.exitCode = report.ok ? exitCodes.ok : exitCodes.found
  if (json) return printJson(report)
  await printFiles(report.files)
  for (const damage of report.damage) await print(damageLine(damage))
  await print(summary(report))
}

async function readReport(dir: string): Promise<VerifyReport | undefined> {
  const interrupt = onCtrlC()
  const bar = progressBar('verify')
  try {
    const options = { onProgress: (done: number, total: number) => bar.at(done, total), signal: interrupt.signal }
    return await withReport(dir, options, async (report) => report)
  } catch (error) {
    if (interrupt.signal.aborted) return undefined
    throw error
  } finally {
    bar.stop()
    interrupt.release()
  }
}

function printFiles(files: readonly FileReport[]): Promise<void> {
  return printTable(
    ['FILE', 'KIND', 'RECORDS', 'LAST SEQ', 'VOID LINES', 'TORN TAIL', 'BYTES', ''],
    files.map((file) => [
      plain(file.file),
      file.kind,
      String(file.records),
      String(file.lastSeq),
      String(file.voidLines),
      String(file.tornTailBytes),
      String(file.bytes),
      file.sealed ? 'sealed' : '',
    ]),
  )
}

function damageLine({ file, code, message, byte, seq }: Damage): string {
  const where = [byte === undefined ? undefined : `byte ${byte}`, seq === undefined ? undefined : `seq ${seq}`].filter(
    (part) => part !== undefined,
  )
  return `${paint('red', 'damage')}\t${plain(file)}${where.length > 0 ? ` at ${where.join(', ')}` : ''}: ${code} ${plain(message)}`
}

function summary({ files, damage, ok }: VerifyReport): string {
  const sum = (of: (file: FileReport) => number) => files.reduce((total, file) => total + of(file), 0)
  const wear = sum((file) => file.voidLines)
  const read = `${count(files.length, 'file')}, ${count(
    sum((file) => file.records),
    'record',
  )}, ${bytesText(sum((file) => file.bytes))}`
  const worn = wear > 0 ? `; ${count(wear, 'void line')}, never acknowledged` : ''
  return ok ? `${paint('green', 'ok')}\t${read}${worn}` : `${paint('red', 'damaged')}\t${count(damage.length, 'place')} in ${read}${worn}`
}
