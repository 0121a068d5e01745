/** A backup, a restore, or a comparison in a process of its own. Says how much memory it took, in bytes. */
import { checkContents, compareBackups, createBackup, openRepository, restoreBackup } from '../../../src/backup/index.js'

const [what, store, directory, into] = process.argv.slice(2) as [string, string, string, string]
const repository = await openRepository({ directory })
if (what === 'create') await createBackup({ repository, store })
const id = (await repository.snapshots())[0]!.id
if (what === 'restore') await restoreBackup({ repository, snapshot: id, into })
if (what === 'compare' && !(await compareBackups({ repository, from: id, to: { store } })).ok) throw new Error('They differ.')
if (what === 'check') {
  const { problems } = await checkContents(repository, [await repository.manifest(id)])
  if (problems.length > 0) throw new Error(JSON.stringify(problems))
}
await repository.close()
process.send!({ rssBytes: process.resourceUsage().maxRSS * 1024 })
process.disconnect()
