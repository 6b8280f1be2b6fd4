import { getSystemErrorMap } from 'node:util';

/**
 * A Linux error number (asm-generic/errno.h). Each number has one object, which is thrown as it is, without a stack trace: an
 * errno is an expected result, not a bug.
 */
export class Errno extends Error {
  readonly code: number;
  override readonly name: string;

  private constructor(code: number, name: string) {
    const [, text] = getSystemErrorMap().get(-code) ?? [];
    super(text === undefined ? name : `${name}: ${text}`);
    this.code = code;
    this.name = name;
    this.stack = this.message;
  }

  override toString(): string {
    return `${this.name} (${this.code})`;
  }

  static readonly #byCode: (Errno | undefined)[] = new Array(4096).fill(undefined);

  /** @internal Creates the constants below. */
  static make(code: number, name: string): Errno {
    const frames = Error.stackTraceLimit;
    Error.stackTraceLimit = 0;
    const errno = new Errno(code, name);
    Error.stackTraceLimit = frames;
    Errno.#byCode[code] = errno;
    return errno;
  }

  /** The object for a positive error number. EIO for numbers outside 1…4095, which the client would reject. */
  static of(code: number): Errno {
    const known = Errno.#byCode[code];
    if (known) return known;
    return code >= 1 && code <= 4095 ? Errno.make(code, `errno ${code}`) : EIO;
  }
}

export const EPERM = Errno.make(1, 'EPERM');
export const ENOENT = Errno.make(2, 'ENOENT');
export const EINTR = Errno.make(4, 'EINTR');
export const EIO = Errno.make(5, 'EIO');
export const ENXIO = Errno.make(6, 'ENXIO');
export const E2BIG = Errno.make(7, 'E2BIG');
export const EBADF = Errno.make(9, 'EBADF');
export const EAGAIN = Errno.make(11, 'EAGAIN');
export const ENOMEM = Errno.make(12, 'ENOMEM');
export const EACCES = Errno.make(13, 'EACCES');
export const EBUSY = Errno.make(16, 'EBUSY');
export const EEXIST = Errno.make(17, 'EEXIST');
export const EXDEV = Errno.make(18, 'EXDEV');
export const ENODEV = Errno.make(19, 'ENODEV');
export const ENOTDIR = Errno.make(20, 'ENOTDIR');
export const EISDIR = Errno.make(21, 'EISDIR');
export const EINVAL = Errno.make(22, 'EINVAL');
export const ENFILE = Errno.make(23, 'ENFILE');
export const EMFILE = Errno.make(24, 'EMFILE');
export const ETXTBSY = Errno.make(26, 'ETXTBSY');
export const EFBIG = Errno.make(27, 'EFBIG');
export const ENOSPC = Errno.make(28, 'ENOSPC');
export const EROFS = Errno.make(30, 'EROFS');
export const EMLINK = Errno.make(31, 'EMLINK');
export const ERANGE = Errno.make(34, 'ERANGE');
export const ENAMETOOLONG = Errno.make(36, 'ENAMETOOLONG');
export const ENOLCK = Errno.make(37, 'ENOLCK');
export const ENOSYS = Errno.make(38, 'ENOSYS');
export const ENOTEMPTY = Errno.make(39, 'ENOTEMPTY');
export const ELOOP = Errno.make(40, 'ELOOP');
export const ENODATA = Errno.make(61, 'ENODATA');
export const EPROTO = Errno.make(71, 'EPROTO');
export const EOVERFLOW = Errno.make(75, 'EOVERFLOW');
export const EUSERS = Errno.make(87, 'EUSERS');
export const EMSGSIZE = Errno.make(90, 'EMSGSIZE');
export const EOPNOTSUPP = Errno.make(95, 'EOPNOTSUPP');
export const ECANCELED = Errno.make(125, 'ECANCELED');
export const ESTALE = Errno.make(116, 'ESTALE');
export const EDQUOT = Errno.make(122, 'EDQUOT');
