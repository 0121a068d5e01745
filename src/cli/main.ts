#!/usr/bin/env node
/** `holdfast`: from the arguments to an exit code. */
import { run } from './program.js'

// `holdfast list | head`: the reader has seen enough; that is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit()
  throw error
})
// Set to nothing is not set.
if (process.env.HOLDFAST_STORE === '') delete process.env.HOLDFAST_STORE
await run(process.argv)
