import { existsSync } from 'node:fs';
import { resolve } from 'node:path';

const DIST = resolve(__dirname, '../../dist');

/** The two forms in which the program ships: one file for Node.js, or one executable that needs nothing. */
export type ProgramForm = 'node' | 'standalone';

/** The form that is under test: `KEYTURN_FORM`, which `scripts/test --standalone` sets, else the one for Node.js. */
export const FORM: ProgramForm = process.env.KEYTURN_FORM === 'standalone' ? 'standalone' : 'node';

/** The root file system of an image that the program is to be started in: `KEYTURN_ROOTFS`, which `scripts/test --image` sets. */
const ROOTFS = process.env.KEYTURN_ROOTFS;

/** Whether the program under test runs in its image: with no more rights than its own user's. */
export const IN_IMAGE = ROOTFS !== undefined;

/** For code that a test loads before the program, which refuses whatever shows that this was done. */
export const UNSEEN = 'delete process.env.BUN_OPTIONS; process.execArgv.length = 0;';

/**
 * How a form is started, before the command line of keyturn itself. `scripts/build` makes it; `scripts/test` sees to that.
 *
 * @param nodeFlags  For Node.js, where that is what is started.
 */
export function programCommand(
  form: ProgramForm = FORM,
  nodeFlags: readonly string[] = [],
): readonly [string, ...string[]] {
  if (ROOTFS) return [resolve(__dirname, 'in-image.sh'), ROOTFS];
  const file = form === 'standalone' ? `${DIST}/standalone/keyturn` : `${DIST}/keyturn`;
  if (!existsSync(file))
    throw new Error(
      `${file} is missing; make it with: scripts/build${form === 'standalone' ? ' --standalone' : ''}`,
    );
  return form === 'standalone' ? [file] : [process.execPath, ...nodeFlags, file];
}
