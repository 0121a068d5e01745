/** What a backend promises of summaries, whatever it keeps things in; see conformance.ts. */
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Backend } from '../../src/backend.js'
import type { StoredRecord } from '../../src/types.js'
import type { Place } from './conformance.js'

export function describeSummaries(name: string, makePlace: () => Promise<Place>): void {
  async function begin(...texts: string[]): Promise<Backend> {
    const place = await makePlace()
    const backend = await place.open()
    onTestFinished(async () => {
      await backend.close()
      await place.remove()
    })
    for (const text of texts) await backend.append('k', [{ json: JSON.stringify({ text }) }], {})
    return backend
  }

  const textsOf = (records: readonly StoredRecord[]) => records.map(({ record }) => record.text)

  async function view(backend: Backend, options = {}): Promise<unknown[]> {
    const all: StoredRecord[] = []
    for await (const record of backend.read('k', { compacted: true, ...options })) all.push(record)
    return textsOf(all)
  }

  async function summarize(backend: Backend, keep: number, text: string) {
    const { sessionId, base, records, cuts } = (await backend.summarizable('k'))!
    const at = records.length - keep
    return () => backend.summarize('k', { sessionId, base, upTo: cuts.get(at)!, records: at, text }, {})
  }

  describe(`${name}: summaries`, () => {
    test('a key without a session has nothing to be summarized', async () => {
      expect(await (await begin()).summarizable('k')).toBeUndefined()
    })

    test('a summary stands in the place of what it stands for; without being asked for, every record is read', async () => {
      const backend = await begin('a', 'b', 'c')
      const receipt = await (await summarize(backend, 1, 'ab'))()
      expect(receipt).toMatchObject({ ours: true, records: 2 })
      expect(await view(backend)).toEqual(['ab', 'c'])
      expect(textsOf(await backend.tail('k', 9, { compacted: true }))).toEqual(['ab', 'c'])
      expect(textsOf(await backend.tail('k', 9))).toEqual(['a', 'b', 'c'])
      expect(await view(backend, { after: receipt.seq })).toEqual([])
      expect(await backend.summarizable('k')).toMatchObject({
        summary: { record: { text: 'ab', records: 2 } },
        records: [{ record: { text: 'c' } }],
      })
    })

    test('what was appended since it was made stays behind it', async () => {
      const backend = await begin('a', 'b')
      const commit = await summarize(backend, 0, 'ab')
      await backend.append('k', [{ json: '{"text":"c"}' }], {})
      await commit()
      expect(await view(backend)).toEqual(['ab', 'c'])
    })

    test('one that stands for as much and came first, stays; one that stands for more takes its place', async () => {
      const backend = await begin('a', 'b', 'c')
      const [less, same, more] = [
        await summarize(backend, 2, 'a'),
        await summarize(backend, 2, 'a again'),
        await summarize(backend, 0, 'abc'),
      ]
      const first = await less()
      expect(await same()).toEqual({ ...first, ours: false })
      expect(await more()).toMatchObject({ ours: true })
      expect(await view(backend)).toEqual(['abc'])
    })

    test('of a session that the key names no more: SEQ_CONFLICT, and nothing is written', async () => {
      const backend = await begin('a')
      const commit = await summarize(backend, 0, 'a')
      await backend.rotate('k', 'reset', {})
      await expect(commit()).rejects.toMatchObject({ code: 'SEQ_CONFLICT', effect: 'none' })
      await backend.delete('k', {})
      await expect(commit()).rejects.toMatchObject({ code: 'SEQ_CONFLICT', effect: 'none' })
      expect(await backend.get('k')).toBeUndefined()
    })
  })
}
