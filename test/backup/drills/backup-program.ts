/** One backup, as fast as it goes. Arguments: the store, the repository's directory. Says when it begins. */
import { createBackup, openRepository } from '../../../src/backup/index.js'

const [store, directory] = process.argv.slice(2) as [string, string]
const repository = await openRepository({ directory })
process.send?.({ beginsMs: Number(process.hrtime.bigint()) / 1e6 })
const { snapshot, findings, bytesRead } = await createBackup({ repository, store })
await repository.close()
process.send?.({ id: snapshot.id, findings, bytesRead })
process.disconnect?.()
