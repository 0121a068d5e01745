/** age (https://age-encryption.org/v1) by `age-encryption`, loaded only where something is encrypted. Whole objects at a time: what is
 *  returned has been authenticated to its last byte, and whatever is not throws. */
import { StoreError } from '../../errors.js'

const library = () => import('age-encryption')

const asBuffer = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** @throws INVALID_OPTION  one of them is no recipient that this library knows. */
export async function encryptFor(recipients: readonly string[], bytes: Uint8Array): Promise<Buffer> {
  const { Encrypter } = await library()
  const encrypter = new Encrypter()
  for (const recipient of recipients) {
    try {
      encrypter.addRecipient(recipient)
    } catch (error) {
      throw new StoreError('INVALID_OPTION', `${JSON.stringify(recipient)} is no recipient of age.`, {
        cause: error,
        hint: 'A recipient is what `age-keygen` prints as the public key: it begins with age1.',
      })
    }
  }
  return asBuffer(await encrypter.encrypt(bytes))
}

/** @throws what the library throws; see `isOtherKey`. */
export async function decryptWith(identities: readonly string[], bytes: Uint8Array): Promise<Buffer> {
  const { Decrypter } = await library()
  const decrypter = new Decrypter()
  for (const identity of identities) decrypter.addIdentity(identity)
  return asBuffer(await decrypter.decrypt(bytes))
}

/** As a text that can stand in JSON, and that the `age` tool reads. */
export async function lockText(
  text: string,
  by: { readonly recipients: readonly string[] } | { readonly passphrase: string; workFactor: number },
) {
  const { armor, Encrypter } = await library()
  if ('recipients' in by) return armor.encode(await encryptFor(by.recipients, Buffer.from(text)))
  const encrypter = new Encrypter()
  encrypter.setPassphrase(by.passphrase)
  encrypter.setScryptWorkFactor(by.workFactor)
  return armor.encode(await encrypter.encrypt(text))
}

export async function unlockText(armored: string, by: { readonly identities: readonly string[] } | { readonly passphrase: string }) {
  const { armor, Decrypter } = await library()
  const bytes = armor.decode(armored)
  if ('identities' in by) return (await decryptWith(by.identities, bytes)).toString('utf8')
  const decrypter = new Decrypter()
  decrypter.addPassphrase(by.passphrase)
  return decrypter.decrypt(bytes, 'text')
}

/** Whole, as far as can be told, but not for these keys. */
export function isOtherKey(error: unknown): boolean {
  return error instanceof Error && /no identity matched/.test(error.message)
}

export async function freshIdentity(): Promise<string> {
  const { generateX25519Identity } = await library()
  return generateX25519Identity()
}

/** @throws INVALID_OPTION */
export async function recipientOf(identity: string): Promise<string> {
  const { identityToRecipient } = await library()
  try {
    return await identityToRecipient(identity)
  } catch (error) {
    // Never the identity itself: it is a secret.
    throw new StoreError('INVALID_OPTION', 'An identity is none that age knows: it should begin with AGE-SECRET-KEY-1.', { cause: error })
  }
}
