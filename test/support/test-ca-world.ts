import { afterEach } from '@jest/globals';
import { type CaWorld, type CaWorldOptions, startCaWorld } from './ca-server';

const started: CaWorld[] = [];

afterEach(async () => {
  for (const world of started.splice(0)) await world.close();
});

/** As `startCaWorld`, for one test: it is closed after that, whatever becomes of the test. */
export async function testCaWorld(options: CaWorldOptions = {}): Promise<CaWorld> {
  const world = await startCaWorld(options);
  started.push(world);
  return world;
}
