/** Does what a plan lists, action by action, and nothing else. One that is refused or fails leaves the others alone. */
import diagnostics from 'node:diagnostics_channel'
import { ioError, isStoreError, StoreError } from '../../errors.js'
import type { Inside } from '../../file/backend.js'
import { checkFormat } from '../../file/format.js'
import type { ActionReport, RepairAction, RepairPlan, RepairReport } from '../../repair-plan.js'
import { readFormat, repairFormat } from './format-repair.js'
import { repairLog } from './log-repair.js'
import { repairMetadata } from './metadata-repair.js'
import { assertPlan } from './plan-schema.js'
import { repairSession } from './sessions-repair.js'
import { moveAside } from './surroundings.js'

export interface ApplyOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

const channel = diagnostics.channel('holdfast:repair')

/** @throws INVALID_OPTION  it is no plan, or one of another store. Effect none. The signal's reason, between two actions. */
export async function applyPlan(inside: Inside, plan: RepairPlan, { signal, onProgress }: ApplyOptions): Promise<RepairReport> {
  assertPlan(plan)
  const storeId = readFormat(inside)?.storeId
  if (plan.storeId !== undefined && storeId !== undefined && plan.storeId !== storeId)
    throw new StoreError('INVALID_OPTION', `the plan is of the store ${plan.storeId}; this one is ${storeId}.`, {
      details: { option: 'plan', planned: plan.storeId, found: storeId },
      hint: 'Nothing was changed. Make a plan of this store.',
    })
  const actions: ActionReport[] = []
  for (const action of plan.actions) {
    signal?.throwIfAborted()
    actions.push(await reported(inside, plan, action, signal))
    // What comes next may need what has just been mended.
    await reopen(inside)
    onProgress?.(actions.length, plan.actions.length)
  }
  return { ok: actions.every(({ outcome }) => outcome === 'done'), planId: plan.planId, actions }
}

async function reported(inside: Inside, plan: RepairPlan, action: RepairAction, signal: AbortSignal | undefined): Promise<ActionReport> {
  const { id, kind, file, key, sessionId } = action
  const about = { planId: plan.planId, action: id, kind, file, key, sessionId }
  publish({ event: 'begin', ...about })
  let report: ActionReport
  try {
    const quarantine = await apply(inside, plan, action, signal)
    report = { id, kind, file, outcome: 'done', quarantine, error: undefined }
  } catch (error) {
    if (signal?.aborted && error === signal.reason) throw error
    const { code, message, effect } = ioError(error, `repairing ${file}`, 'none')
    const outcome = isStoreError(error, 'SEQ_CONFLICT') ? 'refused' : 'failed'
    report = { id, kind, file, outcome, quarantine: undefined, error: { code, message, effect } }
  }
  publish({ event: report.outcome, ...about, quarantine: report.quarantine, error: report.error })
  return report
}

async function apply(inside: Inside, plan: RepairPlan, action: RepairAction, signal: AbortSignal | undefined): Promise<string | undefined> {
  const { work } = action
  if (work.kind === 'rewrite-log') return repairLog(siteOf(inside, action), plan, action, work, signal)
  if (work.kind === 'rebuild-metadata') return repairMetadata(inside, plan, action, work)
  if (work.kind === 'remake-format') return repairFormat(inside, plan, action, work.text)
  if (work.kind === 'move-aside') return moveAside(inside, plan, action, work.names)
  if (work.kind === 'set-permissions') inside.host.disk.chmod?.(`${inside.places.store}/${action.file}`, work.mode)
  else await repairSession(inside, action, work, signal)
  return undefined
}

/** What kept the store from being opened may be gone. */
async function reopen({ host, places, vital, metadata }: Inside): Promise<void> {
  if (!vital.damage) return
  try {
    if (!checkFormat(host, places)) return
    await metadata.reload()
    vital.damage = undefined
  } catch (error) {
    if (isStoreError(error)) vital.damage = error
    else throw error
  }
}

function siteOf({ host, places, options, counters, tag, transcripts }: Inside, { file, sessionId }: RepairAction) {
  const archived = file.startsWith('archive/')
  return {
    host,
    counters,
    tag,
    path: `${places.store}/${file}`,
    directory: archived ? places.archive : places.transcripts,
    quarantine: places.quarantine,
    baton: transcripts.slots.of(sessionId ?? ''),
    waitMs: options.waitMs,
    atRest: archived,
  }
}

function publish(message: object): void {
  if (channel.hasSubscribers) channel.publish(message)
}
