import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RotateResult } from '../../agent/admin/agent-view';
import { callControl } from '../../agent/admin/control-client';
import { openAuthority } from '../../agent/authority/authority';
import { systemClock } from '../../agent/base/clock';
import { noLog } from '../../agent/base/log';
import { noMetrics } from '../../agent/base/metrics';
import { systemRandom } from '../../agent/base/random';
import { ENGINES } from '../../agent/identity/engine';
import { loadEngine } from '../../agent/identity/load-engine';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { keep, type Samples, samples, tell } from './samples';
import { firstSecret, SdsCrowd } from './sds-probe';
import type { Running, Subject } from './subject';

const PATIENCE_MS = 20_000;

/** Milliseconds from exec to the first secret over SDS, and of a bare start of the runtime to its end. One warm-up round is thrown away. */
export async function measureStart(
  subjects: readonly Subject[],
  rounds: number,
): Promise<readonly Samples[]> {
  const times = new Map<string, number[]>();
  for (let round = -1; round < rounds; round += 1) {
    tell(`start, round ${Math.max(round + 1, 0)} of ${rounds}`);
    keep(times, 'node -e 0', round, await bareStart());
    for (const subject of subjects) {
      const running = await subject.start();
      const connection = await firstSecret(
        running.sdsSocket,
        'default',
        AbortSignal.timeout(PATIENCE_MS),
      );
      keep(times, subject.name, round, performance.now() - running.startedAt);
      connection.close();
      await running.stop();
    }
  }
  return [...times].map(([name, values]) => samples(name, values));
}

/** Kilobytes at idle, with a client on the socket, `idleMs` after the first secret; all subjects of a round are idle at the same time. */
export async function measureMemory(
  subjects: readonly Subject[],
  rounds: number,
  idleMs: number,
): Promise<readonly { readonly rssAnon: Samples; readonly rss: Samples }[]> {
  const anon = new Map<string, number[]>();
  const all = new Map<string, number[]>();
  for (let round = 0; round < rounds; round += 1) {
    tell(`memory, round ${round + 1} of ${rounds}`);
    const found = await Promise.all(subjects.map((subject) => idleMemory(subject, idleMs)));
    for (const [index, { rssAnon, rss }] of found.entries()) {
      keep(anon, subjects[index]!.name, round, rssAnon);
      keep(all, subjects[index]!.name, round, rss);
    }
  }
  return [...anon].map(([name, values]) => ({
    rssAnon: samples(name, values),
    rss: samples(name, all.get(name)!),
  }));
}

async function idleMemory(
  subject: Subject,
  idleMs: number,
): Promise<{ readonly rssAnon: number; readonly rss: number }> {
  const running = await subject.start();
  const connection =
    running.sdsSocket &&
    (await firstSecret(running.sdsSocket, 'default', AbortSignal.timeout(PATIENCE_MS)));
  await pause(idleMs);
  const found = running.memory();
  if (connection) connection.close();
  await running.stop();
  return found;
}

/** Milliseconds from the order to rotate, key and certificate included, until the last of so many streams has the new secret. */
export async function measureRotations(
  subjects: readonly Subject[],
  crowds: readonly number[],
  rounds: number,
): Promise<readonly Samples[]> {
  const times = new Map<string, number[]>();
  const all = await Promise.all(
    subjects.map(async (subject) => ({ name: subject.name, running: await subject.start() })),
  );
  for (const streams of crowds) {
    for (const { name, running } of all) {
      const what = `${streams} ${streams === 1 ? 'stream' : 'streams'} of ${name}`;
      tell(`rotation to ${what}`);
      (await firstSecret(running.sdsSocket, 'default', AbortSignal.timeout(PATIENCE_MS))).close();
      const crowd = await SdsCrowd.open(running.sdsSocket, streams);
      for (let round = -2; round < rounds; round += 1)
        keep(times, what, round, await rotation(running, crowd, round + 4));
      crowd.close();
    }
  }
  for (const { running } of all) await running.stop();
  return [...times].map(([name, values]) => samples(name, values));
}

async function rotation(running: Running, crowd: SdsCrowd, secrets: number): Promise<number> {
  const begun = performance.now();
  const asked = callControl<RotateResult>(running.controlSocket!, 'POST', '/rotate', {
    reason: 'bench',
  });
  await crowd.each(secrets);
  const took = performance.now() - begun;
  await asked;
  // Lets the last acknowledgements arrive, so that rounds do not overlap.
  await pause(50);
  return took;
}

/** Certificates a second that the built-in CA makes of requests for P-256 keys, P-256 root, one at a time, by engine. */
export async function measureSigning(
  windowMs: number,
  rounds: number,
): Promise<readonly Samples[]> {
  const dir = mkdtempSync(join(tmpdir(), 'keyturn-bench-'));
  const id = parseSpiffeId('spiffe://cluster.local/ns/bench/sa/bench');
  const deps = { clock: systemClock, random: systemRandom, log: noLog, metrics: noMetrics };
  const rates = new Map<string, number[]>();
  const engines = await Promise.all(ENGINES.map((name) => loadEngine(name)));
  const authorities = await Promise.all(
    engines.map((engine) =>
      openAuthority(
        {
          dir: join(dir, engine.name),
          trustDomain: 'cluster.local',
          rootAlgorithm: 'ecdsa-p256',
          engine,
        },
        deps,
      ),
    ),
  );
  for (let round = -1; round < rounds; round += 1) {
    for (const [index, engine] of engines.entries()) {
      tell(`signing with ${engine.name}, round ${Math.max(round + 1, 0)} of ${rounds}`);
      const csrDer = await engine.createCsr(await engine.generateKeyPair('ecdsa-p256'), id);
      const begun = performance.now();
      let signed = 0;
      for (; performance.now() - begun < windowMs; signed += 1)
        await authorities[index]!.sign(csrDer, id, 3_600);
      keep(rates, engine.name, round, (signed * 1_000) / (performance.now() - begun));
    }
  }
  for (const authority of authorities) await authority.close();
  rmSync(dir, { recursive: true, force: true });
  return [...rates].map(([name, values]) => samples(name, values));
}

function bareStart(): Promise<number> {
  const begun = performance.now();
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, ['-e', '0'], { stdio: 'ignore' });
    child.once('error', failed);
    child.once('close', () => done(performance.now() - begun));
  });
}

function pause(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}
