/** A writer process: opens the store, works until it is told to stop, undergoes what it is told to. Ends when the channel to the
 *  coordinator closes, whatever else it is doing. With `thread`, a worker thread of the same program works beside the main one. */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Ordeal, type Order } from './ordeal.js'
import { type Tally, Workload, type WriterOptions } from './workload.js'

export type ToWriter = { readonly do: 'stop' } | { readonly do: 'undergo'; readonly order: Order }

export type FromWriter =
  | { readonly is: 'running' }
  | { readonly is: 'struck'; readonly order: Order }
  | { readonly is: 'tally'; readonly part: 'process' | 'thread'; readonly tally: Tally }
  | { readonly is: 'failed'; readonly message: string }

/** What the coordinator passes as the one argument, as JSON. */
export interface WriterArgument extends WriterOptions {
  readonly thread: boolean
}

const tallyEveryMs = 250
const part = isMainThread ? 'process' : 'thread'

/** From the coordinator, or from the main thread. */
function hear(listener: (message: ToWriter) => void): void {
  if (parentPort) parentPort.on('message', listener)
  else process.on('message', listener)
}

function say(message: FromWriter): void {
  if (parentPort) parentPort.postMessage(message)
  else process.send?.(message)
}

/** Everything that was said is on its way when this resolves. */
function sayLast(message: FromWriter): Promise<void> {
  if (!process.send || parentPort) {
    say(message)
    return Promise.resolve()
  }
  return new Promise((resolve) => process.send?.(message, () => resolve()))
}

interface Companion {
  tell(message: ToWriter): void
  readonly ended: Promise<void>
}

function startThread(argument: WriterArgument): Companion {
  const workerData: WriterArgument = { ...argument, writer: `${argument.writer}t`, thread: false }
  const worker = new Worker(new URL(import.meta.url), { workerData })
  worker.on('message', say)
  return {
    tell: (message) => worker.postMessage(message),
    ended: new Promise((resolve, reject) => {
      worker.once('error', reject)
      worker.once('exit', () => resolve())
    }),
  }
}

async function main(argument: WriterArgument): Promise<void> {
  const companion = isMainThread && argument.thread ? startThread(argument) : undefined
  const ordeal = new Ordeal((order) => say({ is: 'struck', order }))
  const workload = new Workload(argument, ordeal)
  const told = new Promise<void>((resolve) =>
    hear((message) => {
      if (message.do === 'undergo') ordeal.expect(message.order)
      else {
        companion?.tell(message)
        resolve()
      }
    }),
  )
  await workload.open()
  say({ is: 'running' })
  const ticker = setInterval(() => say({ is: 'tally', part, tally: workload.tally() }), tallyEveryMs)
  // A workload that breaks is not waited out.
  await Promise.race([told.then(() => workload.stop()), workload.broken])
  clearInterval(ticker)
  await companion?.ended
  await workload.close()
  await sayLast({ is: 'tally', part, tally: workload.tally() })
}

if (isMainThread) {
  process.on('disconnect', () => process.exit())
  // Ctrl-C reaches the whole process group; when to end is the coordinator's to say.
  process.on('SIGINT', () => {})
}
try {
  await main((isMainThread ? JSON.parse(process.argv[2] ?? '{}') : workerData) as WriterArgument)
} catch (error) {
  process.exitCode = 1
  await sayLast({ is: 'failed', message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
}
if (isMainThread) process.disconnect?.()
else parentPort?.close()
