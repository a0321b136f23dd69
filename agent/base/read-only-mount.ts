import { readFileSync } from 'node:fs';

/**
 * Whether an open file or directory lies on a mount that is read-only, where nobody writes, whatever modes say. access(2) would not tell:
 * where this user may not write by the mode, it never gets as far as the mount.
 *
 * @see proc_pid_fdinfo(5), proc_pid_mountinfo(5).
 */
export function isOnReadOnlyMount(fd: number): boolean {
  try {
    const id = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
    const mount = readFileSync('/proc/self/mountinfo', 'latin1')
      .split('\n')
      .map((line) => line.split(' '))
      .find(([each]) => each === id);
    // ID, parent, device, root, place, options, optional fields, "-", type, source, options of the file system.
    const options = `${mount?.[5] ?? ''},${mount?.at(-1) ?? ''}`.split(',');
    return mount !== undefined && options.includes('ro');
  } catch {
    return false;
  }
}
