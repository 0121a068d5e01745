/** A store's address, postgres://…: decides, touches nothing. */
export const postgresAddress = /^postgres(ql)?:\/\//

/** Whether it names a database and not a directory. */
export function isPostgresAddress(place: string): boolean {
  return postgresAddress.test(place)
}

/** As it may be shown: without its password. */
export function shownAddress(place: string): string {
  if (!URL.canParse(place)) return place.replace(/:\/\/.*@/, '://…@')
  const url = new URL(place)
  if (url.password) url.password = '…'
  if (url.searchParams.has('password')) url.searchParams.set('password', '…')
  return decodeURI(url.href)
}

/** The schema that an address names in its query, and the address without that. */
export function partedAddress(place: string): { connectionString: string; schema: string | undefined } {
  if (!URL.canParse(place)) return { connectionString: place, schema: undefined }
  const url = new URL(place)
  const schema = url.searchParams.get('schema') ?? undefined
  url.searchParams.delete('schema')
  return { connectionString: url.href, schema }
}
