/** Arithmetic on CRC-32 values: what is known of the parts of a text when it is known of the whole, and the other way round. The crc of two
 *  texts, one behind the other, is that of the first, times x to the power of eight for every byte of the second, plus that of the second,
 *  as polynomials over one bit modulo that of the crc (crc32_combine of zlib does the same). */

const polynomial = 0xedb88320
/** Bits in the length of a text: up to 2 MiB. */
const lengthBits = 21

/** The crc of what follows a beginning. @param length  of what follows, in bytes */
export function suffixCrc(whole: number, beginning: number, length: number): number {
  return (whole ^ product(powerOfX(length), beginning)) >>> 0
}

/** The crc of a text and one that follows it. @param length  of the second, in bytes, less than 2 MiB */
export function joinedCrc(first: number, second: number, length: number): number {
  let shifted = first
  for (let bit = 0, left = length; left !== 0; bit++, left >>>= 1) {
    if ((left & 1) === 0) continue
    const table = shifts[bit]!
    shifted =
      table[shifted & 255]! ^
      table[256 + ((shifted >>> 8) & 255)]! ^
      table[512 + ((shifted >>> 16) & 255)]! ^
      table[768 + (shifted >>> 24)]!
  }
  return (shifted ^ second) >>> 0
}

/** The crc of a text that goes on with these bytes. */
export function extendedCrc(crc: number, bytes: Buffer, start: number, end: number): number {
  let register = ~crc
  for (let at = start; at < end; at++) register = byteTable[(register ^ bytes[at]!) & 255]! ^ (register >>> 8)
  return ~register >>> 0
}

/** Of two polynomials, modulo the one of the crc. */
function product(a: number, b: number): number {
  let sum = 0
  let factor = b
  for (let bit = 0x80000000; bit !== 0; bit >>>= 1) {
    if (a & bit) sum ^= factor
    factor = factor & 1 ? (factor >>> 1) ^ polynomial : factor >>> 1
  }
  return sum >>> 0
}

/** x to the power of eight times `bytes`. */
function powerOfX(bytes: number): number {
  let power = 0x80000000
  let square = 0x00800000
  for (let left = bytes; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) power = product(square, power)
    square = product(square, square)
  }
  return power
}

/** For each bit of a length, what the four bytes of a crc become when so many bytes follow. */
const shifts = Array.from({ length: lengthBits }, (_, bit) => {
  const power = powerOfX(2 ** bit)
  const table = new Uint32Array(1024)
  for (let byte = 0; byte < 4; byte++) {
    for (let one = 0; one < 8; one++) {
      const of = product(power, 2 ** (byte * 8 + one))
      for (let value = 1 << one; value < 2 << one; value++) table[byte * 256 + value] = table[byte * 256 + value - (1 << one)]! ^ of
    }
  }
  return table
})

const byteTable = Int32Array.from({ length: 256 }, (_, byte) => {
  let register = byte
  for (let bit = 0; bit < 8; bit++) register = register & 1 ? (register >>> 1) ^ polynomial : register >>> 1
  return register
})
