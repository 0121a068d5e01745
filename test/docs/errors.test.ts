import { describe, expect, test } from 'vitest'
import { errorCodes, StoreError } from '../../src/errors.js'
import { headingsOf, readPage } from './markdown.js'

const page = 'docs/errors.md'

test('docs/errors.md has a heading for each code, in their order, and no other', () => {
  expect(headingsOf(page, 2)).toEqual(errorCodes)
})

describe('what the page says of a code is what the code says of itself', () => {
  for (const code of errorCodes)
    test(code, () => {
      const facts = new RegExp(`^## ${code}\n\n(\\w+) · effect none(?: or unknown)? · ((?:not )?retryable)\n`, 'm').exec(readPage(page))
      const error = new StoreError(code, '')
      expect(facts?.slice(1)).toEqual([error.kind, error.retryable ? 'retryable' : 'not retryable'])
    })
})
