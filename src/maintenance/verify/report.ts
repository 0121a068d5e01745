/** What has been found so far, in bounded memory. */
import type { Finding, FindingKind } from '../../findings.js'
import type { Damage, FileReport, VerifyReport } from '../../types.js'
import type { ScannedLog } from './log-scan.js'
import { meanings } from './meanings.js'

const perKindMax = 10_000

export class Report {
  #files: FileReport[] = []
  #damage: Damage[] = []
  #findings: Finding[] = []
  #omitted: Partial<Record<FindingKind, number>> = {}
  #counts = new Map<FindingKind, number>()

  file(report: FileReport): void {
    this.#files.push(report)
  }

  /** Damage of a log is told once in `damage`, by its first place: that is where readers stop. */
  log(file: string, kind: FileReport['kind'], scanned: ScannedLog): void {
    const { bytes, records, lastSeq, voidLines, undecidedBytes, seal, damage } = scanned
    this.file({ file, kind, bytes, records, lastSeq, voidLines, tornTailBytes: undecidedBytes, sealed: seal !== undefined })
    if (damage) {
      const { byte, seq, why } = damage
      this.damage({ file, code: 'LOG_CORRUPT', message: `${file} is damaged at byte ${byte}, seq ${seq}: ${why}.`, byte, seq })
    }
    for (const finding of scanned.findings) this.note(finding)
    this.omit(scanned.omitted)
  }

  damage(damage: Damage): void {
    this.#damage.push(damage)
  }

  /** A finding that is no log's own: when it is damage, `damage` tells it, too. */
  find(finding: Finding, code: Damage['code'] = 'LOG_CORRUPT'): void {
    this.note(finding)
    if (finding.severity !== 'damage') return
    const { file, meaning, bytes, seqs } = finding
    this.damage({ file, code, message: meaning, byte: bytes?.from, seq: seqs?.from })
  }

  /** A finding whose damage is told otherwise. */
  note(finding: Finding): void {
    const count = (this.#counts.get(finding.kind) ?? 0) + 1
    this.#counts.set(finding.kind, count)
    if (count <= perKindMax) this.#findings.push(finding)
    else this.omit({ [finding.kind]: finding.count })
  }

  omit(more: Readonly<Partial<Record<FindingKind, number>>>): void {
    for (const [kind, count] of Object.entries(more) as [FindingKind, number][]) this.#omitted[kind] = (this.#omitted[kind] ?? 0) + count
  }

  get isSound(): boolean {
    return this.#damage.length === 0
  }

  get done(): VerifyReport {
    return { ok: this.isSound, files: this.#files, damage: this.#damage, findings: this.#findings, omitted: this.#omitted }
  }
}

export function findingOf(kind: FindingKind, file: string, more: Partial<Finding> = {}): Finding {
  return { kind, file, bytes: undefined, seqs: undefined, key: undefined, sessionId: undefined, count: 1, ...meanings[kind], ...more }
}

/** The same, with what is particular about it in front of what it means. */
export function findingSaying(kind: FindingKind, file: string, what: string, more: Partial<Finding> = {}): Finding {
  return findingOf(kind, file, { ...more, meaning: `${what} ${more.meaning ?? meanings[kind].meaning}` })
}
