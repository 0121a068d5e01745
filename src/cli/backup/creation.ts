/** The keys of a repository that may have to be made first, and what is said when it was. */
import { existsSync } from 'node:fs'
import type { EncryptionOptions, MadeRepository } from '../../backup/index.js'
import { writeWholeFile } from '../../file/durable.js'
import { CommandError, exitCodes } from '../exit.js'
import { plain, remark } from '../output.js'
import { encryptionOf, type TargetOptions } from './target.js'

interface CreationOptions extends TargetOptions {
  readonly recipient?: readonly string[]
}

interface Creation {
  readonly encryption: EncryptionOptions | undefined
  readonly onCreated: (made: MadeRepository) => Promise<void>
}

/** A key file that is there opens the repository; one that is not is where the key goes. */
export function creation({ recipient: recipients = [], keyFile, ...rest }: CreationOptions): Creation {
  const isNewKey = keyFile !== undefined && !existsSync(keyFile)
  const given = encryptionOf(isNewKey ? rest : { ...rest, ...(keyFile !== undefined && { keyFile }) })
  const encryption = recipients.length > 0 ? { ...given, recipients } : given
  if (isNewKey && !encryption)
    throw new CommandError(
      exitCodes.usage,
      `--key-file ${keyFile} is not there.`,
      'Check the path; a new one needs --recipient or a passphrase.',
    )
  if (recipients.length > 0 && !given && !isNewKey)
    throw new CommandError(
      exitCodes.usage,
      'With --recipient alone, nothing could be added to the repository a second time.',
      'Name --key-file FILE, where the key for adding is to be kept.',
    )
  return {
    encryption,
    async onCreated({ id, isEncrypted, key }) {
      if (key !== undefined && isNewKey) await writeWholeFile(keyFile, Buffer.from(key))
      const kept = key !== undefined && isNewKey ? `; the key for adding is in ${plain(keyFile)}` : ''
      remark(`made repository ${id} in ${plain(rest.to)}, ${isEncrypted ? 'encrypted' : 'not encrypted'}${kept}`)
    },
  }
}
