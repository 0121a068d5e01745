/** What the commands print. Data goes to stdout, everything else to stderr; colour, columns and progress only where a person looks.
 *  What comes from a transcript is somebody else's text: control characters in it are shown, never sent to the terminal. */
import { once } from 'node:events'
import { styleText } from 'node:util'
import Table from 'cli-table3'

/** One line of data. Resolves when stdout takes more, so that a slow reader slows us down instead of filling the memory. */
export async function print(line: string): Promise<void> {
  if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain')
}

/** One JSON value on one line. */
export function printJson(value: unknown): Promise<void> {
  return print(visible(JSON.stringify(value)))
}

/** A remark to a person; never data. */
export function remark(line: string): void {
  process.stderr.write(`${line}\n`)
}

/** Somebody else's text on one line: line breaks and control characters as escapes, lone surrogates replaced. */
export function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, escaped).replace(/\p{Surrogate}/gu, '\ufffd')
}

/** JSON text as it is, except that no byte of it means anything to a terminal. */
export function visible(json: string): string {
  return json.replace(/[\u007f-\u009f\u2028\u2029\p{Bidi_Control}]/gu, (character) => unicodeEscape(character))
}

const shortEscapes: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

function escaped(character: string): string {
  return shortEscapes[character] ?? unicodeEscape(character)
}

function unicodeEscape(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan'

/** Colour on a terminal that wants it: NO_COLOR, FORCE_COLOR and TERM=dumb are Node's to judge. */
export function paint(style: Style, text: string): string {
  return process.stdout.isTTY && process.stdout.hasColors() ? styleText(style, text) : text
}

/** Rows in columns on a terminal; with tabs between, and without a head, in a pipe. */
export async function printTable(head: readonly string[], rows: readonly (readonly string[])[]): Promise<void> {
  if (process.stdout.isTTY) return print(tableText(head, rows))
  for (const row of rows) await print(row.join('\t'))
}

/** Columns with a head, for a terminal. */
export function tableText(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const none = {
    top: '',
    'top-mid': '',
    'top-left': '',
    'top-right': '',
    bottom: '',
    'bottom-mid': '',
    'bottom-left': '',
    'bottom-right': '',
  }
  const table = new Table({
    head: head.map((title) => paint('bold', title)),
    chars: { ...none, left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '', middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  })
  table.push(...rows.map((row) => [...row]))
  return table.toString()
}

/** Names and values, one a line. */
export async function printFacts(facts: readonly (readonly [name: string, value: string])[]): Promise<void> {
  const width = Math.max(...facts.map(([name]) => name.length))
  const tty = process.stdout.isTTY
  for (const [name, value] of facts) await print(tty ? `${paint('bold', name.padEnd(width))}  ${value}` : `${name}\t${value}`)
}

export function moment(epochMs: number | undefined): string {
  return epochMs === undefined || !Number.isFinite(epochMs) || Math.abs(epochMs) > 8.64e15 ? '-' : new Date(epochMs).toISOString()
}

export function bytesText(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`
  const power = Math.min(4, Math.floor(Math.log2(bytes) / 10))
  return `${(bytes / 1024 ** power).toFixed(1)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}`
}

export function durationText(ms: number | undefined): string {
  if (ms === undefined) return '-'
  if (ms < 1_000) return `${Math.round(ms)} ms`
  const s = ms / 1_000
  if (s < 120) return `${s.toFixed(1)} s`
  return s < 7_200 ? `${Math.round(s / 60)} min` : `${(s / 3_600).toFixed(1)} h`
}

/** `1 record`, `2 records`. */
export function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`
}
