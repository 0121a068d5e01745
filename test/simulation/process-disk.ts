import type { Disk } from '../../src/file/durable.js'
import type { SimulatedDisk } from './simulated-disk.js'

/** A simulated disk as one process sees it. */
export function processDisk(disk: SimulatedDisk, pid: number): Disk {
  return {
    open: (path, flags) => disk.open(pid, path, flags),
    close: (fd) => disk.close(pid, fd),
    write: (fd, bytes) => disk.write(pid, fd, bytes),
    read: (fd, into, offset, length, position) => disk.read(pid, fd, into, offset, length, position),
    fstat: (fd) => disk.fstat(pid, fd),
    stat: (path) => disk.stat(path),
    rename: (from, to) => disk.rename(from, to),
    link: (from, to) => disk.link(from, to),
    unlink: (path) => disk.unlink(path),
    mkdir: (path) => disk.mkdir(pid, path),
    rmdir: (path) => disk.rmdir(path),
    readdir: (path) => disk.readdir(path),
    async sync(fd) {
      const complete = disk.beginSync(pid, fd)
      await disk.settings.syncing?.()
      complete()
    },
    async syncDirectory(path) {
      const complete = disk.beginDirectorySync(path)
      await disk.settings.syncing?.()
      complete()
    },
  }
}
