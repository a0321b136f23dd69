import { parentPort } from 'node:worker_threads';
import { errorText } from '../base/errors';
import {
  type HandshakeMaterial,
  type HandshakeOutcome,
  handshakeObstacle,
} from '../identity/self-handshake';

// One handshake, and the thread ends.
parentPort!.once('message', (material: HandshakeMaterial) => {
  void handshakeObstacle(material)
    .then(
      (obstacle): HandshakeOutcome => ({ obstacle }),
      (caught): HandshakeOutcome => ({ failure: errorText(caught) }),
    )
    .then((outcome) => {
      (material.keyPem as Uint8Array).fill(0);
      parentPort!.postMessage(outcome);
    });
});
