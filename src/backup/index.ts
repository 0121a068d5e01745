/** The door `holdfast/backup`: re-exports only. */
export type * from './repository/access.js'
export { createRepository, openRepository } from './repository/open.js'
export type * from './repository/repository.js'
