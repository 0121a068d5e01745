/** What a backup notices about what it copies.
 *
 *  damage: bytes are not what they were written as · alarm: everything may parse, and yet something is not there that a good snapshot
 *  has · warning: a file could not be read, or not at rest · notice: good to know. Damage and alarm mark the snapshot. */
export type FindingLevel = 'damage' | 'alarm' | 'warning' | 'notice'

export interface BackupFinding {
  readonly level: FindingLevel
  /** In the snapshot. */
  readonly path: string
  readonly key: string | undefined
  readonly sessionId: string | undefined
  /** One or two sentences to a person. */
  readonly message: string
}

export function marksSnapshot({ level }: BackupFinding): boolean {
  return level === 'damage' || level === 'alarm'
}

/** The order in which a person wants to read them. */
export function worstFirst(findings: readonly BackupFinding[]): BackupFinding[] {
  const order: readonly FindingLevel[] = ['damage', 'alarm', 'warning', 'notice']
  return [...findings].sort((a, b) => order.indexOf(a.level) - order.indexOf(b.level))
}

/** As it stands in a manifest. */
export function findingText({ level, path, message }: BackupFinding): string {
  return `${level} ${path}: ${message}`
}
