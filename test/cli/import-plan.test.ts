import { describe, expect, test } from 'vitest'
import { fieldsDigest } from '../../src/cli/import/identity.js'
import { type Present, planEntry, planMeeting } from '../../src/cli/import/plan.js'
import type { Entry } from '../../src/index.js'

const nothing: Present = { mine: new Set(), othersImported: 0, own: 0 }
const entryWith = (fields: object): Entry => ({ sessionId: 'store-1', createdAt: 1, updatedAt: 2, revision: 3, ...fields })
const wish = { format: 'openclaw', sessionId: 's1', merge: false } as const

describe('how a source meets a session of the store', () => {
  const taken = { imported: { format: 'openclaw', sessionId: 's1', records: 7, into: 'store-1' } }

  test.each<[string, Present, Entry | undefined, Partial<{ format: 'pi' | 'openclaw'; sessionId: string; merge: boolean }>, string]>([
    ['nothing is there', nothing, undefined, {}, 'append'],
    ['an entry without records is there', nothing, entryWith({}), {}, 'append'],
    ['some of its records are there', { ...nothing, mine: new Set(['x']) }, entryWith(taken), {}, 'append'],
    ['its records and later ones are there', { ...nothing, mine: new Set(['x']), own: 3 }, entryWith(taken), {}, 'append'],
    ['an application has written there', { ...nothing, own: 1 }, entryWith({}), {}, 'refused'],
    ['the same, but mixing was asked for', { ...nothing, own: 1 }, entryWith({}), { merge: true }, 'append'],
    ['the key was reset at the source', { ...nothing, othersImported: 5 }, entryWith(taken), { sessionId: 's2' }, 'rotate'],
    [
      'the same, but an application has written since',
      { ...nothing, othersImported: 5, own: 1 },
      entryWith(taken),
      { sessionId: 's2' },
      'refused',
    ],
    ['two pi files under one key', { ...nothing, othersImported: 5 }, entryWith(taken), { format: 'pi', sessionId: 's2' }, 'refused'],
    ['the session was rotated here since', nothing, { ...entryWith(taken), sessionId: 'store-2' }, {}, 'archived'],
    ['the same, with records since', { ...nothing, own: 2 }, { ...entryWith(taken), sessionId: 'store-2' }, {}, 'archived'],
    [
      'the same, but mixing was asked for',
      { ...nothing, own: 2 },
      { ...entryWith(taken), sessionId: 'store-2' },
      { merge: true },
      'append',
    ],
  ])('%s', (_case, present, entry, change, kind) => {
    expect(planMeeting(present, entry, { ...wish, ...change }).kind).toBe(kind)
  })
})

describe('what becomes of the fields', () => {
  const facts = { format: 'openclaw', sessionId: 's1' } as const

  test('a new session gets the fields of the source', () => {
    expect(planEntry(undefined, { model: 'm' }, facts).fields).toEqual({
      model: 'm',
      imported: { ...facts, fields: fieldsDigest({ model: 'm' }) },
    })
  })

  test('the second time there is nothing to write, whatever the order of the fields', () => {
    const offered = { model: 'm', deep: { a: 1, b: [1, { c: 2, d: 3 }] } }
    const { fields } = planEntry(undefined, offered, facts)
    const stored = entryWith({ imported: fields?.imported, deep: { b: [1, { d: 3, c: 2 }], a: 1 }, model: 'm' })
    expect(planEntry(stored, offered, facts)).toEqual({ fields: undefined, note: undefined })
  })

  test('fields that changed at the source, and not here, are taken', () => {
    const first = planEntry(undefined, { model: 'm' }, facts).fields!
    expect(planEntry(entryWith(first), { model: 'n' }, facts).fields).toMatchObject({ model: 'n' })
  })

  test('fields that somebody changed here are left as they are, and that is said', () => {
    const first = planEntry(undefined, { model: 'm' }, facts).fields!
    const changed = entryWith({ ...first, model: 'mine' })
    const plan = planEntry(changed, { model: 'n' }, facts)
    expect(plan.note).toMatch(/changed here/)
    expect({ ...first, model: 'mine', ...plan.fields }).toMatchObject({ model: 'mine' })
    // And so it stays.
    expect(planEntry(entryWith({ ...first, model: 'mine', ...plan.fields }), { model: 'n' }, facts).fields).toBeUndefined()
  })

  test('fields that somebody changed here raise no remark while the source stands still', () => {
    const first = planEntry(undefined, { model: 'm' }, facts).fields!
    expect(planEntry(entryWith({ ...first, model: 'mine' }), { model: 'm' }, facts)).toEqual({ fields: undefined, note: undefined })
  })

  test('an application that was there first keeps its fields', () => {
    const plan = planEntry(entryWith({ model: 'mine' }), { model: 'm' }, facts)
    expect(plan.fields).toMatchObject({ model: 'mine', imported: { sessionId: 's1' } })
    expect(plan.note).toMatch(/changed here/)
  })
})
