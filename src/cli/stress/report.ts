/** What a trial tells a person: a line while it runs, a table in the end, and what to make of it. */
import { durationText, paint, plain, print, printTable } from '../output.js'
import type { Analysis } from './analyst.js'
import { type ViolationKind, violationKinds } from './findings.js'
import type { Progress } from './fleet.js'
import type { Report } from './trial.js'

export interface ProgressLine {
  at(progress: Progress): void
  stop(): void
}

/** One line on stderr that writes over itself, where stderr is a terminal. */
export function progressLine(seconds: number): ProgressLine {
  const { stderr } = process
  if (!stderr.isTTY) return { at() {}, stop() {} }
  return {
    at({ ranMs, acknowledged, kills, freezes, stalls }) {
      const text = `stress ${(ranMs / 1_000).toFixed(1)}/${seconds} s  ${number(acknowledged)} acknowledged  ${kills} kills, ${freezes} freezes, ${stalls} stalls`
      stderr.write(`\r${text.slice(0, (stderr.columns || 80) - 1)}\x1b[K`)
    },
    stop: () => void stderr.write('\r\x1b[K'),
  }
}

export async function printReport(report: Report): Promise<void> {
  const { analysis, troubles } = report
  await printTable(['WHAT', 'HOW MANY', ''], [...(analysis ? findingRows(analysis) : []), ...trialRows(report, analysis)])
  for (const sentence of analysis?.violations.examples ?? []) await print(`${paint('red', 'broken')}\t${plain(sentence)}`)
  for (const sentence of analysis?.damage ?? []) await print(`${paint('red', 'damage')}\t${plain(sentence)}`)
  for (const sentence of [...(analysis?.alarms ?? []), ...troubles]) await print(`${paint('red', 'trouble')}\t${plain(sentence)}`)
  await print(verdict(report))
}

type Row = [name: string, value: string, remark: string]

const names: Record<ViolationKind, string> = {
  lost: 'lost',
  doubled: 'doubled',
  outOfOrder: 'out of order',
  staleReads: 'stale reads',
  halfDone: 'half done',
  denied: 'denied',
  forked: 'forked',
  altered: 'altered',
}

function findingRows({ acknowledged, violations, unacknowledgedPresent, damage, voidLines, lockWaitMs, errors }: Analysis): Row[] {
  const { updates, appends, records, gets } = acknowledged
  const kinds = Object.keys(violationKinds) as ViolationKind[]
  const bad = (n: number) => paint(n === 0 ? 'green' : 'red', number(n))
  const wait = [lockWaitMs.p50, lockWaitMs.p99, lockWaitMs.max].map((ms) => (ms < 10 ? `${ms.toFixed(2)} ms` : durationText(ms)))
  const failed = Object.entries(errors).map(([code, n]) => `${n} ${code}`)
  return [
    [
      'acknowledged',
      number(updates + appends),
      `${number(updates)} updates, ${number(appends)} appends of ${number(records)} records; ${number(gets)} reads beside`,
    ],
    ...kinds.map((kind): Row => [names[kind], bad(violations.counts[kind]), violationKinds[kind]]),
    ['damage', bad(damage.length), 'what verify() found, or what could not be read'],
    ['unacknowledged, present', number(unacknowledgedPresent), 'allowed: their writers died, or were told that it is not known'],
    ['void lines', number(voidLines), 'allowed: what killed and overtaken writers left, skipped by every reader'],
    ['failed calls', number(Object.values(errors).reduce((a, b) => a + b, 0)), failed.join(', ')],
    ['lock wait', `p50 ${wait[0]}`, `p99 ${wait[1]}, longest ${wait[2]}: from the call until the mutator runs`],
  ]
}

function trialRows(report: Report, analysis: Analysis | undefined): Row[] {
  const { counters, struck, commitsPerSecond, writers, seconds, durability, seed } = report
  return [
    [
      'takeovers',
      number(counters.takeoversDead + counters.takeoversExpired),
      `${counters.takeoversDead} of dead holders, ${counters.takeoversExpired} of expired ones; as far as writers lived to tell`,
    ],
    ['re-runs', number(counters.reruns), 'changes made again on newer state, because another writer had won'],
    ['commits', `${number(Math.round(commitsPerSecond))}/s`, `${number(counters.commits)} in ${seconds.toFixed(1)} s`],
    [
      'faults',
      number(struck.kills + struck.freezes + struck.stalls),
      `${struck.kills} kills, ${struck.freezes} freezes, ${struck.stalls} stalls`,
    ],
    ['on trial', analysis?.fileSystem ?? 'unknown', `${writers} writers, durability ${durability}`],
    ['seed', seed, ''],
  ]
}

function verdict({ ok, seed, analysis }: Report): string {
  if (ok) return `${paint('green', 'ok')}\tnothing lost, doubled, out of order or damaged`
  const broken = analysis && (analysis.damage.length > 0 || Object.values(analysis.violations.counts).some((n) => n > 0))
  const said = broken ? 'promises were broken: do not keep sessions on this disk' : 'the trial did not come to a clean end'
  return `${paint('red', 'failed')}\t${said}; the same faults again with --seed ${seed}`
}

function number(n: number): string {
  return n.toLocaleString('en')
}
