/** For the whole run: a directory in which a server may be started, and its end. */
import fs from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { directoryVariable, postmasterOf, runVariable, stop } from './server.js'

export default function setup(): () => Promise<void> {
  const directory = fs.mkdtempSync(join(os.tmpdir(), 'holdfast-postgres-'))
  // The server runs as another user where the tests run as root, and has to get to its directory.
  fs.chmodSync(directory, 0o755)
  process.env[directoryVariable] = directory
  process.env[runVariable] = String(process.pid)
  return async () => {
    const data = join(directory, 'data')
    if (postmasterOf(data) !== undefined) await stop(data)
    fs.rmSync(directory, { recursive: true, force: true })
  }
}
