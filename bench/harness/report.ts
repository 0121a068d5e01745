/** Results as text: a table for each workload, and a line for each requirement. */
import type { Machine } from './machine.js'
import { formatCount, formatTime } from './verdict.js'
import type { Result, Row, Verdict, Workload } from './workload.js'

export function machineText(machine: Machine): string {
  return [
    `machine      ${machine.cpu}`,
    `kernel       ${machine.kernel}, ${machine.fileSystem}`,
    `node         ${machine.node}, commit ${machine.commit}, ${machine.date}, load average ${machine.loadAverage.toFixed(2)}`,
  ].join('\n')
}

export function resultText(workload: Workload, { rows, verdicts }: Result): string {
  return [`\n${workload.name}: ${workload.title}`, table(rows), ...verdicts.map((verdict) => verdictText(workload.name, verdict))].join(
    '\n',
  )
}

export function verdictText(workload: string, verdict: Verdict): string {
  const { requirement, measured, floor, ratio, required } = verdict
  return `  ${stateOf(verdict)}  ${workload} | ${requirement} | ${measured} | floor: ${floor} | ratio ${ratio} | required: ${required}`
}

export function stateOf({ ok, optional }: Verdict): string {
  return ok ? 'ok    ' : optional ? 'below ' : 'MISSED'
}

function table(rows: readonly Row[]): string {
  const counted = rows.some(({ lost }) => lost !== undefined)
  const timed = rows.some(({ p99 }) => p99 !== undefined)
  const head = ['', 'median', 'range', 'per second', ...(timed ? ['p99', 'longest'] : []), ...(counted ? ['acknowledged', 'LOST'] : []), '']
  const body = rows.map((row) => [
    row.contestant,
    value(row, row.median),
    row.low === row.high ? '' : `${value(row, row.low)} - ${value(row, row.high)}`,
    row.perSecond === undefined ? '' : formatCount(row.perSecond),
    ...(timed
      ? [row.p99 === undefined ? '' : formatTime(row.p99 * 1000), row.longest === undefined ? '' : formatTime(row.longest * 1000)]
      : []),
    ...(counted
      ? [row.acknowledged === undefined ? '' : formatCount(row.acknowledged), row.lost === undefined ? '' : formatCount(row.lost)]
      : []),
    row.remark ?? '',
  ])
  const widths = head.map((_, column) => Math.max(...[head, ...body].map((cells) => cells[column]!.length)))
  const line = (cells: readonly string[]) =>
    `    ${cells.map((cell, at) => (at === 0 || at === cells.length - 1 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!))).join('  ')}`.trimEnd()
  return [line(head), ...body.map(line)].join('\n')
}

function value({ unit }: Row, amount: number): string {
  if (unit === 'MB') return `${amount.toFixed(1)} MB`
  return formatTime(unit === 'ms' ? amount * 1000 : amount)
}
