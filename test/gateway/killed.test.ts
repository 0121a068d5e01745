// The gateway is killed in mid-stream, again and again, and started again on the same store. Clients are the official one, with idempotency keys.
// What a client has heard to the end is on disk, once; what it has not is answered when it tries again; each conversation goes on.
// F28 the first message is on disk before there is a reply · F35 no message is gone for good · F20, F23 nothing torn, nothing twice
import fs from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { SessionStore } from '../../src/index.js'
import { seededRandom } from '../simulation/seeded-random.js'
import { clientOf, freshDirectory, type GatewayProcess, killAll, startGateway } from './gateway-process.js'

let dir: string
let storeDir: string
beforeEach(() => {
  dir = freshDirectory()
  storeDir = join(dir, 'store')
})
afterEach(() => {
  killAll()
  fs.rmSync(dir, { recursive: true, force: true })
})

const conversations = 8
const questions = 6
const kills = 6

interface Heard {
  readonly question: string
  readonly reply: string
  readonly tries: number
}

test('SIGKILL of the gateway in mid-stream, with 8 conversations: nothing acknowledged is lost, nothing is doubled, each goes on', {
  timeout: 120_000,
}, async () => {
  const seed = Number.parseInt(process.env.HOLDFAST_SEED ?? String(Math.floor(Math.random() * 2 ** 32)), 10)
  console.log(`seed ${seed}: HOLDFAST_SEED=${seed} npx vitest run test/gateway/killed.test.ts`)
  const random = seededRandom(seed)
  const flags = ['--store', storeDir, '--echo-delay', '4']
  let gateway = await startGateway(flags)
  let speaking = 0
  let killedInMidStream = 0
  let over = false

  /** Tries until it has heard [DONE]; the official client takes a stream that breaks for an error. */
  async function hear(key: string, question: string): Promise<Heard> {
    for (let tries = 1; ; tries++) {
      let reply = ''
      let finish: string | null | undefined
      try {
        const client = clientOf(gateway, key, { timeout: 10_000 })
        const headers = { 'Idempotency-Key': `${key}/${question}` }
        const stream = await client.chat.completions.create(
          { model: 'echo', messages: [{ role: 'user', content: question }], stream: true },
          { headers },
        )
        speaking++
        try {
          for await (const chunk of stream) {
            reply += chunk.choices[0]?.delta.content ?? ''
            finish = chunk.choices[0]?.finish_reason ?? finish
          }
        } finally {
          speaking--
        }
        if (finish === 'stop') return { question, reply, tries }
      } catch {
        // Killed, or not there yet.
      }
      await sleep(40)
    }
  }

  async function converse(key: string): Promise<Heard[]> {
    const heard: Heard[] = []
    for (let n = 1; n <= questions; n++) heard.push(await hear(key, `question ${n} of ${key}: one two three four five`))
    return heard
  }

  async function killAgainAndAgain(): Promise<void> {
    for (let n = 0; n < kills && !over; n++) {
      await sleep(150 + random() * 350)
      if (speaking > 0) killedInMidStream++
      await gateway.stop('SIGKILL')
      gateway = await startGateway(flags)
    }
  }

  const keys = Array.from({ length: conversations }, (_, n) => `agent:main:web:${n}`)
  const [all] = await Promise.all([
    Promise.all(keys.map(converse)).finally(() => {
      over = true
    }),
    killAgainAndAgain(),
  ])
  const tries = all.flat().reduce((sum, one) => sum + one.tries, 0)
  console.log(`${killedInMidStream} kills in mid-stream, ${tries} tries for ${conversations * questions} questions`)
  expect(killedInMidStream).toBeGreaterThan(1)
  expect(tries).toBeGreaterThan(conversations * questions)

  await expectAfter(gateway, keys, all)
})

async function expectAfter(gateway: GatewayProcess, keys: readonly string[], all: readonly Heard[][]): Promise<void> {
  await using store = await SessionStore.open(storeDir, { readOnly: true })
  expect((await store.verify()).damage).toEqual([])
  for (const [at, key] of keys.entries()) {
    const asked: string[] = []
    const whole: string[] = []
    const broken: string[] = []
    for await (const { record } of store.session(key).read()) {
      if (record.type !== 'message') continue
      const { role, content } = record.message as { role: string; content: string }
      if (role === 'user') asked.push(content)
      else if (record.interrupted === true) broken.push(content)
      else whole.push(content)
    }
    // Every question once, in order, however often it was sent; every reply that a client has heard, once, in order, and no other whole one.
    expect(asked).toEqual(all[at]!.map(({ question }) => question))
    expect(whole).toEqual(all[at]!.map(({ reply }) => reply))
    const next = await clientOf(gateway, key).chat.completions.create({ model: 'echo', messages: [{ role: 'user', content: 'and on' }] })
    expect(next.choices[0]!.message.content).toContain(`You said: and on (message ${questions + 1} from you`)
  }
}
