/** Long work in short stretches, so that it never holds up the event loop for long. */
import { breathe } from './stage.js'

export interface Breath {
  /** To be called between any two small pieces of work. undefined: not yet. */
  breathe(): Promise<void> | undefined
}

/** How long to go on before others have their turn. */
const stretchMs = 5

export function newBreath(): Breath {
  let sinceMs = performance.now()
  const rest = async () => {
    await breathe()
    sinceMs = performance.now()
  }
  return { breathe: () => (performance.now() - sinceMs < stretchMs ? undefined : rest()) }
}
