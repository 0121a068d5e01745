/** What each kind of finding means to whoever owns the data, how bad it is, and whether repair has something to do about it. */
import type { FindingKind, Severity } from '../../findings.js'

export interface Meaning {
  readonly severity: Severity
  readonly meaning: string
  readonly repairable: boolean
}

const notice = (meaning: string, repairable = false): Meaning => ({ severity: 'notice', meaning, repairable })
const warning = (meaning: string, repairable: boolean): Meaning => ({ severity: 'warning', meaning, repairable })
const damage = (meaning: string, repairable: boolean): Meaning => ({ severity: 'damage', meaning, repairable })

export const meanings: Readonly<Record<FindingKind, Meaning>> = {
  'void-torn': notice(
    'The beginning of a write whose writer was killed, broken off by the next one. Never acknowledged; every reader skips it.',
  ),
  'void-superseded': notice('Written by somebody who had lost the race for this place, and who was told so. Every reader skips it.'),
  'void-sealed': notice('Written behind the end of a closed log. Its writer went on in the log that follows; every reader skips it.'),
  'void-leftover': notice('What a power cut has left of records that were never acknowledged. Every reader skips it.'),
  'void-unfinished': notice('The beginning of a batch whose writer was killed. Never acknowledged; every reader skips it.'),
  'void-garbage': warning('A line that this library has not written. Every reader skips it; nothing of the log is missing.', true),
  'void-welded': notice('A killed writer’s beginning with another’s line behind it, which that one wrote again. Every reader skips it.'),
  'torn-tail': notice('Not ended yet: somebody is writing it, or was killed while writing it. Never acknowledged.'),
  'missing-bytes': damage(
    'Records that were on the disk are missing here. Readers stop in front of this place, and nothing is appended.',
    true,
  ),
  'altered-line': damage('A record was changed after it was written. Readers stop in front of it, and nothing is appended.', true),
  'nul-run': damage('Zeros stand where bytes were written. What stood here is lost, unless a backup has it.', true),
  'stranded-records': damage(
    'These records are whole, but what they continue is missing: no reader gets to them. Repair can save them.',
    true,
  ),
  'header-missing': damage('The log has lost its beginning. Readers see an empty log with damage, and nothing is appended.', true),
  'header-damaged': damage('The first line was changed after it was written. No reader gets behind it, and nothing is appended.', true),
  'duplicate-id': warning('The same idempotency id twice: something was appended a second time that should have been recognized.', false),
  'not-a-file': damage('A file belongs here, and something else is there. The store neither follows nor replaces it.', false),
  unreadable: damage('The system refuses to read this file. What is in it is not known.', false),
  'snapshot-damaged': damage('The metadata cannot be trusted here. The store refuses to open rather than to forget entries.', true),
  'snapshot-missing': damage('The metadata are gone: missing is not empty. The store refuses to open.', true),
  'journal-damaged': damage('A change to the metadata cannot be read. The store refuses to open rather than to forget it.', true),
  'journal-missing': damage('The latest changes to the metadata are gone: missing is not empty. The store refuses to open.', true),
  'pair-mismatch': damage(
    'sessions.json and the journal do not belong together: edited, or restored one by one. The store refuses to open.',
    true,
  ),
  'format-damaged': damage('The file that says which format the store has cannot be read. The store refuses to open.', true),
  'transcript-missing': damage(
    'The metadata name this session and say that records of it were on the disk, but there is no transcript.',
    true,
  ),
  'transcript-orphan': warning('No session names this transcript: no reader gets to it. Nothing of it is lost.', true),
  'transcript-shrunk': damage(
    'Records that were known to be on the disk are no longer in this transcript, or others stand in their place.',
    true,
  ),
  'unfinished-work': notice('Somebody was in the middle of it. Whoever uses it next brings it to its end.', true),
  'foreign-file': notice('Nothing that this library has put here. It is left alone.'),
  'lock-foreign-entry': warning('Not of this library, in the directory of a lock: whoever needs that lock may be refused.', true),
  'stage-leftover': notice('Staged by a process that is gone, and never put in place. The next holder of the lock removes it.', true),
  'wrong-permissions': warning('Others than the owner can get at it, or the owner cannot. Directories are 0700 and files 0600.', true),
  'archive-damaged': damage('An archived transcript cannot be unpacked, or is not what its note says.', false),
  'chat-tool-call-without-result': warning('The assistant called a tool, and no result follows. Many models refuse such a history.', false),
  'chat-parent-missing': warning(
    'A record names a parent that is not in this transcript: a viewer that follows parents loses what is before.',
    false,
  ),
  'chat-two-roots': warning(
    'More than one record has no parent: a viewer that follows parents shows one branch and hides the rest.',
    false,
  ),
}
