import { designCard } from './design-card.js'
import { fsSafe } from './fs-safe.js'
import { holdfastPower, holdfastProcess } from './holdfast.js'
import { lmdbSynced, lmdbUnsynced } from './lmdb.js'
import type { Peer } from './peer.js'
import { sqliteFull, sqliteNormal } from './sqlite.js'

export const peers: readonly Peer[] = [
  holdfastPower,
  holdfastProcess,
  sqliteFull,
  sqliteNormal,
  lmdbSynced,
  lmdbUnsynced,
  designCard,
  fsSafe,
]

export function peerNamed(name: string): Peer {
  const found = peers.find((peer) => peer.name === name)
  if (!found) throw new Error(`no peer is called ${name}`)
  return found
}
