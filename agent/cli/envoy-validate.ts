import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentError } from '../base/errors';
import type { JsonObject } from '../policy/resources/resource';

/**
 * Asks an Envoy whether it would take a bootstrap.
 *
 * @param envoy  The program.
 * @throws       AgentError ERR_POLICY with Envoy's own words; ERR_INPUT where it cannot be started.
 * @see Envoy, command line options, `--mode validate`
 */
export async function validateWithEnvoy(envoy: string, bootstrap: JsonObject): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'keyturn-validate-'));
  try {
    const file = join(dir, 'envoy.json');
    await writeFile(file, JSON.stringify(bootstrap), { mode: 0o600 });
    const { code, text } = await run(envoy, ['--mode', 'validate', '-l', 'error', '-c', file]);
    if (code !== 0)
      throw new AgentError('ERR_POLICY', `Envoy refuses it: ${text.trim() || `exit code ${code}`}`);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

function run(
  program: string,
  args: readonly string[],
): Promise<{ code: number | null; text: string }> {
  return new Promise((done, failed) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    const keep = (chunk: Buffer) => {
      if (text.length < MAX_TEXT) text += chunk.toString('utf8');
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.on('error', (cause) =>
      failed(
        new AgentError('ERR_INPUT', `start ${program}: ${cause.message}`, {
          cause,
          hint: 'give the path of an Envoy',
        }),
      ),
    );
    child.on('close', (code) => done({ code, text }));
  });
}

const MAX_TEXT = 64 << 10;
