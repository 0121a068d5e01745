/** Server-sent events to one reader. The model never waits for the reader, so a slow one holds up nobody's conversation: what it has not taken yet
 *  is kept, joined into fewer and larger pieces. A reader that takes nothing at all for long is cut off, and counts as gone. */
import type { ChatDelta } from './model.js'
import { isPlainText } from './said.js'

export interface EventStreamOptions {
  readonly keepAliveMs: number
  readonly readerStallMs: number
  /** JSON of the event for a piece. */
  readonly pieceJson: (delta: ChatDelta) => string
  /** The reader has gone, or was cut off. Called at most once, and not after `end`. */
  readonly onGone: (why: 'disconnected' | 'stalled') => void
}

const encoder = new TextEncoder()

export class EventStream {
  readonly readable: ReadableStream<Uint8Array>
  #options: EventStreamOptions
  #controller!: ReadableStreamDefaultController<Uint8Array>
  /** What the reader has not taken: events as JSON, and one text that may still grow. */
  #events: string[] = []
  #text = ''
  #over: 'no' | 'ending' | 'ended' = 'no'
  #keepAlive: NodeJS.Timeout
  #stall: NodeJS.Timeout | undefined

  constructor(options: EventStreamOptions) {
    this.#options = options
    this.readable = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller
      },
      pull: () => this.#flush(),
      cancel: () => this.#gone('disconnected'),
    })
    this.#keepAlive = setInterval(() => this.#sayAlive(), options.keepAliveMs)
  }

  piece(delta: ChatDelta): void {
    if (this.#over !== 'no') return
    if (isPlainText(delta)) this.#text += delta.content
    else this.#event(this.#options.pieceJson(delta))
    this.#offer()
  }

  event(value: unknown): void {
    if (this.#over !== 'no') return
    this.#event(JSON.stringify(value))
    this.#offer()
  }

  /** Nothing comes after this; the reader gets what it has not taken yet, then the end. */
  end(last?: '[DONE]'): void {
    if (this.#over !== 'no') return
    if (last) this.#event(last)
    this.#over = 'ending'
    this.#offer()
  }

  /** Nobody will read it. */
  discard(): void {
    this.#stop()
  }

  #event(json: string): void {
    this.#settleText()
    this.#events.push(json)
  }

  #settleText(): void {
    if (this.#text === '') return
    this.#events.push(this.#options.pieceJson({ content: this.#text }))
    this.#text = ''
  }

  #offer(): void {
    if (this.#over === 'ended') return
    if ((this.#controller.desiredSize ?? 0) > 0) this.#flush()
    else this.#stall ??= setTimeout(() => this.#cutOff(), this.#options.readerStallMs)
  }

  #flush(): void {
    if (this.#over === 'ended') return
    clearTimeout(this.#stall)
    this.#stall = undefined
    this.#settleText()
    if (this.#events.length > 0) {
      const text = this.#events.map((json) => `data: ${json}\n\n`).join('')
      this.#events = []
      this.#send(text)
    }
    if (this.#over !== 'ending') return
    this.#stop()
    this.#controller.close()
  }

  #send(text: string): void {
    this.#keepAlive.refresh()
    this.#controller.enqueue(encoder.encode(text))
  }

  #sayAlive(): void {
    // Nothing is waiting and there is room: the reader waits for us.
    if (this.#over === 'no' && (this.#controller.desiredSize ?? 0) > 0) this.#send(': waiting\n\n')
  }

  #cutOff(): void {
    if (this.#over === 'ended') return
    this.#controller.error(new Error(`Nothing was read for ${this.#options.readerStallMs} ms.`))
    this.#gone('stalled')
  }

  #gone(why: 'disconnected' | 'stalled'): void {
    const speaking = this.#over === 'no'
    this.#stop()
    if (speaking) this.#options.onGone(why)
  }

  #stop(): void {
    this.#over = 'ended'
    clearInterval(this.#keepAlive)
    clearTimeout(this.#stall)
    this.#events = []
    this.#text = ''
  }
}
