/** A fleet as a process of its own, so that it can be put where the tests cannot go: options in, outcome out. */
import fs from 'node:fs'
import { Fleet, type FleetOptions } from '../../src/cli/stress/fleet.js'

const options = JSON.parse(process.argv[2] ?? '{}') as FleetOptions
fs.mkdirSync(options.ledgerDir, { recursive: true })
const outcome = await new Fleet({ ...options, programs: new URL('../../src/cli/stress/', import.meta.url) }).run()
process.stdout.write(JSON.stringify(outcome))
