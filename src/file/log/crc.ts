/** Arithmetic on CRC-32 values: what is known of the parts of a text when it is known of the whole. Method: crc32_combine of zlib. */

const polynomial = 0xedb88320

/** The crc of what follows a beginning. @param length  of what follows, in bytes */
export function suffixCrc(whole: number, beginning: number, length: number): number {
  return (whole ^ product(powerOfX(length), beginning)) >>> 0
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
