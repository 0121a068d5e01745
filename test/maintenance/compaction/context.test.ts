/** Compaction of context: a summary takes the place of what was said long ago, and of nothing else (P1, P8; F12: no lock across a model call). */
import fs from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isStoreError } from '../../../src/errors.js'
import { chatCuts } from '../../../src/maintenance/compaction/cuts.js'
import type { Session } from '../../../src/session.js'
import type { StoredRecord } from '../../../src/types.js'
import { opened } from '../../metadata/store-directory.js'
import { eventually, freshStore, inLog, said, staying, textsOf } from '../../turns/conversation.js'

const numRuns = process.env.HOLDFAST_SOAK ? 500 : 12
const joined = (records: readonly StoredRecord[]) => textsOf(records).join(' ')
const view = async (session: Session) => textsOf(await collected(session.read({ compacted: true })))

async function collected(records: AsyncIterable<StoredRecord>): Promise<StoredRecord[]> {
  const all: StoredRecord[] = []
  for await (const record of records) all.push(record)
  return all
}

async function talk(session: Session, ...texts: string[]): Promise<void> {
  for (const text of texts) await session.append(said(text))
}

describe('a summary', () => {
  test('stands in the place of what it was made from; the rest stays, and so does every record', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    await talk(session, 'a', 'b', 'c', 'd', 'e')
    const given: string[][] = []
    const receipt = await session.compact({
      keepLast: 2,
      summarize: (records) => {
        given.push(textsOf(records) as string[])
        return 'abc'
      },
    })
    expect(receipt).toMatchObject({ compacted: true, upTo: 3, records: 3, seq: 6 })
    expect(given).toEqual([['a', 'b', 'c']])
    expect(await view(session)).toEqual(['abc', 'd', 'e'])
    expect((await collected(session.read({ compacted: true })))[0]).toEqual({
      seq: 6,
      record: { type: 'summary', text: 'abc', upTo: 3, records: 3 },
    })
    expect(textsOf(await collected(session.read()))).toEqual(['a', 'b', 'c', 'd', 'e'])
    expect(textsOf(await session.tail(2))).toEqual(['d', 'e'])
    expect(textsOf(await session.tail(10, { compacted: true }))).toEqual(['abc', 'd', 'e'])
    expect(textsOf(await session.tail(2, { compacted: true }))).toEqual(['d', 'e'])
  })

  test('is made from the one before and what was said since; it counts for both', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    await talk(session, 'a', 'b', 'c')
    await session.compact({ keepLast: 1, summarize: joined })
    await talk(session, 'd', 'e')
    const receipt = await session.compact({ keepLast: 1, summarize: joined })
    expect(receipt).toMatchObject({ compacted: true, records: 4 })
    expect(await view(session)).toEqual(['a b c d', 'e'])
    expect(await view(store.session('k'))).toEqual(textsOf(await session.tail(99, { compacted: true })))
  })

  test('nothing to summarize: nothing is asked, nothing written', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    const summarize = () => expect.fail('it was asked')
    expect(await session.compact({ summarize })).toMatchObject({ compacted: false, sessionId: undefined })
    await talk(session, 'a', 'b')
    expect(await session.compact({ keepLast: 2, summarize })).toMatchObject({ compacted: false, records: 0 })
    await session.compact({ keepLast: 0, summarize: () => 'ab' })
    expect(await session.compact({ keepLast: 0, summarize })).toMatchObject({ compacted: false })
    expect(await view(session)).toEqual(['ab'])
  })

  test('while it is made, others append and nobody waits (F12); what they append stands behind it', async () => {
    const { directory, store } = await freshStore()
    const session = store.session('k')
    await talk(session, 'a', 'b', 'c')
    const other = await opened(directory)
    await session.compact({
      keepLast: 1,
      async summarize(records) {
        await talk(other.session('k'), 'd')
        await store.runTurn('k', { input: said('e') }, (turn) => turn.append(said('re: e')))
        return joined(records)
      },
    })
    expect(await view(other.session('k'))).toEqual(['a b', 'c', 'd', 'e', 're: e'])
  })

  test('of two made at once the one that stands for less gives way; the other stands for all', async () => {
    const { directory, store } = await freshStore()
    const session = store.session('k')
    await talk(session, 'a', 'b', 'c', 'd')
    const other = (await opened(directory)).session('k')
    const outer = await session.compact({
      keepLast: 2,
      async summarize() {
        expect(await other.compact({ keepLast: 1, summarize: joined })).toMatchObject({ compacted: true, upTo: 3 })
        return 'mine'
      },
    })
    expect(outer).toMatchObject({ compacted: false, upTo: 3, records: 3, seq: 5 })
    expect(await view(session)).toEqual(['a b c', 'd'])
    // The other way round it stands for more, and goes in.
    await talk(session, 'e', 'f')
    const wider = await session.compact({
      keepLast: 0,
      async summarize(records) {
        expect(await other.compact({ keepLast: 2, summarize: () => 'less' })).toMatchObject({ compacted: true })
        return joined(records)
      },
    })
    expect(wider).toMatchObject({ compacted: true, records: 6 })
    expect(await view(session)).toEqual(['a b c d e f'])
  })

  test.each(['rotate', 'delete'] as const)(
    'a session that was closed meanwhile (%s) gets none: SEQ_CONFLICT, and nothing is written',
    async (how) => {
      const { directory, store } = await freshStore()
      const session = store.session('k')
      await talk(session, 'a', 'b')
      const compacted = session.compact({
        keepLast: 0,
        async summarize() {
          if (how === 'rotate') await (await opened(directory)).session('k').rotate()
          else await store.delete('k')
          return 'late'
        },
      })
      await expect(compacted).rejects.toSatisfy((error) => isStoreError(error, 'SEQ_CONFLICT') && error.effect === 'none')
      expect(await view(session)).toEqual([])
      expect(
        fs
          .readdirSync(join(directory, 'archive'))
          .map((name) => fs.readFileSync(join(directory, 'archive', name), 'utf8'))
          .join(),
      ).not.toContain('late')
    },
  )

  test('when its function throws, or its caller aborts, nothing is written', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    await talk(session, 'a', 'b')
    const broken = new Error('no model')
    await expect(session.compact({ keepLast: 0, summarize: () => Promise.reject(broken) })).rejects.toBe(broken)
    const controller = new AbortController()
    const aborted = session.compact({
      keepLast: 0,
      signal: controller.signal,
      summarize: (_, { signal }) => {
        expect(signal).toBe(controller.signal)
        controller.abort(broken)
        return new Promise(() => {})
      },
    })
    await expect(aborted).rejects.toBe(broken)
    for (const text of ['', 7, undefined])
      await expect(session.compact({ keepLast: 0, summarize: () => text as string })).rejects.toSatisfy((error) =>
        isStoreError(error, 'INVALID_RECORD'),
      )
    await expect(session.compact({} as never)).rejects.toSatisfy((error) => isStoreError(error, 'INVALID_OPTION'))
    expect(await view(session)).toEqual(['a', 'b'])
  })
})

describe('turns', () => {
  test('see the summary in the place of what it stands for, and inputs where they were taken', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    for (const text of ['a', 'b', 'c']) await store.runTurn('k', { input: said(text) }, (turn) => turn.append(said(`re: ${text}`)))
    await session.compact({ keepLast: 2, summarize: joined })
    const seen = await store.runTurn('k', { input: said('d') }, async (turn) => {
      expect(textsOf(await turn.tail(2, { compacted: true }))).toEqual(['re: c', 'd'])
      expect(textsOf(await turn.tail(99))).toEqual(['a', 're: a', 'b', 're: b', 'c', 're: c', 'd'])
      return textsOf(await turn.tail(99, { compacted: true }))
    })
    expect(seen.value).toEqual(['a re: a b re: b', 'c', 're: c', 'd'])
  })

  test('an input that no turn has taken is never behind a summary, and is answered afterwards', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    await talk(session, 'before')
    const first = await staying(store, 'k', { input: said('a') })
    const second = store.runTurn('k', { input: said('waits') }, async (turn) => textsOf(await turn.tail(99, { compacted: true })))
    await eventually(() => inLog(store, 'k', 'waits'))
    await first.turn.append([said('re: a'), said('more')])
    const receipt = await session.compact({ keepLast: 0, summarize: joined })
    expect(receipt).toMatchObject({ compacted: true, records: 2 })
    first.go()
    expect((await second).value).toEqual(['before a', 're: a', 'more', 'waits'])
  })

  test('a turn that is active goes on over it, and may compact its own conversation', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    const result = await store.runTurn('k', { input: said('a') }, async (turn) => {
      await turn.append([said('1'), said('2'), said('3')])
      await session.compact({ keepLast: 1, summarize: joined })
      await turn.append(said('4'))
      return textsOf(await turn.tail(99, { compacted: true }))
    })
    expect(result).toMatchObject({ outcome: 'completed', value: ['a 1 2', '3', '4'] })
  })
})

describe('reading on', () => {
  test('whoever asks for what comes after the last number it has seen gets a new summary, and what is new', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    await talk(session, 'a', 'b', 'c')
    await session.compact({ keepLast: 1, summarize: joined })
    await talk(session, 'd')
    const newsAfter = async (seq: number) => textsOf(await collected(session.read({ after: seq, compacted: true })))
    expect(await newsAfter(0)).toEqual(['a b', 'c', 'd'])
    expect(await newsAfter(2)).toEqual(['a b', 'c', 'd'])
    expect(await newsAfter(3)).toEqual(['a b', 'd'])
    expect(await newsAfter(4)).toEqual(['d'])
    expect(textsOf(await collected(session.read({ compacted: true, limit: 2 })))).toEqual(['a b', 'c'])
    expect(textsOf(await collected(session.read({ compacted: true, limit: 1 })))).toEqual(['a b'])
  })

  test('however much was said, whoever reads from the end or from the start gets the same (any conversation)', async () => {
    const step = fc.oneof(
      fc.record({ say: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ keep: fc.nat(30) }),
      fc.record({ turn: fc.nat(3) }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), fc.integer({ min: 1, max: 50 }), async (steps, count) => {
        const { store } = await freshStore()
        const session = store.session('k')
        let n = 0
        for (const one of steps) {
          if ('say' in one) await session.append(Array.from({ length: one.say }, () => said(`${n++}`)))
          else if ('keep' in one) await session.compact({ keepLast: one.keep, summarize: joined })
          else
            await store.runTurn('k', { input: said(`${n++}`) }, (turn) =>
              turn.append(Array.from({ length: one.turn + 1 }, () => said(`${n++}`))),
            )
        }
        const all = await view(session)
        expect(all.join(' ')).toBe(Array.from({ length: n }, (_, at) => at).join(' '))
        expect(textsOf(await session.tail(count, { compacted: true }))).toEqual(all.slice(-count))
        const turned = await store.runTurn('k', {}, async (turn) => textsOf(await turn.tail(count, { compacted: true })))
        expect(turned.value).toEqual(all.slice(-count))
      }),
      { numRuns },
    )
  })

  test('a summary far back is found; the tail does not look for it', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    await talk(session, 'a', 'b')
    await session.compact({ keepLast: 1, summarize: joined })
    for (let n = 0; n < 3; n++) await session.append(Array.from({ length: 900 }, (_, at) => said(`${n} ${at}`)))
    expect((await view(session)).slice(0, 3)).toEqual(['a', 'b', '0 0'])
    expect(textsOf(await session.tail(1, { compacted: true }))).toEqual(['2 899'])
    expect(textsOf(await session.tail(3_000, { compacted: true })).slice(0, 2)).toEqual(['a', 'b'])
  })
})

describe('a conversation is not cut', () => {
  const records = (...messages: object[]): StoredRecord[] =>
    messages.map((message, at) => ({ seq: at + 1, record: { type: 'message', message } }))
  const user = { role: 'user', content: 'u' }
  const text = { role: 'assistant', content: 'a' }
  const openai = (...ids: string[]) => ({ role: 'assistant', content: null, tool_calls: ids.map((id) => ({ id, type: 'function' })) })
  const result = (id: string) => ({ role: 'tool', tool_call_id: id, content: 'r' })

  test.each([
    ['OpenAI', [user, openai('1', '2'), result('1'), result('2'), text], [0, 1, 4, 5]],
    [
      'pi',
      [user, { role: 'assistant', content: [{ type: 'toolCall', id: '1' }] }, { role: 'toolResult', toolCallId: '1' }, text],
      [0, 1, 3, 4],
    ],
    [
      'Anthropic',
      [
        user,
        { role: 'assistant', content: [{ type: 'tool_use', id: '1' }] },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: '1' }] },
        text,
      ],
      [0, 1, 3, 4],
    ],
    ['a result that names no call', [user, { role: 'tool', content: 'r' }, text], [0, 2, 3]],
    ['a call that still waits for its result', [user, openai('1'), user, openai('2'), result('9')], [0, 1, 2, 3]],
    ['a call that nobody answered, once somebody has spoken since', [user, openai('1'), user, text], [0, 1, 2, 3, 4]],
    ['something else in between', [openai('1'), user, result('1'), text], [0, 3, 4]],
  ])('between a call and its result: %s', (_, messages, expected) => {
    const cuts = chatCuts(records(...(messages as object[])))
    expect(cuts.flatMap((may, at) => (may ? [at] : []))).toEqual(expected)
  })

  test('by compact: the whole exchange stays, or the whole of it is summarized', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    for (const { record } of records(user, openai('1', '2'), result('1'), result('2'), text)) await session.append(record)
    expect(await session.compact({ keepLast: 2, summarize: () => 's' })).toMatchObject({ upTo: 1 })
    expect(await session.compact({ keepLast: 1, summarize: () => 's' })).toMatchObject({ upTo: 4 })
  })

  test('where the caller says no', async () => {
    const { store } = await freshStore()
    const session = store.session('k')
    await talk(session, 'a', 'b', 'c', 'd')
    const cutBefore = (all: readonly StoredRecord[], at: number) => all[at]!.record.text === 'b'
    expect(await session.compact({ keepLast: 1, cutBefore, summarize: joined })).toMatchObject({ upTo: 1, records: 1 })
  })
})
