/** The store's own schema in the database: its name, and how it stands in a statement. */
import { StoreError } from '../errors.js'

const namePattern = /^[\p{L}_][\p{L}\p{N}_ -]*$/u
/** What PostgreSQL keeps of a name. */
const nameBytesMax = 63

/** Quoted, to be put into statements. @throws INVALID_OPTION */
export function quotedSchema(name: string): string {
  const why =
    typeof name !== 'string' || !namePattern.test(name)
      ? 'has letters, digits, _, - and spaces, and begins with a letter or _'
      : Buffer.byteLength(name) > nameBytesMax
        ? `has at most ${nameBytesMax} bytes`
        : /^pg_/i.test(name)
          ? 'does not begin with pg_, which is PostgreSQL’s own'
          : undefined
  if (why === undefined) return `"${name}"`
  throw new StoreError('INVALID_OPTION', `a schema name ${why}; not ${JSON.stringify(name)}.`, {
    details: { option: 'schema' },
    hint: 'Nothing was done.',
  })
}
