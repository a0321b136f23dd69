import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../agent/base/clock';
import { noLog } from '../../agent/base/log';
import { noMetrics } from '../../agent/base/metrics';
import type { EngineName } from '../../agent/identity/engine';
import type { KeyAlgorithm } from '../../agent/identity/keys';
import { loadEngine } from '../../agent/identity/load-engine';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { openAuthority } from '../../ca-client/builtin/authority';

/** How fast the built-in CA reads requests and signs leaves of P-256 keys, in one process without a network. */
export interface CaSigns {
  readonly issuer: KeyAlgorithm;
  readonly engine: EngineName;
  readonly signsPerSecond: number;
}

/** Requests that are prepared beforehand and sent in turn: making them is the client's work, not the CA's. */
const REQUESTS = 64;
/** As many as a busy server holds at once. */
const IN_FLIGHT = 32;

/**
 * Signs for `seconds` each with an issuer of P-256 and of RSA-2048.
 *
 * @param seconds  Of measuring, an issuer; another fifth of it warms up.
 */
export async function benchCaSigns(seconds: number, engine: EngineName = 'direct'): Promise<CaSigns[]> {
  return [await benchIssuer('ecdsa-p256', engine, seconds), await benchIssuer('rsa-2048', engine, seconds)];
}

async function benchIssuer(issuer: KeyAlgorithm, engineName: EngineName, seconds: number): Promise<CaSigns> {
  const dir = mkdtempSync(join(tmpdir(), 'keyturn-bench-'));
  const engine = await loadEngine(engineName);
  const deps = { clock: systemClock, random: Math.random, log: noLog, metrics: noMetrics };
  const authority = await openAuthority({ dir, trustDomain: 'cluster.local', rootAlgorithm: issuer, engine }, deps);
  try {
    const id = parseSpiffeId('spiffe://cluster.local/ns/shop/sa/cart');
    const requests = await Promise.all(
      Array.from({ length: REQUESTS }, async () => engine.createCsr(await engine.generateKeyPair('ecdsa-p256'), id)),
    );
    let signed = 0;
    const worker = async (until: number) => {
      while (performance.now() < until) await authority.sign(requests[signed++ % REQUESTS]!, id, 86_400);
    };
    const run = (until: number) => Promise.all(Array.from({ length: IN_FLIGHT }, () => worker(until)));
    await run(performance.now() + seconds * 200);
    signed = 0;
    const startedAt = performance.now();
    await run(startedAt + seconds * 1_000);
    return { issuer, engine: engineName, signsPerSecond: Math.round((signed * 1_000) / (performance.now() - startedAt)) };
  } finally {
    await authority.close();
    rmSync(dir, { recursive: true, force: true });
  }
}
