/** Which ids have been seen, in four bytes each, and never more than 16 MiB: an id is known by its crc. Of a million ids one in four
 *  thousand that was not seen is taken for one that was; then something that is missing goes unnoticed, and nothing is accused. */
import { crc32 } from 'node:zlib'

const slotsMax = 1 << 22

export class KnownIds {
  #slots = new Uint32Array(1 << 8)
  #count = 0
  /** There is no room for more: whether an id has been seen is not known any longer. */
  full = false

  has(id: string): boolean {
    return this.#slots[this.#slotOf(hash(id))] !== 0
  }

  add(id: string): void {
    if (this.#count * 2 >= this.#slots.length && !this.#grow()) return
    const crc = hash(id)
    const slot = this.#slotOf(crc)
    if (this.#slots[slot] !== 0) return
    this.#slots[slot] = crc
    this.#count++
  }

  #slotOf(crc: number): number {
    const mask = this.#slots.length - 1
    let slot = crc & mask
    while (this.#slots[slot] !== 0 && this.#slots[slot] !== crc) slot = (slot + 1) & mask
    return slot
  }

  #grow(): boolean {
    if (this.#slots.length >= slotsMax) {
      this.full = true
      return false
    }
    const old = this.#slots
    this.#slots = new Uint32Array(old.length * 2)
    for (const crc of old) if (crc !== 0) this.#slots[this.#slotOf(crc)] = crc
    return true
  }
}

/** 0 is an empty slot. */
function hash(id: string): number {
  return crc32(id) || 1
}
