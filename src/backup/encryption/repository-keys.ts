/** The keys of an encrypted repository.
 *
 *  Two identities of age. What files contain is encrypted for the *recipients*; who has one of their identities reads everything. The
 *  catalogue (names, manifests, index, marks) is encrypted for an identity of its own, from which the secrets also come that name chunks
 *  and seal texts. A machine that backs up needs only the latter: it finds out what is there, adds to it, forgets and prunes; what files
 *  contain it cannot open. The catalogue's identity stands in the repository, encrypted for the recipients; both stand there once more,
 *  encrypted with the passphrase, where there is one.
 *
 *  For whom new snapshots are encrypted is never taken from the target alone: whoever can write there could add a recipient of their own.
 *  It is vouched for by the passphrase (only who has it could have made what it opens), by the key file, or by whoever opens the
 *  repository with an identity and names the others. */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import { StoreError } from '../../errors.js'
import type { EncryptionOptions } from '../repository/access.js'
import { decryptWith, encryptFor, freshIdentity, isOtherKey, lockText, recipientOf, unlockText } from './age.js'
import { gearOf, type Keyring } from './keyring.js'

/** What stands in the repository's description. */
export interface StoredKeys {
  readonly kind: 'age'
  readonly recipients: readonly string[]
  readonly catalogue: string
  readonly keys: { readonly catalogue: string; readonly passphrase?: string | undefined }
  readonly proof: string
}

interface Secrets {
  readonly catalogue: string
  /** None: what files contain stays closed. */
  readonly contents: readonly string[]
  /** For whom the holder of the keys wants it encrypted, or agrees to. */
  readonly vouched: readonly string[]
}

export interface RepositoryKeys {
  readonly keyring: Keyring
  readonly stored: StoredKeys
  /** The text of the key file. */
  readonly key: string
}

const workFactorDefault = 18

export async function createKeys(repository: string, options: EncryptionOptions): Promise<RepositoryKeys> {
  const { passphrase, identities = [], passphraseWork: workFactor = workFactorDefault } = options
  if (options.key !== undefined) throw misuse('A key file belongs to a repository that is there already.')
  if (passphrase === '') throw misuse('The passphrase is empty.')
  const own = passphrase === undefined ? undefined : await freshIdentity()
  const named = [...(options.recipients ?? []), ...(await Promise.all(identities.map(recipientOf)))]
  const recipients = [...new Set([...(own ? [await recipientOf(own)] : []), ...named])]
  if (recipients.length === 0) throw misuse('Encryption needs a passphrase, or recipients.')
  const catalogue = await freshIdentity()
  const keys = {
    catalogue: await lockText(`${catalogue}\n`, { recipients }),
    ...(passphrase && own ? { passphrase: await lockText(`${own}\n${catalogue}\n`, { passphrase, workFactor }) } : {}),
  }
  const unproven = { kind: 'age' as const, recipients, catalogue: await recipientOf(catalogue), keys }
  const stored = { ...unproven, proof: proofOf(repository, catalogue, unproven) }
  const secrets = { catalogue, contents: [...(own ? [own] : []), ...identities], vouched: recipients }
  return { keyring: ageKeyring(repository, stored, secrets), stored, key: keyText(repository, recipients, catalogue) }
}

/** @throws INVALID_OPTION  the keys are not those of this repository · BACKUP_MISMATCH  its description has been changed. */
export async function openKeys(repository: string, stored: StoredKeys, options: EncryptionOptions, place: string): Promise<RepositoryKeys> {
  const secrets = await unlock(repository, stored, options)
  const isProven = same(proofOf(repository, secrets.catalogue, stored), stored.proof)
  if (!isProven || (await recipientOf(secrets.catalogue)) !== stored.catalogue)
    throw new StoreError('BACKUP_MISMATCH', `What ${place} says of its own encryption is not what was stored.`, {
      details: { place },
      hint: 'Somebody has changed it. Do not back up to it before you know who.',
    })
  const missing = (options.recipients ?? []).filter((it) => !stored.recipients.includes(it))
  if (missing.length > 0) throw misuse(`The repository is not encrypted for ${missing.join(', ')}.`)
  return {
    keyring: ageKeyring(repository, stored, secrets),
    stored,
    key: keyText(repository, stored.recipients, secrets.catalogue),
  }
}

async function unlock(repository: string, stored: StoredKeys, options: EncryptionOptions): Promise<Secrets> {
  const vouched = options.recipients ?? []
  try {
    if (options.passphrase !== undefined) {
      if (!stored.keys.passphrase) throw misuse('The repository has no passphrase: open it with an identity or a key file.')
      const [contents = '', catalogue = ''] = (await unlockText(stored.keys.passphrase, { passphrase: options.passphrase })).split('\n')
      return { catalogue, contents: [contents], vouched: stored.recipients }
    }
    if (options.identities?.length) {
      const own = await Promise.all(options.identities.map(recipientOf))
      const [catalogue = ''] = (await unlockText(stored.keys.catalogue, { identities: options.identities })).split('\n')
      return { catalogue, contents: options.identities, vouched: [...own, ...vouched] }
    }
  } catch (error) {
    if (error instanceof StoreError) throw error
    const given = options.passphrase === undefined ? 'identity' : 'passphrase'
    if (isOtherKey(error)) throw misuse(`The ${given} does not open this repository.`, error)
    throw new StoreError('BACKUP_MISMATCH', 'The keys that stand in the repository are not what was stored.', { cause: error })
  }
  if (options.key !== undefined) return { ...parseKeyText(options.key, repository), contents: [] }
  throw misuse('The repository is encrypted: a passphrase, an identity or a key file is needed.')
}

function ageKeyring(repository: string, { recipients, catalogue }: StoredKeys, secrets: Secrets): Keyring {
  const nameKey = derived(repository, secrets.catalogue, 'names')
  const sealKey = derived(repository, secrets.catalogue, 'seals')
  return {
    suffix: '.age',
    canReadContents: secrets.contents.length > 0,
    nameOf: (chunk) => createHmac('sha256', nameKey).update(chunk).digest('hex'),
    sealOf: (text) => createHmac('sha256', sealKey).update(text).digest('hex'),
    // With a key of its own: where chunks are cut would otherwise tell who looks at their lengths what is in them.
    gear: gearOf(derived(repository, secrets.catalogue, 'cuts')),
    wrap: (bytes, of) => encryptFor(of === 'contents' ? recipients : [catalogue], bytes),
    async unwrap(bytes, of, object) {
      try {
        return await decryptWith(of === 'contents' ? secrets.contents : [secrets.catalogue], bytes)
      } catch (error) {
        const why = isOtherKey(error) ? 'it is encrypted for another key' : 'it is truncated or altered: it does not decrypt'
        throw new StoreError('BACKUP_MISMATCH', `${object} is not what was stored: ${why}.`, { cause: error, details: { object, why } })
      }
    },
    assertMayWrite() {
      const strangers = recipients.filter((it) => !secrets.vouched.includes(it))
      if (strangers.length > 0)
        throw misuse(
          `The repository is also encrypted for ${strangers.join(', ')}: name these recipients, too, to say that they may read what you add.`,
        )
    },
  }
}

const derived = (repository: string, catalogue: string, what: string) =>
  Buffer.from(hkdfSync('sha256', catalogue, repository, `holdfast backup ${what}`, 32))

function proofOf(repository: string, secret: string, { recipients, catalogue, keys }: Omit<StoredKeys, 'proof'>): string {
  const facts = [repository, recipients, catalogue, keys.catalogue, keys.passphrase ?? null]
  return createHmac('sha256', derived(repository, secret, 'seals'))
    .update(JSON.stringify(facts))
    .digest('hex')
}

const same = (a: string, b: string) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b))

function keyText(repository: string, recipients: readonly string[], catalogue: string): string {
  return `# A key of a holdfast backup. It adds snapshots, lists, forgets and prunes them; it does not open what they contain.
# repository: ${repository}
${recipients.map((it) => `# recipient: ${it}\n`).join('')}${catalogue}
`
}

function parseKeyText(text: string, repository: string): { catalogue: string; vouched: string[] } {
  const all = (pattern: RegExp) => [...text.matchAll(pattern)].map(([, value]) => value!)
  const [catalogue] = all(/^(AGE-SECRET-KEY-1[0-9A-Z]+)\s*$/gm)
  if (!catalogue) throw misuse('The key file has no key in it.')
  const [id] = all(/^# repository: ([0-9a-f]{32})\s*$/gm)
  if (id !== repository) throw misuse(`The key file belongs to ${id ? `the repository ${id}` : 'no repository'}, not to ${repository}.`)
  return { catalogue, vouched: all(/^# recipient: (\S+)\s*$/gm) }
}

function misuse(message: string, cause?: unknown): StoreError {
  return new StoreError('INVALID_OPTION', message, cause === undefined ? {} : { cause })
}
