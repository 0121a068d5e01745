/** The first record in which two logs differ, read side by side: a record and a buffer of each in memory, whatever their size. */
import { ChainFeed } from '../snapshot/chain-stream.js'

export interface Difference {
  readonly seq: number
  /** The record's JSON text as it stands, at most the first 200 characters; undefined where there is none of that number. */
  readonly before: string | undefined
  readonly now: string | undefined
}

interface Line {
  readonly seq: number
  readonly body: string
}

const excerptChars = 200

/** undefined: all records of the first log stand in the second one, under the same numbers, with the same contents. Marks and the store's own
 *  headers and seals may differ: a log that was made anew has new ones.
 *  @param fromSeq  records before it are not compared: a compaction has moved them to the archive. */
export async function firstDifference(
  then: AsyncIterable<Uint8Array>,
  now: AsyncIterable<Uint8Array>,
  tag: string,
  fromSeq = 0,
): Promise<Difference | undefined> {
  const others = lines(now, tag)
  try {
    let other = await others.next()
    for await (const line of lines(then, tag)) {
      if (line.seq < fromSeq) continue
      while (!other.done && other.value.seq < line.seq) other = await others.next()
      const found = other.done || other.value.seq !== line.seq ? undefined : other.value
      if (found?.body !== line.body) return { seq: line.seq, before: excerpt(line.body), now: found && excerpt(found.body) }
    }
    return undefined
  } finally {
    await others.return(undefined)
  }
}

function excerpt(body: string): string {
  return body.length > excerptChars ? `${body.slice(0, excerptChars)}…` : body
}

const office = /^\{"\$\$":\{"(header|seal)":/

/** What a caller or a turn has written, in order. */
async function* lines(bytes: AsyncIterable<Uint8Array>, tag: string): AsyncGenerator<Line, undefined> {
  let found: Line[] = []
  const feed = new ChainFeed(tag, {
    record(mark, line, start) {
      const body = `${line.toString('utf8', start, start + mark.bodyBytes)}}`
      if (!office.test(body)) found.push({ seq: mark.seq, body })
    },
  })
  const ready = () => {
    const all = found
    found = []
    return all
  }
  for await (const piece of bytes) {
    feed.push(piece)
    yield* ready()
  }
  feed.finish()
  yield* ready()
  return undefined
}
