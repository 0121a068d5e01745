/** A model that says what it has heard. For trying things out: it needs no key and no network, and shows whether the history is there. */
import { setTimeout as sleep } from 'node:timers/promises'
import { type ChatMessage, type ChatModel, textOf } from '../model.js'

export interface EchoOptions {
  /** Between words, so that a stream can be watched. Default 0. */
  readonly delayMs?: number | undefined
}

/** Answers `You said: …` with the newest message, and how many it has been told. Its tokens are words. */
export function echoModel({ delayMs = 0 }: EchoOptions = {}): ChatModel {
  return async (messages, { signal, onToken }) => {
    const spoken = messages.filter(({ role }) => role !== 'system' && role !== 'developer')
    const heard = spoken.filter(({ role }) => role === 'user').length
    const text = `You said: ${textOf(spoken.at(-1)?.content)} (message ${heard} from you, ${spoken.length} in all)`
    for (const word of text.split(/(?<=\s)/)) {
      if (delayMs > 0) await sleep(delayMs, undefined, { signal })
      signal.throwIfAborted()
      onToken(word)
    }
    const [prompt, completion] = [wordsIn(messages), countWords(text)]
    return { message: text, usage: { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion } }
  }
}

const countWords = (text: string) => text.split(/\s+/).filter((word) => word !== '').length
const wordsIn = (messages: readonly ChatMessage[]) => messages.reduce((sum, { content }) => sum + countWords(textOf(content)), 0)
