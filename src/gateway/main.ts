#!/usr/bin/env node
/** `npm run gateway`: the gateway on an embedded store, from the command line. Says where it listens on stdout, and what it does as JSON lines on stderr. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { type Durability, isStoreError, SessionStore, type WhenBusy } from '../index.js'
import { isPostgresAddress, shownAddress } from '../postgres/address.js'
import { createChatHandler } from './handler.js'
import type { ChatModel } from './model.js'
import { echoModel } from './models/echo.js'
import { upstreamModel } from './models/upstream.js'
import { type GatewayServer, serveGateway } from './server.js'

interface Flags {
  readonly store: string
  readonly durability: Durability
  readonly port: number
  readonly host: string
  readonly model: 'echo' | 'upstream'
  readonly echoDelay: number
  readonly baseUrl?: string
  readonly apiKey?: string
  readonly upstreamModel?: string
  readonly token?: readonly string[]
  readonly insecure?: boolean
  readonly corsOrigin?: readonly string[]
  readonly whenBusy: WhenBusy
  readonly history: number
  readonly slots: number
  readonly drainMs: number
}

const exitCodes = { usage: 2, failed: 3 } as const

function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const n = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
    if (!(n >= min && n <= max)) throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`)
    return n
  }
}

const list = (text: string, before: readonly string[] = []) => [...before, ...text.split(',').map((item) => item.trim())].filter(Boolean)

function program(): Command {
  return new Command('holdfast-gateway')
    .description('OpenAI-compatible chat with real session memory, on an embedded store.')
    .addOption(
      new Option('--store <dir>', 'the store: a directory, or postgres://…?schema=…; made where there is none')
        .env('HOLDFAST_STORE')
        .default('./sessions'),
    )
    .addOption(new Option('--durability <how>', 'what an acknowledgement survives').choices(['power', 'process']).default('power'))
    .addOption(new Option('--port <n>', '0 for any').env('HOLDFAST_GATEWAY_PORT').argParser(wholeNumber(0, 65_535)).default(8787))
    .addOption(new Option('--host <address>', 'where to listen').env('HOLDFAST_GATEWAY_HOST').default('127.0.0.1'))
    .addOption(new Option('--model <which>', 'who answers').env('HOLDFAST_GATEWAY_MODEL').choices(['echo', 'upstream']).default('echo'))
    .addOption(new Option('--echo-delay <ms>', 'between the words of the echo').argParser(wholeNumber(0, 60_000)).default(0))
    .addOption(new Option('--base-url <url>', 'of the upstream, up to and with /v1').env('OPENAI_BASE_URL'))
    .addOption(
      new Option('--api-key <key>', 'of the upstream; better in the environment, where `ps` does not show it').env('OPENAI_API_KEY'),
    )
    .addOption(new Option('--upstream-model <name>', 'default: what the request asks for').env('HOLDFAST_GATEWAY_UPSTREAM_MODEL'))
    .addOption(
      new Option('--token <token>', 'bearer token that lets a request in; again or with commas for more')
        .env('HOLDFAST_GATEWAY_TOKEN')
        .argParser(list),
    )
    .addOption(new Option('--insecure', 'listen beyond this machine without a token'))
    .addOption(new Option('--cors-origin <origin>', 'whose pages may call; again or with commas for more').argParser(list))
    .addOption(
      new Option('--when-busy <policy>', 'for requests that do not say')
        .choices(['queue', 'reject', 'coalesce', 'interrupt'])
        .default('queue'),
    )
    .addOption(new Option('--history <n>', 'records that the model is shown').argParser(wholeNumber(1, 10_000)).default(200))
    .addOption(new Option('--slots <n>', 'turns that run at once, of all sessions').argParser(wholeNumber(1, 10_000)).default(64))
    .addOption(
      new Option('--drain-ms <ms>', 'how long to wait for running turns at the end').argParser(wholeNumber(0, 3_600_000)).default(10_000),
    )
    .addHelpText(
      'after',
      `
Examples:
  $ holdfast-gateway --store ./sessions
  $ HOLDFAST_GATEWAY_TOKEN=secret OPENAI_API_KEY=sk-… holdfast-gateway --model upstream --base-url https://api.openai.com/v1`,
    )
    .showHelpAfterError('See --help.')
    .allowExcessArguments(false)
    .exitOverride()
}

const isLoopback = (host: string) => host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)

/** Pages of other sites can reach this machine under names of their own; without a token only the machine's own names are answered. */
const ownNames = ['localhost', '127.0.0.1', '[::1]']

async function start(flags: Flags): Promise<void> {
  const tokens = flags.token ?? []
  if (tokens.length === 0 && !isLoopback(flags.host) && !flags.insecure)
    throw new InvalidArgumentError(
      `Listening on ${flags.host} without a token lets everybody in. Set HOLDFAST_GATEWAY_TOKEN, or say --insecure.`,
    )
  const model = modelOf(flags)
  const lanes = { main: flags.slots }
  const inDatabase = isPostgresAddress(flags.store)
  const store = inDatabase
    ? await (await import('../postgres.js')).openPostgres(flags.store, { lanes })
    : await SessionStore.open(flags.store, { durability: flags.durability, lanes })
  const handler = createChatHandler({
    store,
    model,
    modelName: flags.model === 'echo' ? 'echo' : (flags.upstreamModel ?? 'upstream'),
    whenBusy: flags.whenBusy,
    historyMax: flags.history,
    tokens: tokens.length > 0 ? tokens : undefined,
    hosts: tokens.length === 0 && isLoopback(flags.host) ? [...new Set([...ownNames, flags.host])] : undefined,
    corsOrigins: flags.corsOrigin,
    log: (line) => say(line),
  })
  let gateway: GatewayServer
  try {
    gateway = await serveGateway(handler, { port: flags.port, host: flags.host })
  } catch (error) {
    await store.close()
    throw error
  }
  process.stdout.write(
    `holdfast-gateway: ${gateway.url}, store ${inDatabase ? shownAddress(flags.store) : flags.store}, model ${flags.model}\n`,
  )
  await asked()
  say({ event: 'closing', drainMs: flags.drainMs })
  await gateway.close({ drainMs: flags.drainMs })
  await store.close()
  say({ event: 'closed' })
}

function modelOf(flags: Flags): ChatModel {
  if (flags.model === 'echo') return echoModel({ delayMs: flags.echoDelay })
  return upstreamModel({ baseUrl: flags.baseUrl, apiKey: flags.apiKey, model: flags.upstreamModel })
}

function say(line: object): void {
  process.stderr.write(`${JSON.stringify(line)}\n`)
}

/** The first SIGINT or SIGTERM asks it to come to an end, the second one ends the process. */
function asked(): Promise<void> {
  return new Promise((resolve) => {
    let times = 0
    const signalled = () => {
      if (++times > 1) process.exit(130)
      resolve()
    }
    process.on('SIGINT', signalled)
    process.on('SIGTERM', signalled)
  })
}

async function main(argv: readonly string[]): Promise<void> {
  // Set to nothing is not set.
  for (const name of Object.keys(process.env)) if (/^(HOLDFAST|OPENAI)_/.test(name) && process.env[name] === '') delete process.env[name]
  const command = program()
  try {
    await start(command.parse(argv).opts<Flags>())
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error instanceof InvalidArgumentError) process.stderr.write(`holdfast-gateway: ${error.message}\n`)
      process.exitCode = error.exitCode === 0 ? 0 : exitCodes.usage
      return
    }
    process.exitCode = isStoreError(error) && error.kind === 'misuse' ? exitCodes.usage : exitCodes.failed
    process.stderr.write(`holdfast-gateway: ${error instanceof Error ? error.message : String(error)}\n`)
  }
}

await main(process.argv)
