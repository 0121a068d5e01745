/** The pure parts: which stored records a model is shown, and which messages of a request are new. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { historyOf, unansweredOf } from '../../src/gateway/history.js'
import type { ChatMessage } from '../../src/gateway/index.js'
import { partsOf, withoutStored } from '../../src/gateway/intake.js'
import { assistant, user } from './setting.js'

const stored = (...records: object[]) => records.map((record, at) => ({ seq: at + 1, record: record as Record<string, unknown> }))
const said = (...messages: object[]) => stored(...messages.map((message) => ({ type: 'message', message })))
const call = (...ids: string[]): ChatMessage => ({
  role: 'assistant',
  content: null,
  tool_calls: ids.map((id) => ({ id, type: 'function' })),
})
const result = (id: string, content = `result of ${id}`): ChatMessage => ({ role: 'tool', tool_call_id: id, content })

describe('the model is shown', () => {
  test('messages, and nothing else of a transcript', () => {
    const records = stored(
      { type: 'note', text: 'x' },
      { type: 'message', message: user('a') },
      { type: 'message', message: null },
      { type: 'message', message: { role: 'boss', content: 'x' } },
      { type: 'message', message: { role: 'system', content: 'x' } },
      { type: 'message', message: { role: 'user', content: 7 } },
      { type: 'message', message: { role: 'tool', content: 'without a call' } },
      { role: 'user', text: 'another form' },
      { type: 'message', message: assistant('b') },
    )
    expect(historyOf(records)).toEqual([user('a'), assistant('b')])
  })

  test('of what other runtimes keep in an assistant message, the words', () => {
    const content = [
      { type: 'thinking', thinking: 'hm' },
      { type: 'text', text: 'b' },
      { type: 'toolCall', id: 'x' },
    ]
    expect(historyOf(said({ role: 'assistant', content }))).toEqual([{ role: 'assistant', content: [{ type: 'text', text: 'b' }] }])
  })

  test('each result behind its call, wherever it stands; once, if it was sent twice', () => {
    expect(historyOf(said(user('a'), call('1', '2'), user('wait'), result('2'), result('1'), result('1', 'again')))).toEqual([
      user('a'),
      call('1', '2'),
      result('1'),
      result('2'),
      user('wait'),
    ])
  })

  test('no result whose call is out of view, and a stated absence for a call without result', () => {
    expect(historyOf(said(result('0'), user('a'), call('1'), user('b')))).toEqual([
      user('a'),
      call('1'),
      { role: 'tool', tool_call_id: '1', content: 'No result: the conversation went on without it.' },
      user('b'),
    ])
  })

  test('at its end what is to be answered: without what an earlier try has said', () => {
    const broken = { type: 'message', message: assistant('hal'), interrupted: true }
    expect(historyOf(stored({ type: 'message', message: user('a') }, broken))).toEqual([user('a')])
    expect(historyOf(stored({ type: 'message', message: user('a') }, broken, { type: 'message', message: user('b') }))).toEqual([
      user('a'),
      assistant('hal'),
      user('b'),
    ])
  })

  test('whatever the window cuts off: every call has its results right behind it, and no result stands alone', () => {
    const message = fc.oneof(
      fc.constant(user('u')),
      fc.constant(assistant('a')),
      fc.array(fc.integer({ min: 0, max: 5 }).map(String), { minLength: 1, maxLength: 3 }).map((ids) => call(...new Set(ids))),
      fc.integer({ min: 0, max: 5 }).map((id) => result(String(id))),
    )
    fc.assert(
      fc.property(fc.array(message, { maxLength: 12 }), fc.nat(12), (messages, from) => {
        const history = historyOf(said(...messages.slice(from)))
        let open: string[] = []
        for (const { role, tool_calls: calls, tool_call_id: id } of history) {
          if (role === 'tool') expect(id).toBe(open.shift())
          else {
            expect(open).toEqual([])
            open = (calls ?? []).map((one) => one.id)
          }
        }
        expect(open).toEqual([])
      }),
    )
  })
})

describe('a request is', () => {
  test('system messages, what the client remembers, and what is new', () => {
    const system = { role: 'system', content: 's' } as const
    expect(partsOf([system, user('a'), assistant('b'), system, user('c'), result('1')])).toEqual({
      system: [system, system],
      remembered: [user('a'), assistant('b')],
      input: [user('c'), result('1')],
    })
  })
})

describe('of what is new', () => {
  const unanswered = (...messages: ChatMessage[]) => unansweredOf(said(user('old'), assistant('answered'), ...messages), new Set())

  test('what is stored and unanswered is left out at the front', () => {
    expect(withoutStored([user('a'), user('b'), user('c')], unanswered(user('a'), user('b')))).toEqual([user('c')])
    expect(withoutStored([user('b'), user('c')], unanswered(user('a'), user('b')))).toEqual([user('c')])
  })

  test('what was answered counts as new, and so does the last message always', () => {
    expect(withoutStored([user('old'), user('b')], unanswered())).toEqual([user('old'), user('b')])
    expect(withoutStored([user('a')], unanswered(user('a')))).toEqual([user('a')])
    expect(withoutStored([user('a'), user('a')], unanswered(user('a'), user('a')))).toEqual([user('a')])
  })

  test('a reply that was broken off answers nothing', () => {
    const records = stored({ type: 'message', message: user('a') }, { type: 'message', message: assistant('hal'), interrupted: true })
    expect(unansweredOf(records, new Set())).toEqual([user('a')])
  })

  test('what was stored and taken back by a client that did not wait is new, all of it', () => {
    const message = (text: string, more: object = {}) => ({ record: { type: 'message', message: user(text) }, ...more })
    const records = [
      message('a', { request: 'ran' }),
      message('b'),
      message('c', { request: 'gone' }),
      message('d'),
      message('e', { turn: 3 }),
    ]
    const stored = records.map((record, at) => ({ seq: at + 1, ...record }))
    expect(unansweredOf(stored, new Set(['ran'])).map(({ content }) => content)).toEqual(['a', 'b', 'e'])
  })

  test('the same words are the same, as text or as parts', () => {
    const parts = { role: 'user', content: [{ type: 'text', text: 'a' }] } as const
    expect(withoutStored([parts, user('b')], unanswered(user('a')))).toEqual([user('b')])
  })

  test('never more than the front goes, and never the last', () => {
    const text = fc.constantFrom('a', 'b', 'c').map(user)
    fc.assert(
      fc.property(fc.array(text, { minLength: 1, maxLength: 6 }), fc.array(text, { maxLength: 6 }), (input, known) => {
        const left = withoutStored(input, known)
        expect(left.length).toBeGreaterThan(0)
        expect(input.slice(input.length - left.length)).toEqual(left)
        expect(input.length - left.length).toBeLessThanOrEqual(known.length)
      }),
    )
  })
})
