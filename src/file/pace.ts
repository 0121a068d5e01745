/** Long work in short stretches, so that it never holds up the event loop for long. */
import { breathe } from './stage.js'

/** How long to go on before others have their turn. */
const stretchMs = 5

export class Pace {
  #sinceMs = performance.now()

  get isDue(): boolean {
    return performance.now() - this.#sinceMs >= stretchMs
  }

  async rest(): Promise<void> {
    await breathe()
    this.#sinceMs = performance.now()
  }
}
