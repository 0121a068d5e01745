/** `holdfast verify`: reads every file of the store to the last byte, changes nothing, and says what is damaged. */
import type { Command } from 'commander'
import type { Damage, FileReport, Finding, VerifyReport } from '../index.js'
import { onCtrlC } from './ctrl-c.js'
import { exitCodes } from './exit.js'
import { type CommonOptions, storeCommand } from './options.js'
import { bytesText, count, paint, plain, print, printJson, printTable } from './output.js'
import { progressBar } from './progress.js'
import { withReport } from './report.js'

export function verifyCommand(): Command {
  return storeCommand('verify', 'Read every file and report damage; changes nothing', [
    'holdfast verify',
    'holdfast verify --chat --all',
    "holdfast verify --json | jq '.damage'",
    'holdfast verify --store /srv/sessions || notify-send "session store damaged"',
  ])
    .option('--all', 'show notices, too: normal wear, and what is just being done')
    .option('--chat', 'look at the conversations, too: tool calls without a result, parents that are missing, two roots')
    .addHelpText(
      'after',
      `
Void lines and torn tails are normal wear: what a killed or overtaken writer left behind, never acknowledged, skipped by every
reader. They are notices. A warning is something to look at, with nothing lost. Damage is what should be there and is not; then, and
only then, the exit code is 1.`,
    )
    .action(verify)
}

interface VerifyCommandOptions extends CommonOptions {
  readonly all?: boolean
  readonly chat?: boolean
}

async function verify({ store: dir, json, all = false, chat = false }: VerifyCommandOptions): Promise<void> {
  const report = await readReport(dir, chat)
  if (!report) {
    process.exitCode = exitCodes.interrupted
    return
  }
  process.exitCode = report.ok ? exitCodes.ok : exitCodes.found
  if (json) return printJson(report)
  await printFiles(report.files)
  for (const damage of report.damage) await print(damageLine(damage))
  const told = new Set(report.damage.map(({ message }) => message))
  for (const finding of report.findings)
    if (all || (finding.severity !== 'notice' && !told.has(finding.meaning))) await print(findingLine(finding))
  for (const [kind, more] of Object.entries(report.omitted)) await print(`more\t${kind}: ${more} are not listed`)
  const notices = report.findings.filter(({ severity }) => severity === 'notice').length
  if (notices > 0 && !all) await print(`notices\t${notices}, shown with --all`)
  await print(summary(report))
}

async function readReport(dir: string, chat: boolean): Promise<VerifyReport | undefined> {
  const interrupt = onCtrlC()
  const bar = progressBar('verify')
  try {
    const options = { chat, onProgress: (done: number, total: number) => bar.at(done, total), signal: interrupt.signal }
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

const colors = { damage: 'red', warning: 'yellow', notice: 'dim' } as const

function findingLine({ kind, severity, file, bytes, seqs, key, meaning, repairable, count: times }: Finding): string {
  const where = [
    bytes && (bytes.to > bytes.from ? `bytes ${bytes.from} to ${bytes.to}` : `byte ${bytes.from}`),
    seqs && (seqs.to > seqs.from ? `seq ${seqs.from} to ${seqs.to}` : `seq ${seqs.from}`),
    key === undefined ? undefined : `key ${JSON.stringify(key)}`,
  ].filter((part) => part !== undefined)
  const at = where.length > 0 ? ` at ${where.join(', ')}` : ''
  const what = `${kind}${times > 1 ? ` (${times})` : ''}`
  return `${paint(colors[severity], severity)}\t${plain(`${file}${at}: ${what}. ${meaning}`)}${repairable ? ' (holdfast repair)' : ''}`
}

function summary({ files, damage, ok }: VerifyReport): string {
  const sum = (of: (file: FileReport) => number) => files.reduce((total, file) => total + of(file), 0)
  const wear = sum((file) => file.voidLines)
  const read = `${count(files.length, 'file')}, ${count(
    sum((file) => file.records),
    'record',
  )}, ${bytesText(sum((file) => file.bytes))}`
  const rest = wear > 0 ? `; ${count(wear, 'void line')}, never acknowledged` : ''
  return ok ? `${paint('green', 'ok')}\t${read}${rest}` : `${paint('red', 'damaged')}\t${count(damage.length, 'place')} in ${read}${rest}`
}
