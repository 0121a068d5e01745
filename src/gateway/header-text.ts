/** Text in HTTP headers. A header is bytes, and `fetch` shows each byte as one character. Here the bytes are UTF-8, as curl sends them; what is
 *  not UTF-8 is refused: taken as it looks, one key would become another. */

export function textOfHeader(value: string): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.from(value, 'latin1'))
  } catch {
    return undefined
  }
}

export function headerOfText(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1')
}
