const texts: Record<string, [errno: number, text: string]> = {
  EBADF: [-9, 'bad file descriptor'],
  EBUSY: [-16, 'resource busy or locked'],
  EDQUOT: [-122, 'disk quota exceeded'],
  EEXIST: [-17, 'file already exists'],
  EINTR: [-4, 'interrupted system call'],
  EINVAL: [-22, 'invalid argument'],
  EIO: [-5, 'i/o error'],
  EISDIR: [-21, 'illegal operation on a directory'],
  ELOOP: [-40, 'too many symbolic links encountered'],
  EMFILE: [-24, 'too many open files'],
  ENOENT: [-2, 'no such file or directory'],
  ENOSPC: [-28, 'no space left on device'],
  ENOTDIR: [-20, 'not a directory'],
  ENOTEMPTY: [-39, 'directory not empty'],
  EPERM: [-1, 'operation not permitted'],
  EROFS: [-30, 'read-only file system'],
}

/** An error as Node makes it from what the system said. */
export function failure(code: string, syscall: string, path?: string, dest?: string): NodeJS.ErrnoException {
  const [errno, text] = texts[code] ?? [-1, 'unknown error']
  const places = path === undefined ? '' : dest === undefined ? ` '${path}'` : ` '${path}' -> '${dest}'`
  const error = new Error(`${code}: ${text}, ${syscall}${places}`)
  return Object.assign(error, { code, errno, syscall, ...(path === undefined ? {} : { path }), ...(dest === undefined ? {} : { dest }) })
}
