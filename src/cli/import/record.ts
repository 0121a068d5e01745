/** What one line of somebody else's transcript is to us. Pure: bytes in, verdict out. */

export type Parsed =
  | { readonly kind: 'record'; readonly record: Record<string, unknown>; readonly altered: string | undefined }
  | { readonly kind: 'blank' }
  | { readonly kind: 'refused'; readonly why: string }

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false })

/** @param ended  whether the line had its line break; one without it may be torn */
export function parseRecord(bytes: Uint8Array, ended: boolean): Parsed {
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    return refused('not UTF-8')
  }
  if (text.trim() === '') return { kind: 'blank' }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    if (text.includes('\0')) return refused('holds NUL bytes, as after a crash of the machine')
    if (!ended) return refused(`torn: the file ends after ${bytes.length} bytes of this line`)
    return refused(error instanceof RangeError ? 'nested too deep' : 'not JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refused('not a JSON object')
  for (const name of ['$', '$$']) {
    if (Object.hasOwn(value, name)) return refused(`has a field "${name}", a name that the store keeps for itself`)
  }
  return { kind: 'record', record: value as Record<string, unknown>, altered: roundedNumber(text) }
}

function refused(why: string): Parsed {
  return { kind: 'refused', why }
}

const strings = /"(?:[^"\\]|\\.)*"/g
const numbers = /-?\d[\d.eE+-]*/g
/** Only a number of 16 digits or more, or with an exponent of three digits, can fail to fit; most lines have none, also not in a string. */
const suspect = /\d[\d.]{15}|[eE]\+?\d{3}/

/** The first number that a double cannot hold as it is written, and so what JSON.parse made of it. */
function roundedNumber(json: string): string | undefined {
  if (!suspect.test(json)) return undefined
  for (const [written] of json.replace(strings, '""').matchAll(numbers)) {
    const kept = Number(written)
    if (decimal(written) !== decimal(JSON.stringify(kept))) return `the number ${written.slice(0, 40)} became ${JSON.stringify(kept)}`
  }
  return undefined
}

/** A decimal number in one form: digits without leading or trailing zeros, and the power of ten behind them. */
function decimal(number: string): string {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(number) ?? []
  const digits = `${whole}${fraction}`.replace(/^0+/, '')
  const significant = digits.replace(/0+$/, '')
  if (significant === '') return '0'
  return `${sign}${significant}e${Number(exponent) - fraction.length + digits.length - significant.length}`
}
