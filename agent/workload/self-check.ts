import { withDeadline } from '../base/clock';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import { inTurns, joinSteps } from '../base/steps';
import type { HandshakeMaterial, HandshakeOutcome } from '../identity/self-handshake';

/** From here on the TLS library reads the set for more than some milliseconds: some 30 roots, or 300 revoked certificates. */
const HEAVY_BYTES = 16 * 1024;
/** A signature with a longer RSA key takes as long as that. */
const HEAVY_KEY_BYTES = 2 * 1024;
/** No set takes that long; what hangs must not keep back what is good. */
const PATIENCE_MS = 30_000;

/**
 * `handshakeObstacle`, in a thread of its own where it would stop this one for more than 10 ms.
 *
 * @throws AgentError ERR_TIMEOUT, or ERR_BUG where there is no such thread.
 */
export async function selfHandshake(
  material: HandshakeMaterial,
  { clock }: Pick<Deps, 'clock'>,
): Promise<string | undefined> {
  return withDeadline(clock, PATIENCE_MS, 'self-check handshake', undefined, async (signal) => {
    if (isHeavy(material)) return handshakeAside(material, signal);
    const { handshakeObstacle } = await import('../identity/self-handshake');
    return handshakeObstacle(material);
  });
}

function isHeavy({ keyPem, chainPem, rootsPem, listsPem }: HandshakeMaterial): boolean {
  const bytes = [chainPem, rootsPem, ...listsPem].reduce((sum, each) => sum + each.length, 0);
  return bytes > HEAVY_BYTES || keyPem.length > HEAVY_KEY_BYTES;
}

async function handshakeAside(
  material: HandshakeMaterial,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { Worker } = await import('node:worker_threads');
  const lists = await copiesOf(material.listsPem);
  // This very program, whose `main.ts` sees that it is in a thread.
  const worker = new Worker(process.argv[1]!, { argv: [] });
  const end = () => void worker.terminate();
  signal.addEventListener('abort', end, { once: true });
  try {
    const outcome = await new Promise<HandshakeOutcome>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', (code) =>
        reject(new AgentError('ERR_BUG', `self-check handshake: its thread ended with ${code}`)),
      );
      worker.postMessage({ ...material, listsPem: lists.bytes }, lists.buffers);
    });
    if ('failure' in outcome)
      throw new AgentError('ERR_BUG', `self-check handshake: ${outcome.failure}`);
    return outcome.obstacle;
  } finally {
    signal.removeEventListener('abort', end);
    await worker.terminate();
  }
}

/** To be given away: a message that is copied to its thread in one piece would hold this one. */
async function copiesOf(lists: readonly Buffer[]) {
  const bytes: Buffer[] = [];
  for (const each of lists) bytes.push(await inTurns(joinSteps([each])));
  // A small one lies in a buffer with others.
  const alone = bytes.filter((each) => each.length === each.buffer.byteLength);
  return { bytes, buffers: alone.map(({ buffer }) => buffer as ArrayBuffer) };
}
