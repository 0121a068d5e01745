/** How the messages of a request relate to what the store has. Some clients send all they remember each time, others only what is new; both have
 *  to come to the same conversation, and no message may be in it twice.
 *
 *  - system and developer messages are for this request: first in what the model is shown, never stored;
 *  - what stands behind the last assistant message is the input, and is stored;
 *  - what stands before is what the client remembers. The store remembers better, so it is not looked at, except when the key has never been
 *    used: then it is taken over, once, as the beginning of the conversation;
 *  - of an input of several messages, those at the front that are stored already and unanswered (an earlier request failed, and its client sends them
 *    again with the next) are left out. The last message is always new: to try one again, use an idempotency key. */
import { isStoreError } from '../index.js'
import { unansweredOf } from './history.js'
import { type ChatMessage, textOf } from './model.js'
import type { ChatStore } from './options.js'

export interface Parts {
  readonly system: readonly ChatMessage[]
  readonly remembered: readonly ChatMessage[]
  /** At least one. */
  readonly input: readonly ChatMessage[]
}

export function partsOf(messages: readonly ChatMessage[]): Parts {
  const isSystem = ({ role }: ChatMessage) => role === 'system' || role === 'developer'
  const spoken = messages.filter((message) => !isSystem(message))
  const at = spoken.findLastIndex(({ role }) => role === 'assistant') + 1
  return { system: messages.filter(isSystem), remembered: spoken.slice(0, at), input: spoken.slice(at) }
}

/** The input without the messages at its front that stand, in this order, among the unanswered ones. Never less than the last. */
export function withoutStored(input: readonly ChatMessage[], unanswered: readonly ChatMessage[]): readonly ChatMessage[] {
  const stored = unanswered.map(identity)
  let from = 0
  let known = 0
  for (; known < input.length - 1; known++) {
    const at = stored.indexOf(identity(input[known]!), from)
    if (at < 0) break
    from = at + 1
  }
  return input.slice(known)
}

/** Equal for messages that say the same, however the content is written down. */
function identity({ role, content, tool_call_id: call, name }: ChatMessage): string {
  const onlyText = typeof content === 'string' || (content ?? []).every(({ type }) => type === 'text')
  return JSON.stringify([role, onlyText ? textOf(content) : content, call, name])
}

/** A batch of the store. */
const takenOverMax = 1_000
/** Far more than anybody leaves unanswered. */
const unansweredMax = 200

/** @returns the messages that this request adds; what the client remembers has been taken over if it had to be. */
export async function takeIn(store: ChatStore, key: string, { remembered, input }: Parts): Promise<readonly ChatMessage[]> {
  const session = store.session(key)
  if (remembered.length > 0 && (await store.get(key)) === undefined) {
    const records = remembered.slice(-takenOverMax).map((message) => ({ type: 'message', message, source: 'client' }))
    try {
      // Only the first of several at once: 0 is the number of a session without records.
      await session.append(records, { expectedSeq: 0 })
    } catch (error) {
      if (!isStoreError(error, 'SEQ_CONFLICT')) throw error
    }
  }
  if (input.length === 1) return input
  const [turns, records] = await Promise.all([store.turns({ key, limit: unansweredMax }), session.tail(unansweredMax)])
  const begun = new Set(turns.filter(({ state }) => state !== 'queued').map(({ requestId }) => requestId))
  return withoutStored(input, unansweredOf(records, begun))
}
