import { once } from 'node:events';
import { Storage, serve } from '../../index.js';

class Memory extends Storage {
  static about = { name: 'memory' };

  async storage(_request, call) {
    for (const modseq of [1, 2]) await this.send(call, { op: 'watch', watch: { modseq } });
    if (!call.signal.aborted) await once(call.signal, 'abort');
    throw call.signal.reason;
  }
}

serve(Memory);
